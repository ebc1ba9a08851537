"""The Observer service of one node: flows, agent events, status, namespaces, spoken as Hubble does.

gRPC on one side, `hubble.flowstream` and the store on the other; nothing is decided here that is not
about the protocol. A malformed request is INVALID_ARGUMENT naming the field; a node without a flow store
(its ingest has not started) is UNAVAILABLE. Every answer carries the metadata `hubble-server-version`.
"""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import numpy as np

from hubble.agentevents import AgentEventLog, LoggedEvent, select
from hubble.errors import StoreDamagedError, StoreMissingError
from hubble.fieldmask import say_nothing_understood
from hubble.flowfeeds import FlowFeeds
from hubble.flowquery import FOREVER_NS, NS_PER_S, Start, nanoseconds, start_of
from hubble.flowsource import FlowSource
from hubble.flowstream import SCAN_ROWS, FlowStream
from hubble.observingnode import ObservingNode
from hubble.storereader import FlowStoreReader
from hubble.storewatch import StoreWatch
from palomar.clock import Clock
from palomar.errors import InvalidInputError
from palomar_pb.observer import observer_pb2
from palomar_pb.relay import relay_pb2

logger = logging.getLogger(__name__)

RATE_NS = 60 * NS_PER_S
"""Time that `flows_rate` looks back."""
AGENT_POLL_S = 0.1
VERSION_METADATA = "hubble-server-version"

Context = Any
"""grpc.aio.ServicerContext; grpc ships no types."""


@dataclass(frozen=True, slots=True)
class NodeFacts:
    """What the server says of its node."""

    node: ObservingNode
    version: str
    """Program and version, e.g. `palomar 0.1.0`."""
    started_ns: int
    """CLOCK_MONOTONIC when the server started."""
    address: str = ""
    """Where this server listens."""


