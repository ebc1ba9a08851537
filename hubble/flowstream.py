"""A query carried out: batches of serialised GetFlowsResponses out of the node's store.

Scans the hot columns for what the filters choose, builds that, and puts losses where they happened:
those the ingest noticed (PERF_EVENT_RING_BUFFER) and rows overwritten before this reader came to them
(HUBBLE_RING_BUFFER). Nothing is read ahead of the client: one that stops reading costs no memory, it is
overtaken and told so. What comes new is read, asked and built once for all who keep up
(`hubble.storewatch`); who does not reads alone until it has caught up. Consumers: `hubble.observer` (a
message per flow) and `hubble.batches`.
"""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from weakref import ref

import numpy as np

from hubble.flowfeed import Positions
from hubble.flowquery import FOREVER_NS, NS_PER_S, Start
from hubble.flowturn import Turn
from hubble.lossqueue import LossQueue
from hubble.responses import Responses
from hubble.storewatch import StoreWatch
from palomar_pb.observer import observer_pb2

SCAN_ROWS = 65536
"""Rows filtered between two looks at other clients; about a millisecond."""
END_GRACE_NS = NS_PER_S
"""How long after `until` a row from before it may still arrive."""


class FlowStream:
    """One client's answer."""

    def __init__(self, watch: StoreWatch, request: observer_pb2.GetFlowsRequest) -> None:
        """Raises InvalidInputError, and StoreMissingError or StoreDamagedError while there is no store."""
        self._watch = watch
        self._request = request
        self._use_store()
        self._position = self._head = self.store.head
        if self._query.start is Start.NOW:
            self._losses.skip_to(self.store.losses_from(0)[1])

    def _use_store(self) -> None:
        self._query, self._feed = self._watch.feeds.ask(self._request)
        self.store = self._feed.store
        """The store that is being read."""
        self._losses = LossQueue(self.store)

    def counters(self) -> tuple[int, int]:
        """Events stored and events lost, over all CPUs."""
        return self._watch.counters(self.store)

    async def batches(self) -> AsyncGenerator[Responses, None]:
        """Up to about `BATCH_FLOWS` responses at a time, oldest first; none while a follower waits."""
        query, store = self._query, self.store
        if query.start is Start.NEWEST and query.number < store.capacity:
            async for batch in self._newest():
                yield batch
        elif query.start is not Start.NOW:
            limit = query.number if query.start is Start.OLDEST and not query.follow else 0
            async for batch in self._range(store.oldest, self._head, limit):
                yield batch
        if query.follow:
            async with aclosing(self._follow()) as following:
                async for batch in following:
                    yield batch

    # The past

    async def _newest(self) -> AsyncGenerator[Responses, None]:
        """The newest `number` flows before the head: found backwards, told forwards."""
        found: list[Positions] = []
        missing = self._query.number
        end = self._head
        while missing and end > self.store.oldest:
            begin = max(self.store.oldest, end - SCAN_ROWS)
            chosen = self._feed.choose_between(begin, end)[0][-missing:]
            found.append(chosen)
            missing -= len(chosen)
            end = begin
            await asyncio.sleep(0)
        chosen = np.concatenate([*found[::-1], np.empty(0, dtype=np.int64)])
        self._read_losses(self.store.oldest if missing else int(chosen[0]))
        for batch in self._feed.batches(chosen, self._losses):
            yield batch
            await asyncio.sleep(0)
        yield self._lost_until(self._head)

    async def _range(self, begin: int, end: int, limit: int) -> AsyncGenerator[Responses, None]:
        """Flows from `begin` to `end`, at most `limit` of them unless it is 0."""
        self._read_losses(begin)
        missing = limit or FOREVER_NS
        while begin < end and missing:
            chosen, overtaken = self._feed.choose_between(begin, min(begin + SCAN_ROWS, end))
            if overtaken:
                yield Responses([self._feed.overtaken(overtaken)])
            chosen = chosen[:missing]
            missing -= len(chosen)
            for batch in self._feed.batches(chosen, self._losses):
                yield batch
                await asyncio.sleep(0)
            begin += SCAN_ROWS
            await asyncio.sleep(0)
        if missing:
            yield self._lost_until(end)

    def _read_losses(self, after: int) -> None:
        """Begin with the losses after the row at `after`; those before row 0 count too."""
        self._losses.read()
        if after:
            self._losses.until(after)

    def _lost_until(self, position: int) -> Responses:
        return Responses(self._feed.lost(self._losses.until(position)))

    # What comes

    async def _follow(self) -> AsyncGenerator[Responses, None]:
        """Flows from `_position` on, until the client leaves or `until` has passed."""
        with self._watch.following():
            beats = self._watch.beats
            yield Responses()  # counters and clock, before anything comes
            while True:
                if self._watch.head_of(self.store) > self._position:
                    async with aclosing(self._come()) as come:
                        async for batch in come:
                            yield batch
                elif self._watch.beats == beats:
                    await self._watch.wait(self._feed)
                else:
                    beats = self._watch.beats
                    if self._watch.next_loss != self._losses.told:
                        self._losses.read()
                    yield self._lost_until(self._position)
                    if self._feed.clock.wall_ns() > self._query.until_ns + END_GRACE_NS:
                        return
                    if self._watch.store is not self.store:
                        self._use_store()
                        self._position = 0

    def _come(self) -> AsyncGenerator[Responses, None]:
        """What has come from `_position` on; moves it."""
        turn = self._watch.turn_at(self.store, self._position, self._losses.told)
        return self._shared(turn) if turn is not None else self._alone()

    async def _shared(self, turn: Turn) -> AsyncGenerator[Responses, None]:
        """What was read and built for everybody, as long as it is kept."""
        ends, last, next_loss = turn.ends(self._feed), turn.span.stop, turn.next_loss
        kept = ref(turn)
        del turn  # one who does not read must not keep it: the watch does, for a while
        for number, end in enumerate(ends):
            shared = kept()
            if shared is None:
                self._losses.read()
                self._losses.until(self._position - 1)
                return
            batch = shared.batch(self._feed, number)
            del shared
            yield batch
            self._position = end
        self._position = last
        self._losses.skip_to(next_loss)

    async def _alone(self) -> AsyncGenerator[Responses, None]:
        """For a follower that is not where the others are."""
        end = min(self._watch.head_of(self.store), self._position + SCAN_ROWS)
        chosen, overtaken = self._feed.choose_between(self._position, end)
        if overtaken:
            yield Responses([self._feed.overtaken(overtaken)])
        self._losses.read()
        for batch in self._feed.batches(chosen, self._losses):
            yield batch
        lost = self._lost_until(end)
        if len(lost):
            yield lost
        self._position = end
        await asyncio.sleep(0)
