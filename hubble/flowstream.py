"""A query carried out: batches of serialised GetFlowsResponses out of the node's store.

Scans the hot columns for what the filters choose, builds that, and puts losses where they happened:
those the ingest noticed (PERF_EVENT_RING_BUFFER) and rows overwritten before this reader came to them
(HUBBLE_RING_BUFFER). Nothing is read ahead of the client: one that stops reading costs no memory, it is
overtaken and told so. Consumers: `hubble.observer` (a message per flow) and `hubble.batches`.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from hubble.filterfields import ObservingNode, View
from hubble.flowbuilder import FlowBuilder
from hubble.flowquery import FOREVER_NS, NS_PER_S, Start, compile_query
from hubble.flowsource import FlowSource
from hubble.flowuuid import StoreId
from hubble.store import FlowStoreReader, Loss
from palomar.clock import Clock
from palomar_pb.flow import flow_pb2
from palomar_pb.observer import observer_pb2

SCAN_ROWS = 65536
"""Rows filtered between two looks at other clients; about a millisecond."""
READ_ROWS = 4096
"""Rows read at once when some of them are to be built."""
BATCH_FLOWS = 512
BUSY_POLL_S = 0.01
IDLE_POLL_S = 0.02
IDLE_AFTER = 100
"""Looks without a new flow (a second) before a follower looks less often."""
SLOW_LOOKS = 50
"""Looks without a new flow between two checks for losses and for a new store."""
END_GRACE_NS = NS_PER_S
"""How long after `until` a row from before it may still arrive."""

Positions = npt.NDArray[np.int64]


class FlowStream:
    """One client's answer."""

    def __init__(
        self, source: FlowSource, node: ObservingNode, request: observer_pb2.GetFlowsRequest, clock: Clock
    ) -> None:
        """Raises InvalidInputError, and StoreMissingError or StoreDamagedError while there is no store."""
        self._source = source
        self._names = source.names
        self._clock = clock
        self._request = request
        self._node = node
        self._use(source.store())

    def _use(self, store: FlowStoreReader) -> None:
        self.store = store
        """The store that is being read."""
        self._names.refresh()
        node = replace(self._node, store_id=StoreId(store.store_id))
        self._query = compile_query(self._request, node)
        self._builder = FlowBuilder(node, self._names, self._query.mask)
        self._names_generation = self._names.generation
        self._losses: deque[Loss] = deque()
        self._next_loss = 0
        self._head = store.head
        if self._query.start is Start.NOW:
            _, self._next_loss = store.losses_from(0)

    async def batches(self) -> AsyncIterator[list[bytes]]:
        """Lists of up to about `BATCH_FLOWS` responses, oldest first; empty ones while a follower waits."""
        query, store, head = self._query, self.store, self._head
        if query.start is Start.NEWEST and query.number < store.capacity:
            async for batch in self._newest(head):
                yield batch
        elif query.start is not Start.NOW:
            limit = query.number if query.start is Start.OLDEST and not query.follow else 0
            async for batch in self._range(store.oldest, head, limit):
                yield batch
        if query.follow:
            async for batch in self._follow(head):
                yield batch

    # The past

    async def _newest(self, head: int) -> AsyncIterator[list[bytes]]:
        """The newest `number` flows before `head`: found backwards, told forwards."""
        found: list[Positions] = []
        missing = self._query.number
        end = head
        while missing and end > self.store.oldest:
            begin = max(self.store.oldest, end - SCAN_ROWS)
            chosen = self._choose(begin, end)[0][-missing:]
            found.append(chosen)
            missing -= len(chosen)
            end = begin
            await asyncio.sleep(0)
        chosen = np.concatenate([*found[::-1], np.empty(0, dtype=np.int64)])
        self._read_losses(self.store.oldest if missing else int(chosen[0]))
        for batch in self._build(chosen):
            yield batch
            await asyncio.sleep(0)
        yield self._lost_until(head)

    async def _range(self, begin: int, end: int, limit: int) -> AsyncIterator[list[bytes]]:
        """Flows from `begin` to `end`, at most `limit` of them unless it is 0."""
        self._read_losses(begin)
        missing = limit or FOREVER_NS
        while begin < end and missing:
            chosen, overtaken = self._choose(begin, min(begin + SCAN_ROWS, end))
            if overtaken:
                yield [self._overtaken(overtaken)]
            chosen = chosen[:missing]
            missing -= len(chosen)
            for batch in self._build(chosen):
                yield batch
                await asyncio.sleep(0)
            begin += SCAN_ROWS
            await asyncio.sleep(0)
        if missing:
            yield self._lost_until(end)

    def _choose(self, begin: int, end: int) -> tuple[Positions, int]:
        """Positions between `begin` and `end` that the client wants, and how many rows there are gone."""
        block, overtaken = self.store.read(begin, end - begin)
        return self._query.wanted(View(block, self._names)) + block.first, overtaken

    # What comes

    async def _follow(self, position: int) -> AsyncIterator[list[bytes]]:
        """Flows from `position` on, until the client leaves or `until` has passed."""
        quiet = 0
        while True:
            head = self.store.head
            if head > position:
                quiet = 0
                self._refresh_names()
                end = min(head, position + SCAN_ROWS)
                chosen, overtaken = self._choose(position, end)
                if overtaken:
                    yield [self._overtaken(overtaken)]
                self._read_losses()
                for batch in self._build(chosen):
                    yield batch
                yield self._lost_until(end)
                position = end
                await asyncio.sleep(0)
                continue
            quiet += 1
            if quiet % SLOW_LOOKS == 0:
                self._read_losses()
                yield self._lost_until(position)
                if self._is_over():
                    return
                store = self._source.store()
                if store is not self.store:
                    self._use(store)
                    position = 0
            await asyncio.sleep(BUSY_POLL_S if quiet < IDLE_AFTER else IDLE_POLL_S)

    def _is_over(self) -> bool:
        return self._clock.wall_ns() > self._query.until_ns + END_GRACE_NS

    def _refresh_names(self) -> None:
        self._names.refresh()
        if self._names.generation != self._names_generation:
            self._names_generation = self._names.generation
            self._builder.forget_names()

    # From positions to bytes

    def _build(self, chosen: Positions) -> Iterator[list[bytes]]:
        """Responses for the rows at `chosen`, with the losses among them."""
        for begin in range(0, len(chosen), BATCH_FLOWS):
            batch: list[bytes] = []
            for stretch in _stretches(chosen[begin : begin + BATCH_FLOWS]):
                batch += self._build_stretch(stretch)
            yield batch

    def _build_stretch(self, chosen: Positions) -> list[bytes]:
        first = int(chosen[0])
        block, _ = self.store.read(first, int(chosen[-1]) + 1 - first)
        rows = (chosen - block.first)[chosen >= block.first]
        if len(rows):
            rows = rows[block.column("version")[rows] != 0]
        responses = self._builder.responses(block, rows)
        gone = len(chosen) - len(rows)
        for inserted, loss in enumerate(self._losses_until(int(chosen[-1]))):
            place = int(np.searchsorted(rows, loss.position - block.first))
            responses.insert(place + inserted, self._lost(loss))
        return [self._overtaken(gone), *responses] if gone else responses

    # Losses

    def _read_losses(self, after: int = -1) -> None:
        """Take in losses noticed since the last time, of them those after the row at `after`.

        Nothing lies before row 0 but losses: those belong to it.
        """
        losses, self._next_loss = self.store.losses_from(self._next_loss)
        self._losses.extend(
            loss
            for loss in losses
            if (loss.position > after or not after)
            and self._query.since_ns <= loss.time_ns <= self._query.until_ns
        )

    def _losses_until(self, position: int) -> list[Loss]:
        """The losses up to `position` that have not been told, oldest first."""
        told = []
        while self._losses and self._losses[0].position <= position:
            told.append(self._losses.popleft())
        return told

    def _lost_until(self, position: int) -> list[bytes]:
        return [self._lost(loss) for loss in self._losses_until(position)]

    def _lost(self, loss: Loss) -> bytes:
        event = flow_pb2.LostEvent(source=flow_pb2.PERF_EVENT_RING_BUFFER, num_events_lost=loss.count)
        event.cpu.value = loss.cpu
        return self._lost_response(event, loss.time_ns)

    def _overtaken(self, count: int) -> bytes:
        """This reader came too late for `count` rows."""
        event = flow_pb2.LostEvent(source=flow_pb2.HUBBLE_RING_BUFFER, num_events_lost=count)
        return self._lost_response(event, self._clock.wall_ns())

    def _lost_response(self, event: flow_pb2.LostEvent, time_ns: int) -> bytes:
        response = observer_pb2.GetFlowsResponse(lost_events=event, node_name=self._node.name)
        for timestamp in (response.time, response.lost_events.first, response.lost_events.last):
            timestamp.FromNanoseconds(time_ns)
        return response.SerializeToString()


def _stretches(positions: Positions) -> Iterator[Positions]:
    """Split `positions` where reading on would pass over too many rows in between."""
    begin = 0
    while begin < len(positions):
        end = int(np.searchsorted(positions, positions[begin] + READ_ROWS))
        yield positions[begin:end]
        begin = end
