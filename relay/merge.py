"""Merging the streams of many nodes by time, with a bounded wait: pure, time is an argument.

Input: batches of (time, item) per source, each source roughly in order. Output: items of all sources in
time order. An item is released when every source that is waited for has moved past it. Who is waited for,
and for how long, depends:

Live, an item waits at most `max_wait_ns`, for those that have sent something within `ACTIVE_NS`. So a
slow, silent or dead source delays nothing beyond the wait, and a lone flow in a quiet cluster waits for
nobody. A source whose clock is off by more than `CLOCK_TOLERANCE_NS` is not waited for and moves nobody:
it spoils only its own items' place.

Of the past (`history`) an item waits for as long as others still send older ones, and `max_wait_ns` is
how long a source may say nothing.

`now_ns` is a clock that stands still while nobody takes what is released: see `relay.collector`.
"""

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

import numpy as np
import numpy.typing as npt

S = TypeVar("S", bound=Hashable)
T = TypeVar("T")

Times = npt.NDArray[np.int64]
NO_BOUND = int(np.iinfo(np.int64).max)
NEVER = -1
ACTIVE_NS = 1_000_000_000
CLOCK_TOLERANCE_NS = 1_000_000_000


@dataclass(slots=True)
class _Batch(Generic[T]):
    times: Times
    """In order."""
    items: Sequence[T]
    arrived_ns: int


@dataclass(slots=True)
class _Source(Generic[T]):
    heard_ns: int
    """When it last said anything, or was last emptied."""
    active_ns: int
    """When it last sent an item; at first, when it was added."""
    newest_ns: int = NEVER
    """Every item up to this time has come; NEVER before the first."""
    finished: bool = False
    batches: list[_Batch[T]] = field(default_factory=list)
    held: int = 0


@dataclass(frozen=True, slots=True)
class Released(Generic[T]):
    """Items that may go out, oldest first."""

    times: Times
    items: list[T]


