"""The contexts of a block's rows as numbers: few bits where few were met, and back to series keys.

Pure. Input: the codes of both sides' label values (`hubble.metrics.contexts`); output: one number a row. A
table of all numbers there are and of what a metric counts by stays small enough for the core's own cache.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from hubble.keycounter import Keys
from hubble.metrics.numbertable import DIRECT_BITS, DenseNumbers

VALUE_BITS = 20
DIRECTION_SHIFT = 2 * VALUE_BITS
BASE_SHIFT = DIRECTION_SHIFT + 2
"""Where a metric's own part of a series key begins: 22 bits are left for it."""
NARROW_BITS = 32

ValueCodes = npt.NDArray[np.uint32]
RowNumbers = npt.NDArray[Any]
"""u32, or u64 where NARROW_BITS do not suffice."""


@dataclass(frozen=True, slots=True)
class Packing:
    """How the codes of a source, a destination and a direction lie in one number."""

    source_bits: int
    destination_bits: int
    has_direction: bool

    @classmethod
    def of(cls, sources: int, destinations: int, has_direction: bool) -> Self:
        """Return the one for so many codes of either side."""
        return cls(max(0, sources - 1).bit_length(), max(0, destinations - 1).bit_length(), has_direction)

    @property
    def bits(self) -> int:
        """Of the number."""
        return self.source_bits + self.destination_bits + (2 if self.has_direction else 0)

    def pack(self, source: ValueCodes, destination: ValueCodes, directions: ValueCodes | None) -> RowNumbers:
        """Return a number per row."""
        kind: Any = np.uint32 if self.bits <= NARROW_BITS else np.uint64
        packed: RowNumbers = source.astype(kind) << kind(self.destination_bits) | destination
        if directions is not None:
            packed |= directions.astype(kind) << kind(self.source_bits + self.destination_bits)
        return packed

    def widen(self, packed: RowNumbers) -> Keys:
        """Return the lower 42 bits of series keys; the order stays."""
        wide = packed.astype(np.uint64)
        destination = wide & np.uint64((1 << self.destination_bits) - 1)
        wide >>= np.uint64(self.destination_bits)
        source = wide & np.uint64((1 << self.source_bits) - 1)
        direction = wide >> np.uint64(self.source_bits)
        keys: Keys = source << np.uint64(VALUE_BITS) | destination
        return keys | direction << np.uint64(DIRECTION_SHIFT)


@dataclass(frozen=True, slots=True)
class RowContexts:
    """The contexts of a block's rows."""

    numbers: RowNumbers
    """One a row."""
    bits: int
    """Of the numbers."""
    packing: Packing
    """Numbers of the same bits and packing mean the same until the column's values are sorted out."""
    widen: Callable[[RowNumbers], Keys]
    """The lower 42 bits of the series keys of some of `numbers`."""


def row_contexts(packing: Packing, packed: RowNumbers, met: DenseNumbers) -> RowContexts:
    """Number `packed`: as they were met if there may be a table of them, else as they are."""
    if packing.bits > DIRECT_BITS:
        return RowContexts(packed, packing.bits, packing, packing.widen)
    return RowContexts(met.of(packed), met.bits, packing, lambda numbers: packing.widen(met.keys[numbers]))
