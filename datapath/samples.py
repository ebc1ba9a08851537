"""Samples of a perf ring as arrays: the bytes of a ring and two positions in, views of whole runs out.

Pure, and nothing is copied but a sample that wraps. Not here: rings (`perf.py`), and what a sample means
(`events.py`).

Kernel: include/uapi/linux/perf_event.h. A ring holds records `{u32 type, u16 misc, u16 size}`; a program's
output is PERF_RECORD_SAMPLE with a u32 size and the data, here always 128 bytes. PERF_RECORD_LOST is 24 bytes
and shifts all that follows; `misc` depends on what the CPU was doing and is ignored.
"""

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from datapath.events import EVENT_SIZE, EVENT_VERSION, SAMPLE_STRIDE

Words = npt.NDArray[np.uint64]

RECORD_LOST = 2
RECORD_SAMPLE = 9

STRIDE_WORDS = SAMPLE_STRIDE // 8
SEQ_WORD = 2
"""Word of a sample that is the event's `seq`: 12 + 4 bytes in."""
TIME_WORD = 3
"""Word of a sample that is the event's `time_ns`."""

_HEADER_MASK = 0xFFFF_0000_FFFF_FFFF
_HEADER = SAMPLE_STRIDE << 48 | RECORD_SAMPLE
_START_MASK = 0xFF_FFFF_FFFF
_START = EVENT_VERSION << 32 | EVENT_SIZE
_MIN_WINDOW, _MAX_WINDOW = 16, 4096


@dataclass(slots=True)
class Samples:
    """What stood between two positions of a ring."""

    runs: list[Words] = field(default_factory=list)
    """Arrays of shape (n, 16): whole samples in ring order, as views of the ring where they do not wrap."""
    tail: int = 0
    """Where reading ended; hand it back to the ring once the runs are copied."""
    malformed: int = 0
    """Samples of another size or version."""
    ring_lost: int = 0
    """Sum of PERF_RECORD_LOST: said late and only after a success, so `seq` is what counts."""

    def __len__(self) -> int:
        return sum(len(run) for run in self.runs)


def find_samples(ring: Words, tail: int, head: int) -> Samples:
    """Return the samples between the byte positions `tail` and `head` of `ring` (its size: a power of two).

    Never raises on what a ring may contain: a record that cannot be is the end, and all behind it is skipped
    and counted as one malformed sample (the sequence numbers say how many are missing).
    """
    found = Samples(tail=tail)
    size = ring.nbytes
    window = _MAX_WINDOW
    while head - found.tail >= 8:
        offset = found.tail & (size - 1)
        rows = min(head - found.tail, size - offset) // SAMPLE_STRIDE
        first = offset // 8
        whole = 0
        while whole < rows:
            count = min(window, rows - whole)
            start = first + whole * STRIDE_WORDS
            good = _good_prefix(ring[start : start + count * STRIDE_WORDS].reshape(count, STRIDE_WORDS))
            whole += good
            if good < count:
                window = _MIN_WINDOW
                break
            window = min(window * 2, _MAX_WINDOW)
        if whole:
            found.runs.append(ring[first : first + whole * STRIDE_WORDS].reshape(whole, STRIDE_WORDS))
            found.tail += whole * SAMPLE_STRIDE
        elif not _one_record(ring, found, head):
            break
    return found


def _good_prefix(rows: Words) -> int:
    """Return how many of the first rows are samples of our size and version."""
    wrong = ((rows[:, 0] ^ np.uint64(_HEADER)) & np.uint64(_HEADER_MASK)) | (
        (rows[:, 1] ^ np.uint64(_START)) & np.uint64(_START_MASK)
    )
    return int(np.argmax(wrong != 0)) if wrong.any() else len(rows)


def _one_record(ring: Words, found: Samples, head: int) -> bool:
    """Take the record at `found.tail`, whatever it is; False when it cannot be one."""
    words = len(ring)
    at = (found.tail // 8) % words
    header = int(ring[at])
    kind, size = header & 0xFFFF_FFFF, header >> 48
    if size < 8 or size % 8 or size > head - found.tail:
        found.malformed += 1
        found.tail = head
        return False
    if kind == RECORD_LOST and size >= 24:
        found.ring_lost += int(ring[(at + 2) % words])
    elif kind == RECORD_SAMPLE:
        row = ring[np.arange(at, at + size // 8) % words]
        if size == SAMPLE_STRIDE and int(row[1]) & _START_MASK == _START:
            found.runs.append(row.reshape(1, STRIDE_WORDS))
        else:
            found.malformed += 1
    found.tail += size
    return True
