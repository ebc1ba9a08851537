"""A reader that goes through the flow store by position, once, in order: to count or to export it all.

Not a client's query (`hubble.flowstream`). Input: the store and names log of a directory, replaced stores
included; output: blocks, each followed by `advance`. What was overwritten, or left further behind than
allowed, is skipped and counted. Nothing is read ahead, so a slow consumer costs no memory and never holds
up the ingest.
"""

import logging
from dataclasses import dataclass
from pathlib import Path

from hubble.errors import StoreDamagedError, StoreMissingError
from hubble.flowsource import FollowedNames
from hubble.storereader import Block, FlowStoreReader

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class StorePosition:
    """How far a store has been gone through."""

    store_id: int = 0
    """0: none yet."""
    position: int = 0
    """The next row."""


class StoreFollower:
    """One consumer's place in the store."""

    def __init__(
        self, directory: Path, names: FollowedNames, start: StorePosition, max_behind: int = 0
    ) -> None:
        """Begin at `start` if that store is still there, else with the oldest row.

        A consumer more than `max_behind` rows (0: the whole store) behind the head skips what is older.
        """
        self._directory = directory
        self.names = names
        self._start = start
        self._max_behind = max_behind
        self._store: FlowStoreReader | None = None
        self._position = 0
        self.skipped = 0
        """Rows never read: overwritten, or left behind."""
        self.stores = 0
        """Stores opened so far: when it grows, references have a new meaning."""

    @property
    def place(self) -> StorePosition:
        """Where to begin next time."""
        if self._store is None:
            return self._start
        return StorePosition(self._store.store_id, self._position)

    @property
    def store_id(self) -> int:
        """The store of the latest block."""
        return self._store.store_id if self._store is not None else 0

    @property
    def store(self) -> FlowStoreReader | None:
        """The store that is being read; None while there is none."""
        return self._store

    @property
    def lag(self) -> int:
        """Rows written and not yet gone through."""
        return max(0, self._store.head - self._position) if self._store is not None else 0

    def is_overtaken(self) -> bool:
        """Tell whether the next `read` would skip rows."""
        return self._store is not None and self._least(self._store) > self._position

    def read(self, count: int) -> Block | None:
        """Return up to `count` rows from the current place; None when there are none (yet)."""
        store = self._opened()
        if store is None or store.head <= self._position:
            return None
        self.names.refresh()
        least = self._least(store)
        if least > self._position:
            self._skip_to(least)
        block, overwritten = store.read(self._position, count)
        if overwritten:
            self._skip_to(block.first)
        return block if len(block) else None

    def advance(self, rows: int) -> None:
        """Go on behind the first `rows` rows of the block that was read last."""
        self._position += rows

    def _least(self, store: FlowStoreReader) -> int:
        """The oldest row worth reading."""
        allowed = store.head - self._max_behind if self._max_behind else 0
        return max(store.oldest, allowed)

    def _skip_to(self, position: int) -> None:
        self.skipped += position - self._position
        self._position = position

    def _opened(self) -> FlowStoreReader | None:
        store = self._store
        if store is not None and (store.head > self._position or not store.is_replaced()):
            # A replaced store is still mapped: it is read to its end before the new one.
            return store
        try:
            store = FlowStoreReader.open(self._directory)
        except (StoreMissingError, StoreDamagedError):
            return self._store
        self._store = store
        self.stores += 1
        known = self._start.store_id == store.store_id and self._start.position <= store.head
        self._position = self._start.position if known and self.stores == 1 else store.oldest
        logger.info(
            "flow store opened to follow", extra={"path": str(store.path), "position": self._position}
        )
        return store
