"""The relay's answers: `observer.Observer` over all nodes, and the batched stream for our own clients.

GetFlows merges the nodes' streams; ServerStatus, GetNodes and GetNamespaces sum, list and unite.
GetAgentEvents and GetDebugEvents are UNIMPLEMENTED, as clients of a relay expect: they are a node's own.
Flows pass as bytes.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from typing import Any, TypeVar

import grpc
import numpy as np

from palomar.clock import Clock
from palomar_pb.observer import observer_pb2, observer_pb2_grpc
from palomar_pb.palomar.v1 import batch_pb2
from palomar_pb.relay import relay_pb2
from relay.collector import Collector, Merged
from relay.metrics import RelayMetrics
from relay.peers import Peer, PeerEntry, PeerPool, PeerState
from relay.requests import check_request, say_nothing_understood

logger = logging.getLogger(__name__)

ASK_TIMEOUT_S = 5.0
BATCH_FLOWS = 512
MAX_STREAMS = 64
"""Flow streams served at once: what bounds the relay's memory, with MAX_HELD_BYTES of each."""
VERSION_METADATA = "hubble-relay-version"
T = TypeVar("T")

Context = Any
"""grpc.aio.ServicerContext; grpc ships no types."""


class RelayCore:
    """What both services share: the pool, the clock and the questions put to every node."""

    def __init__(
        self,
        pool: PeerPool,
        clock: Clock,
        name: str,
        version: str,
        max_wait_ns: int,
        metrics: RelayMetrics,
        max_streams: int = MAX_STREAMS,
    ) -> None:
        """`name` is the relay's own in status events; `max_wait_ns` bounds the merge."""
        self.pool = pool
        self.clock = clock
        self.name = name
        self.version = version
        self.metrics = metrics
        self._max_wait_ns = max_wait_ns
        self.max_streams = max_streams
        self._streams = 0

    @asynccontextmanager
    async def call(self, context: Context) -> AsyncIterator[None]:
        """Wrap a call: a node's refusal of the request is the relay's own."""
        try:
            yield
        except grpc.aio.AioRpcError as error:
            await context.abort(error.code(), error.details() or "")
        except grpc.aio.InternalError:
            logger.debug("the client left while it was being written to")

    async def greet(self, context: Context) -> None:
        """Send the version. A client that has it and follows misses nothing from then on."""
        await context.send_initial_metadata(((VERSION_METADATA, self.version),))

    async def collect(
        self, request: observer_pb2.GetFlowsRequest, context: Context
    ) -> AsyncGenerator[Merged, None]:
        """Merge the nodes' answers to `request`."""
        problem = check_request(request)
        if problem:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, problem)
        if self._streams >= self.max_streams:
            self.metrics.refused.inc()
            text = (
                f"this relay serves {self.max_streams} flow streams already: end one or start another relay"
            )
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, text)
        collector = Collector(self.pool, request, self.clock, self._max_wait_ns, self.name, self.metrics)
        self._streams += 1
        self.metrics.streams.inc()
        try:
            await collector.start()
            await self.greet(context)
            async for merged in collector.run():
                yield merged
                self.metrics.sent.inc(len(merged.items))
        finally:
            self._streams -= 1
            self.metrics.streams.dec()
            await collector.stop()

    async def ask_all(
        self, ask: Callable[[observer_pb2_grpc.ObserverStub], Awaitable[T]]
    ) -> list[tuple[PeerEntry, T | None]]:
        """Put one unary question to every connected node; None where no answer came.

        `ask` gives its call the limit ASK_TIMEOUT_S: a wait that is cancelled is not gRPC's (ADR 8).
        """

        async def one(entry: PeerEntry) -> T | None:
            try:
                stub = observer_pb2_grpc.ObserverStub(entry.channel)
                return await ask(stub)
            except grpc.aio.AioRpcError as error:
                facts = {"peer": entry.peer.name, "error": str(error)}
                logger.debug("a node did not answer", extra=facts)
                return None

        await self.pool.settled()
        entries = self.pool.entries()
        connected = [entry for entry in entries if entry.state is PeerState.CONNECTED]
        answers = await asyncio.gather(*(one(entry) for entry in connected))
        known = dict(zip((entry.peer.name for entry in connected), answers, strict=True))
        return [(entry, known.get(entry.peer.name)) for entry in entries]

    async def ask_status(self) -> list[tuple[PeerEntry, observer_pb2.ServerStatusResponse | None]]:
        """Ask every node how it is."""
        return await self.ask_all(
            lambda stub: stub.ServerStatus(observer_pb2.ServerStatusRequest(), timeout=ASK_TIMEOUT_S)
        )


