"""Counts by series key, fed with whole arrays, within a budget of series.

Pure. What finds no room is counted, in flows and in refused keys, never silently left out; series that were
quiet for long make room. Keys are u64: base, source value, destination value (see
`hubble.metrics.registry`).
"""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from hubble.keycounter import Counts, Keys

IDLE_NS = 3600 * 1_000_000_000
EVICT_EVERY_NS = 60 * 1_000_000_000
"""How often it is worth looking for quiet series while there is no room."""


class SeriesCounter:
    """How often each key was seen."""

    def __init__(self, budget: int, idle_ns: int = IDLE_NS) -> None:
        """Keep at most `budget` keys; those not seen for `idle_ns` give way to new ones."""
        self._budget = budget
        self._idle_ns = idle_ns
        self._next_eviction_ns = 0
        self._keys: Keys = np.zeros(0, dtype=np.uint64)
        self._counts: Counts = np.zeros(0, dtype=np.int64)
        self._seen_ns: npt.NDArray[np.int64] = np.zeros(0, dtype=np.int64)
        self.refused = 0
        """Times a new key found no room (once a block)."""
        self.uncounted = 0
        """Flows of such keys."""
        self.evicted = 0
        """Quiet keys that made room."""

    def __len__(self) -> int:
        return len(self._keys)

    def add(self, keys: Keys, counts: Counts, now_ns: int) -> None:
        """Add the counts of distinct keys in ascending order (`hubble.keycounter.distinct`)."""
        places = np.searchsorted(self._keys, keys)
        known = np.zeros(len(keys), dtype=np.bool_)
        inside = places < len(self._keys)
        known[inside] = self._keys[places[inside]] == keys[inside]
        self._counts[places[known]] += counts[known]
        self._seen_ns[places[known]] = now_ns
        if known.all():
            return
        new_keys, new_counts = keys[~known], counts[~known]
        if len(self) + len(new_keys) > self._budget:
            self._evict(now_ns)
        room = self._budget - len(self)
        self.refused += len(new_keys[room:])
        self.uncounted += int(new_counts[room:].sum())
        new_keys, new_counts = new_keys[:room], new_counts[:room]
        at = np.searchsorted(self._keys, new_keys)
        self._keys = np.insert(self._keys, at, new_keys)
        self._counts = np.insert(self._counts, at, new_counts)
        self._seen_ns = np.insert(self._seen_ns, at, now_ns)

    def _evict(self, now_ns: int) -> None:
        if now_ns < self._next_eviction_ns:
            return
        self._next_eviction_ns = now_ns + EVICT_EVERY_NS
        kept = self._seen_ns > now_ns - self._idle_ns
        self.evicted += len(self) - int(kept.sum())
        self._keys, self._counts, self._seen_ns = self._keys[kept], self._counts[kept], self._seen_ns[kept]

    def items(self) -> list[tuple[int, int]]:
        """Return (key, count) in ascending order of keys."""
        return list(zip(self._keys.tolist(), self._counts.tolist(), strict=True))

    def keys(self) -> Keys:
        """Return all keys in ascending order."""
        return self._keys

    def rename(self, new_keys: Callable[[Keys], Keys]) -> None:
        """Give every key the one that `new_keys` returns for it; they stay distinct."""
        keys = new_keys(self._keys)
        order = np.argsort(keys)
        self._keys, self._counts, self._seen_ns = keys[order], self._counts[order], self._seen_ns[order]
