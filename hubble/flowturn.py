"""What came between two looks at the store, read, asked and built once for everybody who waited for it.

Every filter is asked once, however many clients have it; every wanted row is built once per field mask, all
rows together, because a call of the builder costs as much as a hundred rows. Kept for a few turns: who is
slower than that reads the store alone (`hubble.flowstream`), so what is shared stays small.
"""

from collections.abc import Callable, Iterable, Sequence
from functools import cached_property

import numpy as np

from hubble.flowfeed import BATCH_FLOWS, FlowFeed, Positions, SharedBuilder
from hubble.responses import Responses
from hubble.storemapping import Loss
from hubble.storereader import Block, FlowStoreReader


class Turn:
    """Rows `begin` to `end` of a store, and the losses up to there."""

    def __init__(
        self,
        store: FlowStoreReader,
        span: range,
        losses: Sequence[Loss],
        next_loss: int,
        waiting: Callable[[], Iterable[FlowFeed]],
    ) -> None:
        """`next_loss` is the number of the loss after `losses`; `waiting` are those who will ask."""
        self.store = store
        self.span = span
        self.first_loss, self.next_loss = next_loss - len(losses), next_loss
        self._losses = losses
        self._waiting = waiting
        self._chosen: dict[FlowFeed, Positions] = {}
        self._built: dict[SharedBuilder, dict[int, bytes]] = {}
        self._covered: set[FlowFeed] = set()
        self._told: dict[tuple[FlowFeed, int], Responses] = {}

    @cached_property
    def _read(self) -> tuple[Block, int]:
        return self.store.read(self.span.start, len(self.span))

    @property
    def overtaken(self) -> int:
        """How many of the rows were gone when they were first asked for."""
        return self._read[1]

    def chosen(self, feed: FlowFeed) -> Positions:
        """The rows that `feed` wants."""
        found = self._chosen.get(feed)
        if found is None:
            found = self._chosen[feed] = feed.choose(self._read[0])
        return found

    def ends(self, feed: FlowFeed) -> list[int]:
        """Where the batches that `feed` is told end; none where it is told nothing."""
        chosen = self.chosen(feed)
        if not len(chosen) and not self._losses and not self.overtaken:
            return []
        return [*(chosen[BATCH_FLOWS - 1 : -1 : BATCH_FLOWS] + 1).tolist(), self.span.stop]

    def batch(self, feed: FlowFeed, number: int) -> Responses:
        """The batch of that number, from 0, for whoever asks with `feed`."""
        told = self._told.get((feed, number))
        if told is None:
            told = self._told[feed, number] = self._tell(feed, number)
        return told

    def _tell(self, feed: FlowFeed, number: int) -> Responses:
        chosen = self.chosen(feed)
        part = chosen[number * BATCH_FLOWS : (number + 1) * BATCH_FLOWS]
        is_last = (number + 1) * BATCH_FLOWS >= len(chosen)
        after = int(chosen[number * BATCH_FLOWS - 1]) if number else -1
        until = self.span.stop if is_last else int(part[-1])
        losses = [loss for loss in self._losses if after < loss.position <= until]
        head = [feed.overtaken(self.overtaken)] if self.overtaken and not number else []
        return Responses(head + feed.told(part, self._flows(feed), losses))

    def _flows(self, feed: FlowFeed) -> dict[int, bytes]:
        """Built rows by position: those of `feed`, and of all others with its builder that wait just now."""
        if feed not in self._covered:
            others = [f for f in self._waiting() if f.builder is feed.builder and f is not feed]
            asking = [feed, *(f for f in others if f not in self._covered)]
            together = np.unique(np.concatenate([self.chosen(f) for f in asking]))
            self._built.setdefault(feed.builder, {}).update(feed.built(self._read[0], together))
            self._covered.update(asking)
        return self._built[feed.builder]