class RelayObserver:
    """`observer.Observer` over all nodes."""

    def __init__(self, core: RelayCore) -> None:
        """Answer from `core`."""
        self._core = core

    async def GetFlows(  # noqa: N802 - gRPC method name
        self, request: observer_pb2.GetFlowsRequest, context: Context
    ) -> None:
        """Stream the flows of all nodes in time order; our extension to whom it says something."""
        say_nothing_understood(request)
        async with self._core.call(context), aclosing(self._core.collect(request, context)) as stream:
            async for merged in stream:
                for item in merged.items:
                    await context.write(item)

    async def GetAgentEvents(  # noqa: N802 - gRPC method name
        self, _request: observer_pb2.GetAgentEventsRequest, context: Context
    ) -> None:
        """Refuse: agent events are a node's own."""
        await context.abort(grpc.StatusCode.UNIMPLEMENTED, "a relay has no agent events: ask a node")

    async def GetDebugEvents(  # noqa: N802 - gRPC method name
        self, _request: observer_pb2.GetDebugEventsRequest, context: Context
    ) -> None:
        """Refuse: debug events are a node's own."""
        await context.abort(grpc.StatusCode.UNIMPLEMENTED, "a relay has no debug events: ask a node")

    async def GetNodes(  # noqa: N802 - gRPC method name
        self, _request: observer_pb2.GetNodesRequest, context: Context
    ) -> observer_pb2.GetNodesResponse:
        """List every known node with its state."""
        async with self._core.call(context):
            await self._core.greet(context)
            asked = await self._core.ask_status()
            return observer_pb2.GetNodesResponse(
                nodes=[describe_node(entry.peer, entry.state, status) for entry, status in asked]
            )

    async def GetNamespaces(  # noqa: N802 - gRPC method name
        self, _request: observer_pb2.GetNamespacesRequest, context: Context
    ) -> observer_pb2.GetNamespacesResponse:
        """Union of the nodes' namespaces."""
        async with self._core.call(context):
            await self._core.greet(context)
            asked = await self._core.ask_all(
                lambda stub: stub.GetNamespaces(observer_pb2.GetNamespacesRequest(), timeout=ASK_TIMEOUT_S)
            )
            found = {
                (space.cluster, space.namespace) for _, given in asked if given for space in given.namespaces
            }
            answer = observer_pb2.GetNamespacesResponse()
            for cluster, namespace in sorted(found):
                answer.namespaces.add(cluster=cluster, namespace=namespace)
            return answer

    async def ServerStatus(  # noqa: N802 - gRPC method name
        self, _request: observer_pb2.ServerStatusRequest, context: Context
    ) -> observer_pb2.ServerStatusResponse:
        """Sum over the nodes; the uptime is the longest of them."""
        async with self._core.call(context):
            await self._core.greet(context)
            asked = await self._core.ask_status()
            answer = sum_status([(entry.peer.name, status) for entry, status in asked])
            answer.version = self._core.version
            return answer


class RelayBatches:
    """The batched stream over all nodes."""

    def __init__(self, core: RelayCore) -> None:
        """Answer from `core`."""
        self._core = core

    async def GetFlows(  # noqa: N802 - gRPC method name
        self, request: observer_pb2.GetFlowsRequest, context: Context
    ) -> None:
        """Stream the flows of all nodes in time order, many a message."""
        async with self._core.call(context), aclosing(self._core.collect(request, context)) as stream:
            async for merged in stream:
                clock_ns = self._core.clock.wall_ns()
                for start in range(0, len(merged.items), BATCH_FLOWS):
                    await context.write(encode_batch(merged, start, clock_ns))


def encode_batch(merged: Merged, start: int, clock_ns: int) -> bytes:
    """Up to BATCH_FLOWS responses from `start` on as a serialised FlowBatch. Pure."""
    end = start + BATCH_FLOWS
    return batch_pb2.FlowBatchBytes(
        responses=merged.items[start:end],
        observed=merged.observed,
        lost=merged.lost,
        times_ns=merged.times[start:end].astype(np.dtype("<u8")).tobytes(),
        clock_ns=clock_ns,
    ).SerializeToString()


def describe_node(
    peer: Peer, state: PeerState, status: observer_pb2.ServerStatusResponse | None
) -> observer_pb2.Node:
    """Say of a node what is known; connected but without an answer it is in error. Pure."""
    node = observer_pb2.Node(name=peer.name, address=peer.address, state=relay_pb2.NODE_UNAVAILABLE)
    node.tls.enabled = bool(peer.server_name)
    node.tls.server_name = peer.server_name
    if status is not None:
        node.state = relay_pb2.NODE_CONNECTED
        node.version, node.uptime_ns = status.version, status.uptime_ns
        node.num_flows, node.max_flows = status.num_flows, status.max_flows
        node.seen_flows = status.seen_flows
    elif state is PeerState.CONNECTED:
        node.state = relay_pb2.NODE_ERROR
    return node


def sum_status(
    asked: list[tuple[str, observer_pb2.ServerStatusResponse | None]],
) -> observer_pb2.ServerStatusResponse:
    """Add up what the nodes say of themselves; a node without an answer is unavailable. Pure."""
    answer = observer_pb2.ServerStatusResponse()
    for name, status in asked:
        if status is None:
            answer.unavailable_nodes.append(name)
            continue
        answer.num_flows += status.num_flows
        answer.max_flows += status.max_flows
        answer.seen_flows += status.seen_flows
        answer.flows_rate += status.flows_rate
        answer.uptime_ns = max(answer.uptime_ns, status.uptime_ns)
    answer.num_connected_nodes.value = len(asked) - len(answer.unavailable_nodes)
    answer.num_unavailable_nodes.value = len(answer.unavailable_nodes)
    return answer