class ObserverService:
    """Answers the methods of observer.Observer; `GetFlows` hands out bytes that are serialised already."""

    def __init__(self, source: FlowSource, facts: NodeFacts, log_directory: Path, clock: Clock) -> None:
        """`log_directory` holds the agent's event log."""
        self._source = source
        self._watch = StoreWatch(FlowFeeds(source, facts.node, clock))
        self._facts = facts
        self._log_directory = log_directory
        self._clock = clock

    async def GetFlows(self, request: observer_pb2.GetFlowsRequest, context: Context) -> None:  # noqa: N802  # gRPC method name
        """Stream flows, and losses where they happened; our extension to whom it says something."""
        say_nothing_understood(request)
        async with self.call(context):
            stream = self.stream(request)
            await self.greet(context)
            async with aclosing(stream.batches()) as batches:
                async for batch in batches:
                    for response in batch:
                        await context.write(response)

    async def GetAgentEvents(  # noqa: N802  # gRPC method name
        self, request: observer_pb2.GetAgentEventsRequest, context: Context
    ) -> None:
        """Stream what the agent did."""
        async with self.call(context):
            since = nanoseconds(request.since, "since") if request.HasField("since") else 0
            until = nanoseconds(request.until, "until") if request.HasField("until") else FOREVER_NS
            log = AgentEventLog(self._log_directory)
            past = log.read()
            await self.greet(context)
            if start_of(request.number, request.first, request.follow, since > 0) is not Start.NOW:
                number = 0 if request.first and request.follow else request.number
                for event in select(past, number, request.first, since, until):
                    await context.write(self._agent_response(event))
            while request.follow and self._clock.wall_ns() <= until:
                await asyncio.sleep(AGENT_POLL_S)
                for event in select(log.read(), 0, False, since, until):
                    await context.write(self._agent_response(event))

    async def GetDebugEvents(  # noqa: N802  # gRPC method name
        self, request: observer_pb2.GetDebugEventsRequest, context: Context
    ) -> None:
        """Stream debugging messages of the datapath: there are none, our programs make no such events.

        The stream is therefore empty; with `follow` it stays open, as Hubble's does.
        """
        async with self.call(context):
            await self.greet(context)
            if request.follow and request.HasField("until"):
                left_ns = nanoseconds(request.until, "until") - self._clock.wall_ns()
                await asyncio.sleep(max(0, left_ns) / NS_PER_S)
            elif request.follow:
                await asyncio.Event().wait()

    async def GetNodes(  # noqa: N802  # gRPC method name
        self, _request: observer_pb2.GetNodesRequest, context: Context
    ) -> observer_pb2.GetNodesResponse:
        """Name this node, the only one this server knows."""
        async with self.call(context):
            await self.greet(context)
            status = await self._status()
            node = observer_pb2.Node(
                name=self._facts.node.name,
                version=self._facts.version,
                address=self._facts.address,
                state=relay_pb2.NODE_CONNECTED,
                uptime_ns=status.uptime_ns,
                num_flows=status.num_flows,
                max_flows=status.max_flows,
                seen_flows=status.seen_flows,
            )
            return observer_pb2.GetNodesResponse(nodes=[node])

    async def GetNamespaces(  # noqa: N802  # gRPC method name
        self, _request: observer_pb2.GetNamespacesRequest, context: Context
    ) -> observer_pb2.GetNamespacesResponse:
        """Name the namespaces of the endpoints in the flows that are still stored."""
        async with self.call(context):
            await self.greet(context)
            found = set()
            for ref in await self._stored_refs(self._source.store()):
                endpoint = self._source.names.endpoint(ref)
                if endpoint is not None and endpoint.namespace:
                    found.add((endpoint.cluster, endpoint.namespace))
            namespaces = [observer_pb2.Namespace(cluster=c, namespace=n) for c, n in sorted(found)]
            return observer_pb2.GetNamespacesResponse(namespaces=namespaces)

    async def ServerStatus(  # noqa: N802  # gRPC method name
        self, _request: observer_pb2.ServerStatusRequest, context: Context
    ) -> observer_pb2.ServerStatusResponse:
        """Say how full the store is and how fast it fills."""
        async with self.call(context):
            await self.greet(context)
            return await self._status()

    @asynccontextmanager
    async def call(self, context: Context) -> AsyncIterator[None]:
        """Wrap a call: our errors become gRPC statuses."""
        try:
            yield
        except InvalidInputError as error:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
        except (StoreMissingError, StoreDamagedError) as error:
            await context.abort(grpc.StatusCode.UNAVAILABLE, str(error))
        except grpc.aio.InternalError:
            logger.debug("the client left while it was being written to")

    async def greet(self, context: Context) -> None:
        """Send the version. A client that has it and follows misses nothing from then on."""
        await context.send_initial_metadata(((VERSION_METADATA, self._facts.version),))

    def stream(self, request: observer_pb2.GetFlowsRequest) -> FlowStream:
        """Begin the answer to a GetFlowsRequest."""
        return FlowStream(self._watch, request)

    def _agent_response(self, logged: LoggedEvent) -> observer_pb2.GetAgentEventsResponse:
        response = observer_pb2.GetAgentEventsResponse(
            agent_event=logged.event, node_name=self._facts.node.name
        )
        response.time.FromNanoseconds(logged.time_ns)
        return response

    async def _status(self) -> observer_pb2.ServerStatusResponse:
        store = self._source.store()
        head = store.head
        recent = await self._count_since(store, head, self._clock.wall_ns() - RATE_NS)
        return observer_pb2.ServerStatusResponse(
            num_flows=head - min(store.oldest, head),
            max_flows=store.capacity,
            seen_flows=head,
            uptime_ns=self._clock.monotonic_ns() - self._facts.started_ns,
            version=self._facts.version,
            flows_rate=recent / (RATE_NS / NS_PER_S),
        )

    async def _count_since(self, store: FlowStoreReader, head: int, since_ns: int) -> int:
        """Rows not older than `since_ns`, counted backwards from the head."""
        count, end = 0, head
        while end > store.oldest:
            begin = max(store.oldest, end - SCAN_ROWS)
            block, _ = store.read(begin, end - begin)
            recent = int(np.count_nonzero(block.column("time_ns") >= np.uint64(max(0, since_ns))))
            count += recent
            if not recent:
                break
            end = begin
            await asyncio.sleep(0)
        return count

    async def _stored_refs(self, store: FlowStoreReader) -> list[int]:
        """References that stored rows use."""
        refs: set[int] = set()
        begin = store.oldest
        while begin < store.head:
            block, _ = store.read(begin, SCAN_ROWS)
            for name in ("src_ref", "dst_ref"):
                refs.update(np.unique(block.column(name)).tolist())
            begin += SCAN_ROWS
            await asyncio.sleep(0)
        return sorted(refs - {0})
