"""A question over one store: which rows it wants and the responses that they make, losses among them.

Not whom they are told or when (`hubble.flowstream`), not what several askers share (`hubble.flowturn`).
Input: positions of the store; output: `Responses`. Equal questions may share one feed: it keeps answers of
filters and ready-made parts of flows, no place.
"""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from hubble.filterfields.predicates import View
from hubble.flowbuilder import FlowBuilder
from hubble.flowquery import FlowQuery
from hubble.flowsource import FollowedNames
from hubble.lossqueue import LossQueue
from hubble.responses import Responses
from hubble.storemapping import Loss
from hubble.storereader import Block, FlowStoreReader
from palomar.clock import Clock
from palomar_pb.flow import flow_pb2
from palomar_pb.observer import observer_pb2

READ_ROWS = 4096
"""Rows read at once when some of them are to be built."""
BATCH_FLOWS = 512

Positions = npt.NDArray[np.int64]


class SharedBuilder:
    """The flow builder of all questions with one field mask."""

    def __init__(self, builder: FlowBuilder, names: FollowedNames) -> None:
        """`names` are the builder's own."""
        self._builder = builder
        self._names = names
        self._generation = names.generation

    def responses(self, block: Block, rows: npt.NDArray[np.intp]) -> list[bytes]:
        """See `FlowBuilder.responses`; names are those that are known now."""
        if self._names.generation != self._generation:
            self._generation = self._names.generation
            self._builder.forget_names()
        return self._builder.responses(block, rows)


class FlowFeed:
    """One question, compiled."""

    def __init__(
        self,
        store: FlowStoreReader,
        names: FollowedNames,
        query: FlowQuery,
        builder: SharedBuilder,
        node_name: str,
        clock: Clock,
    ) -> None:
        """`builder` may be shared with other questions of the same field mask."""
        self.store = store
        self.builder = builder
        self.waiting = 0
        """How many of those who ask this wait for what comes."""
        self._names = names
        self._query = query
        self._node_name = node_name
        self.clock = clock

    def choose(self, block: Block) -> Positions:
        """Positions of the rows of a block that are wanted."""
        return self._query.wanted(View(block, self._names)) + block.first

    def choose_between(self, begin: int, end: int) -> tuple[Positions, int]:
        """Positions between `begin` and `end` that are wanted, and how many rows there are gone."""
        block, gone = self.store.read(begin, end - begin)
        return self.choose(block), gone

    # From positions to bytes

    def batches(self, chosen: Positions, losses: LossQueue) -> Iterator[Responses]:
        """Responses for the rows at `chosen`, with the losses among them."""
        for begin in range(0, len(chosen), BATCH_FLOWS):
            batch: list[bytes] = []
            for stretch in _stretches(chosen[begin : begin + BATCH_FLOWS]):
                batch += self._stretch(stretch, losses)
            yield Responses(batch)

    def _stretch(self, chosen: Positions, losses: LossQueue) -> list[bytes]:
        first = int(chosen[0])
        block, _ = self.store.read(first, int(chosen[-1]) + 1 - first)
        return self.told(chosen, self.built(block, chosen), losses.until(int(chosen[-1])))

    def built(self, block: Block, chosen: Positions) -> dict[int, bytes]:
        """The flows of the rows at `chosen` by position, without those that are gone from the store."""
        there = chosen[chosen >= block.first]
        rows = there - block.first
        if len(rows):
            whole = block.column("version")[rows] != 0
            there, rows = there[whole], rows[whole]
        return dict(zip(there.tolist(), self.builder.responses(block, rows), strict=True))

    def told(self, chosen: Positions, built: Mapping[int, bytes], losses: Sequence[Loss]) -> list[bytes]:
        """Responses of the rows at `chosen`, of which `built` lacks those that are gone, and the losses."""
        there = [position for position in chosen.tolist() if position in built]
        responses = [built[position] for position in there]
        for inserted, loss in enumerate(self._of_interest(losses)):
            place = int(np.searchsorted(there, loss.position))
            responses.insert(place + inserted, self._lost(loss))
        gone = len(chosen) - len(there)
        return [self.overtaken(gone), *responses] if gone else responses

    # Losses

    def lost(self, losses: Sequence[Loss]) -> list[bytes]:
        """What is said of losses, of those within the time that was asked for."""
        return [self._lost(loss) for loss in self._of_interest(losses)]

    def _of_interest(self, losses: Sequence[Loss]) -> list[Loss]:
        return [loss for loss in losses if self._query.since_ns <= loss.time_ns <= self._query.until_ns]

    def _lost(self, loss: Loss) -> bytes:
        event = flow_pb2.LostEvent(source=flow_pb2.PERF_EVENT_RING_BUFFER, num_events_lost=loss.count)
        event.cpu.value = loss.cpu
        return self._lost_response(event, loss.time_ns)

    def overtaken(self, count: int) -> bytes:
        """Say that a reader came too late for `count` rows."""
        event = flow_pb2.LostEvent(source=flow_pb2.HUBBLE_RING_BUFFER, num_events_lost=count)
        return self._lost_response(event, self.clock.wall_ns())

    def _lost_response(self, event: flow_pb2.LostEvent, time_ns: int) -> bytes:
        response = observer_pb2.GetFlowsResponse(lost_events=event, node_name=self._node_name)
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
