"""Flows as they come, for `monitor`: reopened after a cut, the time between is counted and not shown.

Not `cli.flowresume`, which goes on where it was: lines without a time of their own must be of now. Input: a
way to dial and a request from now on; output: batches, and what was missed as text and in the account.
"""

import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime

import grpc

from cli.flowstream import Batch, Tally, stream
from cli.resume import Dial, Say, resume
from cli.timespec import NS_PER_S
from palomar.clock import Clock, SystemClock
from palomar_pb.observer import observer_pb2

GREETING = "Listening for events. Ctrl-C ends."


def live(
    dial: Dial,
    request: observer_pb2.GetFlowsRequest,
    say: Say,
    tally: Tally,
    clock: Clock | None = None,
    sleep: Callable[[float], None] = time.sleep,
) -> Iterator[Batch]:
    """Yield the batches of `request`, from now on at every connection; raises as `cli.resume.resume` does.

    Says that it listens once it does; what was missed is said, and counted in `tally`.
    """
    real_clock = clock or SystemClock()
    gap = Gap()
    greeting = iter((GREETING,))

    def ask(channel: grpc.Channel, begun: Callable[[], None]) -> Iterator[Batch]:
        for text in greeting:
            say(text)
        try:
            for batch in stream(channel, request, begun):
                begun()
                if gap.since_ns is not None:
                    say(gap.close(batch))
                    tally.missed += gap.missed
                gap.heard(batch)
                yield batch
        finally:
            gap.open(real_clock.wall_ns())

    return resume(dial, ask, say, clock=real_clock, sleep=sleep)


class Gap:
    """The time between two connections, by the server's counters before and after. Pure."""

    def __init__(self) -> None:
        """Nothing was heard yet."""
        self.since_ns: int | None = None
        """When the connection was lost; None while there is one."""
        self.missed = 0
        """Events of the last gap, of any type."""
        self._before: Batch | None = None

    def heard(self, batch: Batch) -> None:
        """Keep the counters of `batch`."""
        self._before = batch

    def open(self, now_ns: int) -> None:
        """The connection is lost; a gap that is open already stays as it is."""
        if self.since_ns is None:
            self.since_ns = now_ns

    def close(self, first: Batch) -> str:
        """Say what was missed, with the first batch after the gap."""
        since = datetime.fromtimestamp((self.since_ns or 0) // NS_PER_S, UTC)
        shown_by = f"see `palomar observe --since {since:%Y-%m-%dT%H:%M:%SZ}`"
        self.since_ns, self.missed = None, 0
        grown = _grown(self._before, first)
        if grown is None:
            return f"missed meanwhile: not known; {shown_by}"
        stored, lost = max(0, grown[0] - len(first.responses)), grown[1]
        self.missed = stored + lost
        if not self.missed:
            return "missed meanwhile: nothing"
        also = f" and {lost} that the node lost" if lost else ""
        return f"missed meanwhile: {stored} events{also}; {shown_by}"


def _grown(before: Batch | None, after: Batch) -> tuple[int, int] | None:
    """How much stored and lost grew; None where they are not told or began anew, as a relay's may."""
    if before is None or not before.observed or not after.observed:
        return None
    stored, lost = after.observed - before.observed, (after.lost or 0) - (before.lost or 0)
    return None if stored < 0 or lost < 0 else (stored, lost)
