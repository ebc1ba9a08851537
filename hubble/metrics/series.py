"""Counts by series key, fed with whole arrays, within a budget of series.

Pure. What finds no room is counted, in flows and in refused keys, never silently left out; series that were
quiet for long make room. Keys are u64: base, source value, destination value (see
`hubble.metrics.registry`). Each series has a slot, a small number that stands for its key until
`generation` changes, so that who has met a key before need not look for it again.
"""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from hubble.keycounter import Counts, Keys

IDLE_NS = 3600 * 1_000_000_000
EVICT_EVERY_NS = 60 * 1_000_000_000
"""How often it is worth looking for quiet series while there is no room."""
NO_SLOT = -1

Slots = npt.NDArray[np.int64]


class SeriesCounter:
    """How often each key was seen."""

    def __init__(self, budget: int, idle_ns: int = IDLE_NS) -> None:
        """Keep at most `budget` keys; those not seen for `idle_ns` give way to new ones."""
        self._budget = budget
        self._idle_ns = idle_ns
        self._next_eviction_ns = 0
        self._keys: Keys = np.zeros(0, dtype=np.uint64)
        """In ascending order."""
        self._slots: Slots = np.zeros(0, dtype=np.int64)
        """Of each key."""
        self._counts: Counts = np.zeros(0, dtype=np.int64)
        """By slot."""
        self._seen_ns: npt.NDArray[np.int64] = np.zeros(0, dtype=np.int64)
        """By slot."""
        self.generation = 0
        """Changes when slots get other meanings."""
        self.refused = 0
        """Times a new key found no room (once a block)."""
        self.uncounted = 0
        """Flows of such keys."""
        self.evicted = 0
        """Quiet keys that made room."""

    def __len__(self) -> int:
        return len(self._keys)

    def add(self, keys: Keys, counts: Counts, now_ns: int) -> Slots:
        """Add the counts of distinct keys in ascending order (`hubble.keycounter.distinct`).

        Return the slot of each, NO_SLOT for those that found no room.
        """
        slots = self._find(keys)
        known = slots != NO_SLOT
        self._counts[slots[known]] += counts[known]
        self._seen_ns[slots[known]] = now_ns
        if known.all():
            return slots
        self._admit(keys[~known], counts[~known], now_ns)
        return self._find(keys)

    def add_slots(self, slots: Slots, counts: Counts, now_ns: int) -> None:
        """Add the counts of some slots, each named once."""
        self._counts[slots] += counts
        self._seen_ns[slots] = now_ns

    def _find(self, keys: Keys) -> Slots:
        places = np.searchsorted(self._keys, keys)
        slots = np.full(len(keys), NO_SLOT, dtype=np.int64)
        known = np.flatnonzero(places < len(self._keys))
        known = known[self._keys[places[known]] == keys[known]]
        slots[known] = self._slots[places[known]]
        return slots

    def _admit(self, keys: Keys, counts: Counts, now_ns: int) -> None:
        if len(self) + len(keys) > self._budget:
            self._evict(now_ns)
        room = self._budget - len(self)
        self.refused += len(keys[room:])
        self.uncounted += int(counts[room:].sum())
        keys, counts = keys[:room], counts[:room]
        at = np.searchsorted(self._keys, keys)
        self._slots = np.insert(self._slots, at, np.arange(len(self), len(self) + len(keys)))
        self._keys = np.insert(self._keys, at, keys)
        self._counts = np.append(self._counts, counts)
        self._seen_ns = np.append(self._seen_ns, np.full(len(keys), now_ns, dtype=np.int64))

    def _evict(self, now_ns: int) -> None:
        if now_ns < self._next_eviction_ns:
            return
        self._next_eviction_ns = now_ns + EVICT_EVERY_NS
        kept = self._seen_ns[self._slots] > now_ns - self._idle_ns
        self.evicted += len(self) - int(kept.sum())
        self._keep(self._keys[kept], self._slots[kept])

    def _keep(self, keys: Keys, slots: Slots) -> None:
        """Have these keys alone, in ascending order, with what is counted in `slots`."""
        self._keys, self._counts, self._seen_ns = keys, self._counts[slots], self._seen_ns[slots]
        self._slots = np.arange(len(keys))
        self.generation += 1

    def items(self) -> list[tuple[int, int]]:
        """Return (key, count) in ascending order of keys."""
        return list(zip(self._keys.tolist(), self._counts[self._slots].tolist(), strict=True))

    def keys(self) -> Keys:
        """Return all keys in ascending order."""
        return self._keys

    def rename(self, new_keys: Callable[[Keys], Keys]) -> None:
        """Give every key the one that `new_keys` returns for it; they stay distinct."""
        keys = new_keys(self._keys)
        order = np.argsort(keys)
        self._keep(keys[order], self._slots[order])
