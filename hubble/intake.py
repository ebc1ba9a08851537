"""From the samples of one drain to rows of the flow store: ordered by time, in wall clock, with names.

No I/O of its own: it fills views that the store handed out. Input: runs of samples as the perf rings hold
them; output: records and hot columns. A sample is 8 + 4 bytes and then the event, a row is the event and then
12 bytes of ours: so a run of samples becomes rows by one copy that starts 12 bytes in.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from datapath.events import STORED_SIZE, field_offset
from datapath.samples import SEQ_WORD, STRIDE_WORDS, TIME_WORD, Words
from hubble.binder import Binder
from hubble.storefile import HOT_COLUMNS
from hubble.storewriter import Chunk

Column = npt.NDArray[Any]

SLICE_ROWS = 4096
"""Rows worked on at once: 512 KiB, which stays in a core's second-level cache."""
_WORDS = STORED_SIZE // 4
_EVENT_WORD = 3
"""First u32 word of a sample that belongs to the event."""
_NONE = np.zeros(0, dtype=np.uint64)
_SRC_REF_WORD, _DST_REF_WORD, _CPU_WORD = 29, 30, 31
_TIME_ROW_WORD = 3

_BOUND_LATER = ("time_ns", "src_ref", "dst_ref")
_PLACES: list[tuple[str, int, int]] = [
    (name, dtype.itemsize, field_offset(name) // dtype.itemsize)
    for name, dtype in HOT_COLUMNS.items()
    if name not in _BOUND_LATER
]
"""Hot columns copied from the records as they are: name, size, index in an array of that size."""


@dataclass(frozen=True, slots=True)
class CpuRuns:
    """The samples of one CPU."""

    cpu: int
    runs: Sequence[Words]

    def __len__(self) -> int:
        return sum(len(run) for run in self.runs)

    def ahead(self, seq: int) -> int:
        """Return how many carry a sequence number not below `seq`."""
        return sum(int(np.count_nonzero(run[:, SEQ_WORD] >= np.uint64(seq))) for run in self.runs)


class Batch:
    """Samples of all CPUs in the order of their time."""

    def __init__(self, cpus: Sequence[CpuRuns]) -> None:
        """Order them; ties keep the order of CPUs and rings."""
        runs = [(part.cpu, run) for part in cpus for run in part.runs]
        self._length = sum(len(run) for _, run in runs)
        self._cpu = runs[0][0] if len({cpu for cpu, _ in runs}) == 1 else None
        """The CPU when there is only one; then `_cpus` is empty."""
        self._cpus: Column = _cpus(runs) if self._cpu is None else _NONE
        self._times: Column = np.concatenate([run[:, TIME_WORD] for _, run in runs] or [_NONE])
        self._order: npt.NDArray[np.intp] | None = None
        if self._length and not bool((self._times[1:] >= self._times[:-1]).all()):
            # Timsort: each ring is nearly sorted, and merging runs is what it is good at.
            self._order = self._times.argsort(kind="stable")
        self._samples: Column
        if len(runs) == 1 and self._order is None:
            # The usual case of a quiet node or one busy CPU: straight from the ring.
            self._samples = runs[0][1].reshape(-1).view(np.uint32)
        else:
            # One row more than there are samples, for the shift in `_copy`.
            whole: Words = np.empty((self._length + 1, STRIDE_WORDS), dtype=np.uint64)
            np.concatenate([run for _, run in runs] or [whole[:0]], out=whole[: self._length])
            self._samples = whole.reshape(-1).view(np.uint32)

    def __len__(self) -> int:
        return self._length

    def stored_by_cpu(self, begin: int, end: int) -> dict[int, int]:
        """Return how many of the rows `begin` to `end` each CPU made."""
        if self._cpu is not None:
            return {self._cpu: end - begin}
        rows = self._cpus[begin:end] if self._order is None else self._cpus[self._order[begin:end]]
        return {cpu: count for cpu, count in enumerate(np.bincount(rows).tolist()) if count}

    def fill(self, first: int, chunk: Chunk, wall_offset_ns: int, binder: Binder) -> None:
        """Write the rows from `first` on into `chunk`, as many as it has."""
        for begin in range(0, len(chunk), SLICE_ROWS):
            rows = slice(begin, min(begin + SLICE_ROWS, len(chunk)))
            columns = {name: column[rows] for name, column in chunk.columns.items()}
            self._fill_slice(first + begin, chunk.records[rows], columns, wall_offset_ns, binder)

    def _fill_slice(
        self, first: int, records: Column, columns: dict[str, Column], wall_offset_ns: int, binder: Binder
    ) -> None:
        count = len(records)
        flat = records.view(np.uint32)
        words = flat.reshape(count, _WORDS)
        times = self._copy(first, count, flat, words)
        columns["time_ns"][:] = times + np.uint64(wall_offset_ns)
        halves, octets = flat.view(np.uint16).reshape(count, -1), flat.view(np.uint8).reshape(count, -1)
        by_size: dict[int, Column] = {1: octets, 2: halves, 4: words}
        for name, size, index in _PLACES:
            columns[name][:] = by_size[size][:, index]
        binder.apply(words, columns)
        words[:, _TIME_ROW_WORD : _TIME_ROW_WORD + 2] = columns["time_ns"].view(np.uint32).reshape(count, 2)
        words[:, _SRC_REF_WORD] = columns["src_ref"]
        words[:, _DST_REF_WORD] = columns["dst_ref"]

    def _copy(self, first: int, count: int, flat: Column, words: Column) -> Column:
        """Copy events and CPUs of `count` rows, and return their times."""
        samples = self._samples
        if self._order is None:
            # The last row has no next sample to take its last 12 bytes from; they are overwritten anyway.
            begin = first * _WORDS + _EVENT_WORD
            length = count * _WORDS - _EVENT_WORD
            flat[:length] = samples[begin : begin + length]
            words[:, _CPU_WORD] = self._cpus[first : first + count] if self._cpu is None else self._cpu
            return self._times[first : first + count]
        order = self._order[first : first + count]
        # Shifted by the 12 bytes before the event, samples are rows; the spare row at the end makes room.
        shifted = samples[_EVENT_WORD : _EVENT_WORD + self._length * _WORDS].reshape(self._length, _WORDS)
        # Without "clip" numpy checks indexes through a copy of the output.
        np.take(shifted, order, axis=0, out=words, mode="clip")
        words[:, _CPU_WORD] = self._cpus[order] if self._cpu is None else self._cpu
        return self._times[order]


def _cpus(runs: Sequence[tuple[int, Words]]) -> Column:
    numbers = np.array([cpu for cpu, _ in runs], dtype=np.uint32)
    return np.repeat(numbers, [len(run) for _, run in runs])
