"""Flows from a flow server or relay as batches, and the account of what was not seen.

Our own servers send many flows per message (`palomar.v1.FlowBatches`), which is a hundred times
cheaper than one message per flow; any other Hubble server is asked through `observer.Observer`.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import grpc

from palomar_pb.flow import flow_pb2
from palomar_pb.observer import observer_pb2, observer_pb2_grpc
from palomar_pb.palomar.v1 import batch_pb2_grpc


@dataclass(frozen=True, slots=True)
class Batch:
    """Consecutive responses; `observed` and `lost` are the server's counters (None: not told)."""

    responses: Sequence[observer_pb2.GetFlowsResponse]
    observed: int | None = None
    lost: int | None = None


def stream(
    channel: grpc.Channel, request: observer_pb2.GetFlowsRequest, begun: Callable[[], None] = lambda: None
) -> Iterator[Batch]:
    """Ask for `request` and yield batches in the server's order; raises grpc.RpcError.

    `begun` as for `answers`.
    """
    came = False
    try:
        for message in answers(batch_pb2_grpc.FlowBatchesStub(channel).GetFlows(request), begun):
            came = True
            yield Batch(message.responses, message.observed, message.lost)
    except grpc.RpcError as error:
        if came or error.code() is not grpc.StatusCode.UNIMPLEMENTED:
            raise
    else:
        return
    for response in answers(observer_pb2_grpc.ObserverStub(channel).GetFlows(request), begun):
        yield Batch((response,))


def answers(call: Any, begun: Callable[[], None]) -> Iterator[Any]:
    """Yield the messages of a streaming `call`, which ends with this; raises grpc.RpcError.

    `begun` is called as soon as the server shows that it has taken up the question: by its version in the
    metadata, else by its first message.
    """
    try:
        if call.initial_metadata():  # waits; empty for a refusal, and for servers that say nothing there
            begun()
        for message in call:
            begun()
            yield message
    finally:
        call.cancel()


@dataclass(slots=True)
class Tally:
    """What one run has shown and what it is known to have missed."""

    flows: int = 0
    lost: Counter[str] = field(default_factory=Counter)
    """Events by the place that lost them, from the losses inside the stream."""
    observed: int | None = None
    lost_by_server: int | None = None
    asked: bool = False
    """The server or file has answered to the end, or a person ended the answer."""
    missed: int = 0
    """Events of any type while the connection was lost, where they are not part of the answer."""
    gone: int = 0
    """Older flows that have left the server's store."""

    def add(self, batch: Batch) -> None:
        """Count one batch."""
        if batch.observed is not None:
            self.observed, self.lost_by_server = batch.observed, batch.lost
        self.count(batch.responses)

    def count(self, responses: Iterable[observer_pb2.GetFlowsResponse]) -> None:
        """Count flows and losses of `responses`."""
        for response in responses:
            kind = response.WhichOneof("response_types")
            if kind == "flow":
                self.flows += 1
            elif kind == "lost_events":
                known = flow_pb2.LostEventSource.values()
                source = response.lost_events.source
                name = flow_pb2.LostEventSource.Name(source) if source in known else str(source)
                self.lost[name] += response.lost_events.num_events_lost

    def summary(self) -> str:
        """Return one line: flows shown, events not seen, and what the node has in all."""
        text = f"{self.flows} flow{'' if self.flows == 1 else 's'}, {self.lost.total()} not seen"
        if self.lost:
            places = ", ".join(f"{name} {number}" for name, number in sorted(self.lost.items()))
            text += f" ({places})"
        if self.missed:
            text += f"; {self.missed} more while the connection was lost"
        if self.gone:
            text += f"; {self.gone} older ones have left the store"
        if self.observed is not None:
            made = self.observed + (self.lost_by_server or 0)
            text += f"; node: observed {self.observed} of {made} events"
        return text