class Merger(Generic[S, T]):
    """Merges items of sources by time."""

    def __init__(self, max_wait_ns: int, *, history: bool = False) -> None:
        """`max_wait_ns` bounds how long an item is held back for the sake of order."""
        self.max_wait_ns = max_wait_ns
        self.history = history
        """Whether the sources tell the past; may be switched off once they have caught up."""
        self._sources: dict[S, _Source[T]] = {}

    @property
    def held(self) -> int:
        """How many items wait."""
        return sum(source.held for source in self._sources.values())

    def held_by(self, source: S) -> int:
        """How many items of `source` wait."""
        state = self._sources.get(source)
        return state.held if state is not None else 0

    def is_silent(self, source: S, now_ns: int) -> bool:
        """Tell whether nobody waits for `source` any more: nothing held, nothing heard for too long."""
        state = self._sources.get(source)
        return state is None or (not state.batches and now_ns - state.heard_ns >= self.max_wait_ns)

    def add(self, source: S, now_ns: int) -> None:
        """Expect items from `source`, which others wait for until it has been silent too long."""
        before = self._sources.get(source)
        if before is None:
            self._sources[source] = _Source(heard_ns=now_ns, active_ns=now_ns)
        else:
            before.finished, before.heard_ns, before.active_ns = False, now_ns, now_ns

    def push(self, source: S, times: Times, items: Sequence[T], now_ns: int) -> None:
        """Take a batch: `times` (ns since the epoch) and `items` have one length, maybe 0."""
        state = self._sources[source]
        state.heard_ns = now_ns
        if len(items) == 0:
            return
        if np.any(times[1:] < times[:-1]):
            order = np.argsort(times, kind="stable")
            times, items = times[order], [items[index] for index in order.tolist()]
        state.active_ns = now_ns
        state.batches.append(_Batch(times, items, now_ns))
        state.held += len(items)
        state.newest_ns = max(state.newest_ns, int(times[-1]))

    def advance(self, source: S, complete_until_ns: int, now_ns: int) -> None:
        """Note that `source` has nothing older than `complete_until_ns` still to send."""
        state = self._sources[source]
        state.heard_ns = now_ns
        state.newest_ns = max(state.newest_ns, complete_until_ns)

    def finish(self, source: S) -> None:
        """Note that `source` sends nothing more; what it sent stays to be merged."""
        if source in self._sources:
            self._sources[source].finished = True

    def release(self, now_ns: int) -> Released[T]:
        """Return what may go out by `now_ns`; with every source finished, everything. O(released)."""
        bound, latest = self._bounds(now_ns)
        taken: list[tuple[Times, Sequence[T]]] = []
        for state in self._sources.values():
            if state.batches:
                self._take(state, bound, latest, now_ns, taken)
        self._sources = {
            name: state for name, state in self._sources.items() if not state.finished or state.batches
        }
        if len(taken) == 1:
            return Released(taken[0][0], list(taken[0][1]))
        items: list[T] = []
        for _, some in taken:
            items.extend(some)
        if not items:
            return Released(np.empty(0, np.int64), items)
        times = np.concatenate([some for some, _ in taken])
        order = np.argsort(times, kind="stable")
        return Released(times[order], [items[index] for index in order.tolist()])

    def next_deadline_ns(self, now_ns: int) -> int | None:
        """When after `now_ns` time alone releases something; None where nothing is held."""
        holding = [state for state in self._sources.values() if state.batches]
        if not holding:
            return None
        if self.history:
            moments = [state.heard_ns for state in self._sources.values() if not state.batches]
        else:
            moments = [state.batches[0].arrived_ns for state in holding]
        deadlines = [moment + self.max_wait_ns for moment in moments]
        return min((deadline for deadline in deadlines if deadline > now_ns), default=None)

    def _bounds(self, now_ns: int) -> tuple[int, int]:
        """Up to when items may go out, and the latest time that is believed of a live source."""
        if self.history:
            return min((s.newest_ns for s in self._waited_for(now_ns)), default=NO_BOUND), NO_BOUND
        newest = sorted(s.newest_ns for s in self._waited_for(now_ns))
        if not newest:
            return NO_BOUND, NO_BOUND
        usual = newest[(len(newest) - 1) // 2]
        latest = usual + CLOCK_TOLERANCE_NS if usual != NEVER else NO_BOUND
        bound = min(time for time in newest if time == NEVER or time >= usual - CLOCK_TOLERANCE_NS)
        # What has waited long enough goes out, and with it all that is older.
        for state in self._sources.values():
            for batch in state.batches:
                if self._is_aged(batch, now_ns) and int(batch.times[-1]) <= latest:
                    bound = max(bound, int(batch.times[-1]))
        return bound, latest

    def _waited_for(self, now_ns: int) -> Iterator[_Source[T]]:
        for state in self._sources.values():
            if self.history:
                speaks = now_ns - state.heard_ns < self.max_wait_ns
            else:
                speaks = now_ns - state.active_ns < ACTIVE_NS
            if not state.finished and (state.batches or speaks):
                yield state

    def _is_aged(self, batch: _Batch[T], now_ns: int) -> bool:
        return now_ns - batch.arrived_ns >= self.max_wait_ns

    def _take(
        self,
        state: _Source[T],
        bound: int,
        latest: int,
        now_ns: int,
        taken: list[tuple[Times, Sequence[T]]],
    ) -> None:
        kept: list[_Batch[T]] = []
        for batch in state.batches:
            count = len(batch.items)
            ahead = int(batch.times[-1]) > latest and self._is_aged(batch, now_ns)
            ready = count if ahead else int(np.searchsorted(batch.times, bound, side="right"))
            if ready == count:
                taken.append((batch.times, batch.items))
            elif ready:
                taken.append((batch.times[:ready], batch.items[:ready]))
            if ready < count:
                kept.append(_Batch(batch.times[ready:], batch.items[ready:], batch.arrived_ns))
            state.held -= ready
        if not kept:
            state.heard_ns = max(state.heard_ns, now_ns)
        state.batches = kept
