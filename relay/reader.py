"""One client's stream of one node, for as long as the client wants it: resumed wherever it breaks.

Input: the peer's channel as it is at the moment; output: batches handed to `sink`, whose return may take
as long as it needs: nothing is read ahead. Ends when the node has told everything, or with
INVALID_ARGUMENT.
"""

import asyncio
import logging
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass

import grpc

from palomar.clock import Clock
from palomar_pb.observer import observer_pb2
from relay.nodestream import NodeBatch, node_batches
from relay.peers import PeerEntry
from relay.resume import Resumption

logger = logging.getLogger(__name__)

RETRY_S = 0.25
"""Mean pause between two attempts at a node that is connected and yet breaks off."""

STALL_S = 30.0
"""How long a node that tells its past may pause; others' answers are not held up (`relay.merge`)."""

Sink = Callable[[NodeBatch], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Events:
    """What a reader tells besides flows."""

    begun: Callable[[], None]
    """The node has taken up the request: what comes from now on is not missed."""
    resumed: Callable[[], None]
    """The stream broke and is taken up again."""
    gap: Callable[[], None]
    """Flows may have gone unseen: the node no longer had the last that came."""
    malformed: Callable[[int], None]
    """So many responses were left out: they were none."""


class NodeEndedError(Exception):
    """The node's answer broke off, which ends it where the client does not follow; the text says why."""


class NodeReader:
    """Reads one node."""

    def __init__(
        self,
        entry: PeerEntry,
        request: observer_pb2.GetFlowsRequest,
        started_ns: int,
        clock: Clock,
        sink: Sink,
        events: Events,
    ) -> None:
        """`started_ns` is when the client asked (wall clock)."""
        self._entry = entry
        self._follow = request.follow
        self._resumption = Resumption(request, started_ns)
        self._clock = clock
        self._sink = sink
        self._events = events
        self._interrupted = ""
        self._waiting: asyncio.Timeout | None = None

    async def run(self, *, late: bool = False) -> None:
        """Read until the node has finished; `late`: the node came after the client had asked.

        Raises grpc.aio.AioRpcError for a request the node calls invalid, NodeEndedError for a break without
        `follow`.
        """
        again = late
        while True:
            if self._follow:
                await self._entry.connected.wait()
            try:
                await self._read(self._resumption.request(again=again))
                if not self._follow:
                    return
                reason = "it ended the stream"
            except grpc.aio.AioRpcError as error:
                if error.code() is grpc.StatusCode.INVALID_ARGUMENT:
                    raise
                reason = error.details() or error.code().name
            except NodeEndedError as error:
                reason = str(error)
            except asyncio.CancelledError:
                # A channel closed beneath a call cancels it: that is a break like any other.
                if _is_ending():
                    raise
                reason = "its channel was closed"
            if not self._follow:
                raise NodeEndedError(reason)
            facts = {"peer": self._entry.peer.name, "reason": reason}
            logger.debug("stream broke off, it is resumed", extra=facts)
            again = True
            self._events.resumed()
            await asyncio.sleep(RETRY_S * random.uniform(0.5, 1.5))  # noqa: S311 - jitter, no secret

    async def _read(self, request: observer_pb2.GetFlowsRequest) -> None:
        async for batch in self._batches(request):
            if batch.malformed:
                self._events.malformed(batch.malformed)
            times, items = self._resumption.take(batch.times, batch.items, batch.clock_ns)
            if self._resumption.gap:
                self._resumption.gap = False
                self._events.gap()
            if len(items) == len(batch.items):
                await self._sink(batch)
            else:
                await self._sink(NodeBatch(items, times, batch.observed, batch.lost, batch.clock_ns))

    async def _batches(self, request: observer_pb2.GetFlowsRequest) -> AsyncIterator[NodeBatch]:
        """What the node sends; without `follow` it may pause no longer than STALL_S."""
        self._interrupted = ""
        async with aclosing(node_batches(self._entry.channel, request, self._events.begun)) as batches:
            while not self._interrupted:
                try:
                    async with asyncio.timeout(None if self._follow else STALL_S) as self._waiting:
                        batch = await anext(batches)
                except StopAsyncIteration:
                    return
                except TimeoutError as error:
                    raise NodeEndedError(self._interrupted or f"no answer within {STALL_S:g} s") from error
                finally:
                    self._waiting = None
                yield batch
        raise NodeEndedError(self._interrupted)

    def interrupt(self, reason: str) -> None:
        """Break off a stream whose node is known not to answer: gRPC may not notice for minutes."""
        self._interrupted = reason
        if self._waiting is not None:
            self._waiting.reschedule(asyncio.get_running_loop().time())


def _is_ending() -> bool:
    """Tell whether this task was told to end. No frame may hold its own task: the error holds the frames."""
    task = asyncio.current_task()
    return task is None or task.cancelling() > 0
