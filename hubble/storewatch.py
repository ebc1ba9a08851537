"""The one look at the store for all followers of a process: it notices what comes and wakes who waits.

It looks only while somebody follows, and never waits: a follower that is slower than the others reads from
its own place (`hubble.flowstream`). Input: the store and the questions that are asked of it
(`hubble.flowfeeds`); output: turns (`hubble.flowturn`), and about once a second a beat, for what comes
without a flow: losses alone, another store, the end of the time asked for.
"""

import asyncio
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

from hubble.errors import StoreDamagedError, StoreMissingError
from hubble.flowfeed import FlowFeed
from hubble.flowfeeds import FlowFeeds
from hubble.flowturn import Turn
from hubble.lossqueue import LossQueue
from hubble.storereader import FlowStoreReader
from palomar.tasks import spawn

BUSY_LOOK_S, IDLE_LOOK_S = 0.01, 0.02
IDLE_AFTER = 100
"""Looks without anything new (a second) before it looks less often."""
BEAT_S = 1.0
"""Looking time between two beats."""
TURN_ROWS, KEPT_TURNS = 1024, 4
"""Rows of a turn at most, and turns kept: what is built for several followers is 4,096 rows at most.

When more than that has come at once, everybody reads it alone, in larger steps.
"""


class StoreWatch:
    """The look at the store of one source."""

    def __init__(self, feeds: FlowFeeds) -> None:
        """Nothing is looked at before somebody follows."""
        self.feeds = feeds
        self.beats = 0
        self._source = feeds.source
        self._news = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._followers = 0
        self._error: BaseException | None = None
        self._looked_at: tuple[FlowStoreReader, LossQueue] | None = None
        self._head = 0
        self._quiet = 0
        """Looks since there was something new."""
        self._next_beat_s = BEAT_S
        self._turns: deque[Turn] = deque(maxlen=KEPT_TURNS)
        self._counters: tuple[int, int] | None = None

    @contextmanager
    def following(self) -> Iterator[None]:
        """Look at the store as long as anybody is in here."""
        self._followers += 1
        try:
            if self._task is None or self._task.done():
                self._error = None
                self._begin(self._source.store())
                self._task = spawn(self._run(), "flow store looks", self._fail)
            yield
        finally:
            self._followers -= 1
            if not self._followers and self._task is not None:
                self._task.cancel()
                self._task = None
                self._turns.clear()

    async def wait(self, feed: FlowFeed) -> None:
        """Return at the next turn or beat. Raises what ended the looking."""
        feed.waiting += 1
        try:
            if self._error is None:
                await self._news.wait()
        finally:
            feed.waiting -= 1
        if self._error is not None:
            raise self._error

    @property
    def _watched(self) -> tuple[FlowStoreReader, LossQueue]:
        if self._looked_at is None:
            raise ValueError("nobody follows yet")
        return self._looked_at

    @property
    def store(self) -> FlowStoreReader | None:
        """The store that is being looked at."""
        return self._looked_at[0] if self._looked_at is not None else None

    def head_of(self, store: FlowStoreReader) -> int:
        """How far followers of `store` may read: to where the latest turn ends; an old store to its end."""
        return self._head if store is self.store else store.head

    def counters(self, store: FlowStoreReader) -> tuple[int, int]:
        """Events stored and events lost over all CPUs, not older than a look."""
        if store is not self.store or self._task is None:
            return _counters(store)
        if self._counters is None:
            self._counters = _counters(store)
        return self._counters

    @property
    def next_loss(self) -> int:
        """The number of the loss after those that turns and beats have seen."""
        return self._watched[1].next

    def turn_at(self, store: FlowStoreReader, position: int, loss: int) -> Turn | None:
        """The turn that begins at `position` and with the loss of that number, while it is kept."""
        for turn in self._turns:
            if turn.span.start == position and turn.first_loss == loss and turn.store is store:
                return turn
        return None

    # The looking

    def _begin(self, store: FlowStoreReader) -> None:
        self._head = store.head
        self._turns.clear()
        self._counters = None
        _, number = store.losses_from(0)
        self._looked_at = store, LossQueue(store, number)
        self._quiet, self._next_beat_s = 0, BEAT_S

    async def _run(self) -> None:
        while True:
            try:
                pause_s = self._look()
                self._next_beat_s -= pause_s
                if self._next_beat_s <= 0:
                    self._beat()
            except (StoreMissingError, StoreDamagedError) as error:
                self._fail(error)
                return
            await asyncio.sleep(pause_s)

    def _look(self) -> float:
        """Look once; return for how long not to look."""
        store, losses = self._watched
        self._counters = None
        head = store.head
        new = head - self._head
        if not new:
            self._quiet += 1
            return BUSY_LOOK_S if self._quiet < IDLE_AFTER else IDLE_LOOK_S
        self._quiet = 0
        self._source.names.refresh()
        losses.read()
        end = min(head, self._head + TURN_ROWS) if new <= TURN_ROWS * KEPT_TURNS else head
        due = losses.until(end)
        if end - self._head <= TURN_ROWS:
            self._turns.append(Turn(store, range(self._head, end), due, losses.told, self.feeds.waiting))
        self._head = end
        self._wake()
        return BUSY_LOOK_S if end == head else 0.0

    def _beat(self) -> None:
        store, losses = self._watched
        losses.read()
        losses.until(self._head)
        if self._source.store() is not store:
            self._begin(self._source.store())
        if self._quiet:
            self._turns.clear()
        self._next_beat_s = BEAT_S
        self.beats += 1
        self._wake()

    def _wake(self) -> None:
        self._news.set()
        self._news.clear()

    def _fail(self, error: BaseException) -> None:
        self._error = error
        self._wake()


def _counters(store: FlowStoreReader) -> tuple[int, int]:
    accounts = store.accounting()
    return sum(account.stored for account in accounts), sum(account.lost for account in accounts)
