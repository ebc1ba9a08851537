"""Counts by u64 key, fed with whole arrays, bounded.

Pure. Keys of a block are sorted and merged into sorted arrays, so a block of new keys costs no more than one
of known ones, and nothing here is per event. Beyond `limit` distinct keys, new ones are counted together.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

Keys = npt.NDArray[np.uint64]
Counts = npt.NDArray[np.int64]


def distinct(keys: npt.NDArray[Any]) -> tuple[npt.NDArray[Any], Counts]:
    """Return the distinct keys in order, and how often each occurs."""
    if len(keys) == 0:
        return keys, np.zeros(0, dtype=np.int64)
    ordered = np.sort(keys)
    starts = np.flatnonzero(ordered[1:] != ordered[:-1]) + 1
    starts = np.concatenate((np.zeros(1, dtype=np.intp), starts))
    return ordered[starts], np.diff(starts, append=len(ordered))


class KeyCounter:
    """How often each key was seen."""

    def __init__(self, limit: int) -> None:
        """Keep at most `limit` keys apart."""
        self._limit = limit
        self._keys: Keys = np.zeros(0, dtype=np.uint64)
        self._counts: Counts = np.zeros(0, dtype=np.int64)
        self.overflow = 0
        """Occurrences of keys that came when `limit` others were there."""

    def __len__(self) -> int:
        return len(self._keys)

    def add(self, keys: npt.NDArray[Any], counts: Counts) -> None:
        """Add the counts of distinct keys in ascending order (see `distinct`)."""
        places = np.searchsorted(self._keys, keys)
        known = np.zeros(len(keys), dtype=np.bool_)
        inside = places < len(self._keys)
        known[inside] = self._keys[places[inside]] == keys[inside]
        self._counts[places[known]] += counts[known]
        if known.all():
            return
        new_keys, new_counts, at = keys[~known], counts[~known], places[~known]
        room = self._limit - len(self._keys)
        self.overflow += int(new_counts[room:].sum())
        self._keys = np.insert(self._keys, at[:room], new_keys[:room])
        self._counts = np.insert(self._counts, at[:room], new_counts[:room])

    def items(self) -> list[tuple[int, int]]:
        """Return (key, count) in ascending order of keys."""
        return list(zip(self._keys.tolist(), self._counts.tolist(), strict=True))
