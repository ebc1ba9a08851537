"""A mapped flow store as arrays: header words, records, hot columns, losses. Both sides look through it.

Not who may touch what when: that is `hubble.storewriter` and `hubble.storereader`. Offsets are those of
`hubble.storefile`.
"""

import mmap
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from datapath.events import STORED_DTYPE
from hubble import storefile
from hubble.storefile import HOT_COLUMNS, LOSS_CAPACITY, LOSS_DTYPE, Commit

Column = npt.NDArray[Any]
Records = npt.NDArray[np.void]


@dataclass(frozen=True, slots=True)
class Loss:
    """Events of one CPU that never reached the store."""

    time_ns: int
    """Wall clock when it was noticed."""
    position: int
    """The store's head at that moment: the loss lies just before this position."""
    count: int
    cpu: int


class StoreMapping:
    """Array views of a mapped file."""

    def __init__(self, mapping: mmap.mmap, capacity: int) -> None:
        self.mapping = mapping
        self.capacity = capacity
        self.words: Column = np.frombuffer(mapping, dtype=np.uint64, count=storefile.PAGE // 8)
        self.losses: Records = np.frombuffer(
            mapping, dtype=LOSS_DTYPE, count=LOSS_CAPACITY, offset=storefile.LOSSES_OFFSET
        )
        self.records: Records = np.frombuffer(
            mapping, dtype=STORED_DTYPE, count=capacity, offset=storefile.RECORDS
        )
        self.columns: dict[str, Column] = {
            name: np.frombuffer(mapping, dtype=HOT_COLUMNS[name], count=capacity, offset=offset)
            for name, offset in storefile.column_offsets(capacity).items()
        }

    # One aligned 8-byte load or store each: another process never sees half a number.
    def intent(self) -> int:
        """Rows written or being written."""
        return int(self.words[storefile.INTENT_INDEX])

    def head(self) -> int:
        """Rows ever written."""
        return int(self.words[storefile.HEAD_INDEX])

    def spans(self, first: int, count: int) -> list[slice]:
        """The slots of `count` rows from position `first`: one slice, or two around the end of the ring."""
        start = first % self.capacity
        end = min(start + count, self.capacity)
        rest = count - (end - start)
        return [slice(start, end)] + ([slice(0, rest)] if rest else [])

    def commit(self) -> Commit | None:
        """The newest whole commit."""
        return storefile.latest_commit(
            [self.mapping[storefile.slot_span(generation)] for generation in (0, 1)]
        )
