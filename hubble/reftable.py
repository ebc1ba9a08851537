"""A map from u32 to u32 that answers for whole arrays.

Pure. Open addressing with linear probing over one u64 array (key above, value below), at most one slot in
eight taken, so that nearly every array is answered by one gather. Value 0 means "not there".
"""

from typing import Any

import numpy as np
import numpy.typing as npt

U32 = npt.NDArray[np.uint32]

_MULTIPLIER = np.uint32(0x9E3779B1)
_LOW = np.uint64(0xFFFF_FFFF)
_SHIFT = np.uint64(32)
_MIN_BITS = 10
_SPARE_BITS = 3


class RefTable:
    """Numbers to references."""

    def __init__(self) -> None:
        """Empty."""
        self._known: dict[int, int] = {}
        self._bits = _MIN_BITS
        self._slots: npt.NDArray[np.uint64] = np.zeros(1 << self._bits, dtype=np.uint64)
        self._taken = 0

    def __len__(self) -> int:
        return len(self._known)

    def get(self, key: int) -> int:
        """Return the value of one key; 0 where there is none."""
        return self._known.get(key, 0)

    def known(self) -> list[int]:
        """Return the keys that have a value."""
        return list(self._known)

    def set(self, key: int, value: int) -> None:
        """Give `key` a value other than 0."""
        if not 0 < value < 1 << 32:
            raise ValueError(f"{value} is no reference")
        self._known[key] = value
        self._write(key, value)

    def delete(self, key: int) -> None:
        """Forget `key`. Idempotent."""
        if self._known.pop(key, None) is None:
            return
        if key:
            # The slot keeps the key with value 0: a hole would end the probes of the keys behind it.
            self._write(key, 0)
        else:
            self._rebuild()

    def _write(self, key: int, value: int) -> None:
        slots = self._slots
        at = self._slot_of(key)
        while int(slots[at]) and int(slots[at]) >> 32 != key:
            at = (at + 1) & (len(slots) - 1)
        if not int(slots[at]):
            self._taken += 1
        slots[at] = key << 32 | value
        if self._taken << _SPARE_BITS > len(slots):
            self._rebuild()

    def _rebuild(self) -> None:
        while len(self._known) << (_SPARE_BITS + 1) > 1 << self._bits:
            self._bits += 1
        self._slots = np.zeros(1 << self._bits, dtype=np.uint64)
        self._taken = 0
        for key, value in self._known.items():
            self._write(key, value)

    def _slot_of(self, key: int) -> int:
        return (key * int(_MULTIPLIER) & 0xFFFF_FFFF) >> (32 - self._bits)

    def lookup(self, keys: npt.NDArray[Any]) -> U32:
        """Return the value of every key, 0 where there is none. `keys` is a contiguous u32 array."""
        at = (keys * _MULTIPLIER) >> np.uint32(32 - self._bits)
        found = self._slots.take(at)
        values = found.astype(np.uint32)
        rows = np.flatnonzero(((found >> _SHIFT) != keys) & (found != 0))
        if len(rows):
            self._probe(keys, at, values, rows)
        return values

    def _probe(self, keys: npt.NDArray[Any], at: U32, values: U32, rows: npt.NDArray[np.intp]) -> None:
        """Answer the rows whose first slot belongs to another key."""
        slots = self._slots
        places = at[rows]
        mask = np.uint32(len(slots) - 1)
        while len(rows):
            places = (places + np.uint32(1)) & mask
            found = slots.take(places)
            values[rows] = found.astype(np.uint32)
            on = ((found >> _SHIFT) != keys[rows]) & (found != 0)
            rows, places = rows[on], places[on]
