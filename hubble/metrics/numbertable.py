"""Numbers for numbers, whole arrays at once: a table where keys are small, `hubble.reftable` where not.

Pure. A look-up in a table is one gather; the hash of a RefTable costs four times that. 0 means "none".
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from hubble.keycounter import distinct
from hubble.reftable import RefTable

Numbers = npt.NDArray[np.uint32]

DIRECT_BITS = 20
"""Keys of more bits are hashed: a table of all they could be would be more than 4 MiB."""
_LEAST = 1 << 10


class NumberTable:
    """A map from u32 to u32."""

    def __init__(self) -> None:
        """Empty."""
        self._direct: Numbers = np.zeros(_LEAST, dtype=np.uint32)
        self._hashed: RefTable | None = None

    def lookup(self, keys: npt.NDArray[Any]) -> Numbers:
        """Return the value of every key, 0 where there is none. `keys` are unsigned and not empty."""
        if self._hashed is None:
            try:
                return self._direct.take(keys)
            except IndexError:  # the gather looks for that anyway: asking before would cost a fifth of it
                self._grow(int(keys.max()))
                return self.lookup(keys)
        return self._hashed.lookup(keys)

    def set(self, keys: npt.NDArray[Any], values: npt.NDArray[Any]) -> None:
        """Give keys values; all keys have been looked up before."""
        if self._hashed is None:
            self._direct[keys] = values
            return
        for key, value in zip(keys.tolist(), values.tolist(), strict=True):
            self._hashed.set(key, value)

    def _grow(self, highest: int) -> None:
        known = np.flatnonzero(self._direct)
        values = self._direct[known]
        if highest >> DIRECT_BITS:
            self._hashed = RefTable()
            self._direct = np.zeros(0, dtype=np.uint32)
        else:
            self._direct = np.zeros(1 << highest.bit_length(), dtype=np.uint32)
        self.set(known, values)


class DenseNumbers:
    """Numbers from 1 on for keys as they are met."""

    def __init__(self) -> None:
        """Nothing is met yet."""
        self._table = NumberTable()
        self.keys: Numbers = np.zeros(1, dtype=np.uint32)
        """By number; 0 is none's."""

    def of(self, keys: npt.NDArray[Any]) -> Numbers:
        """Return the number of every key. `keys` are unsigned and not empty."""
        numbers = self._table.lookup(keys)
        if numbers.all():
            return numbers
        new, _ = distinct(keys[numbers == 0])
        self._table.set(new, np.arange(len(self.keys), len(self.keys) + len(new)))
        self.keys = np.append(self.keys, new.astype(np.uint32))
        return self._table.lookup(keys)

    @property
    def bits(self) -> int:
        """How many bits the numbers need."""
        return (len(self.keys) - 1).bit_length()
