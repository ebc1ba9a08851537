"""The flow store's one writer: a preallocated memory-mapped ring of records that outlives processes.

Not a queue: the writer never waits for a reader, old rows are overwritten, and a reader is told which of its
rows that befell. A position is the number of rows ever written before a row; it never repeats, also across
restarts. What makes the file safe against `kill -9` is in `hubble.storefile`. Input: batches of the ingest.
"""

import mmap
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

import numpy as np

from datapath.events import STORED_SIZE
from hubble import storefile
from hubble.accounting import CpuAccount
from hubble.storefile import HOT_COLUMNS, LOSS_CAPACITY, RING_NAME, Commit, Header
from hubble.storefolder import damaged_files, lock, open_ring, running_boot_id
from hubble.storemapping import Column, Loss, Records, StoreMapping
from palomar.clock import Clock

_POPULATE_WRITE = 23
"""MADV_POPULATE_WRITE of linux/mman.h (5.14): fault pages in at once, cheaper than one by one."""
_AHEAD_ROWS = 8192


@dataclass(frozen=True, slots=True)
class Chunk:
    """Rows next to each other in the file: the record view and the hot columns' views of the same rows."""

    first: int
    records: Records
    columns: dict[str, Column]

    def __len__(self) -> int:
        return len(self.records)

    def fill_columns(self) -> None:
        """Copy the hot fields of the records into the columns."""
        for name, column in self.columns.items():
            column[:] = self.records[name]


class FlowStoreWriter:
    """The one writer. Rows become visible by `commit`, in one step with the accounts."""

    def __init__(
        self, path: Path, lock_fd: int, layout: StoreMapping, header: Header, commit: Commit, set_aside: int
    ) -> None:
        """Use `open`."""
        self.path = path
        self.store_id = header.store_id
        self.set_aside = set_aside
        """Damaged files set aside in this directory, this time and before."""
        self._lock_fd = lock_fd
        self._layout: StoreMapping | None = layout
        self._commit = commit
        self._populated = 0

    @classmethod
    def open(cls, directory: Path, capacity: int, clock: Clock, boot_id: bytes = b"") -> Self:
        """Open the store of `directory` for writing, going on where it ended, or make one of `capacity` rows.

        A file that is damaged, of another capacity or version, or was in use when the machine stopped (its
        `boot_id` is not the running kernel's) is renamed to `flows.corrupt-<n>` with a warning.
        Raises StoreBusyError while another process writes, StoreSpaceError when the disk is full.
        """
        directory.mkdir(parents=True, exist_ok=True)
        lock_fd = lock(directory)
        try:
            path = directory / RING_NAME
            boot_id = boot_id or running_boot_id()
            mapping, header, commit = open_ring(path, capacity, clock.wall_ns(), boot_id)
        except BaseException:
            os.close(lock_fd)
            raise
        writer = cls(
            path, lock_fd, StoreMapping(mapping, capacity), header, commit, len(damaged_files(directory))
        )
        writer._begin(boot_id)
        return writer

    def _begin(self, boot_id: bytes) -> None:
        layout = self._mapped
        # The plain words may be behind (killed between slot and word) or ahead (killed while writing rows).
        layout.words[storefile.HEAD_INDEX] = self._commit.head
        layout.words[storefile.INTENT_INDEX] = max(layout.intent(), self._commit.head)
        self._publish(replace(self._commit, boot_id=boot_id))

    @property
    def _mapped(self) -> StoreMapping:
        if self._layout is None:
            raise ValueError("the flow store is closed")
        return self._layout

    @property
    def head(self) -> int:
        """Rows ever written."""
        return self._commit.head

    @property
    def capacity(self) -> int:
        """Rows kept."""
        return self._mapped.capacity

    @property
    def oldest(self) -> int:
        """Position of the oldest row that is still whole."""
        return max(0, self._mapped.intent() - self.capacity)

    @property
    def source_id(self) -> int:
        """Which kernel counters the accounts are about."""
        return self._commit.source_id

    def accounting(self) -> list[CpuAccount]:
        """Return the accounts of the latest commit."""
        return list(self._commit.accounts)

    def begin_source(self, source_id: int, cpus: int) -> None:
        """Start the accounts anew when the kernel's counters are not those of `source_id` any more."""
        if self._commit.source_id == source_id and len(self._commit.accounts) == cpus:
            return
        accounts = tuple(CpuAccount(cpu) for cpu in range(cpus))
        self._publish(replace(self._commit, source_id=source_id, accounts=accounts))

    def used_refs(self) -> set[int]:
        """Return the references that rows still in the store use."""
        refs: set[int] = set()
        for chunk in self._chunks(self.oldest, self.head - self.oldest):
            for name in ("src_ref", "dst_ref"):
                refs.update(np.unique(chunk.columns[name]).tolist())
        return refs - {0}

    @property
    def max_batch(self) -> int:
        """Most rows between two commits: readers keep at least half of the ring meanwhile."""
        return max(1, self.capacity // 2)

    def reserve(self, count: int) -> list[Chunk]:
        """Return views of the next `count` rows (at most `max_batch`) to be filled before `commit`."""
        if count > self.max_batch:
            raise ValueError(f"{count} rows at once, at most {self.max_batch}")
        layout = self._mapped
        head = self._commit.head
        layout.words[storefile.INTENT_INDEX] = max(head + count, layout.intent())
        self._populate(head + count)
        return self._chunks(head, count)

    def written(self, first: int, count: int) -> list[Chunk]:
        """Return views of rows already committed and not yet overwritten (for counters over whole blocks)."""
        if first < self.oldest or first + count > self.head:
            raise ValueError(f"rows {first}..{first + count} are not in the store")
        return self._chunks(first, count)

    def _chunks(self, first: int, count: int) -> list[Chunk]:
        layout = self._mapped
        chunks = []
        for span in layout.spans(first, count):
            columns = {name: column[span] for name, column in layout.columns.items()}
            chunks.append(Chunk(first, layout.records[span], columns))
            first += span.stop - span.start
        return chunks

    def commit(
        self, count: int, accounts: Sequence[CpuAccount] | None = None, losses: Iterable[Loss] = ()
    ) -> None:
        """Make `count` reserved rows visible, with the accounts and losses that belong to them."""
        layout = self._mapped
        written = self._commit.losses
        for loss in losses:
            layout.losses[written % LOSS_CAPACITY] = (loss.time_ns, loss.position, loss.count, loss.cpu)
            written += 1
        self._publish(
            replace(
                self._commit,
                head=self._commit.head + count,
                losses=written,
                accounts=self._commit.accounts if accounts is None else tuple(accounts),
            )
        )

    def append(self, records: Records) -> None:
        """Write `records` as they are and commit them."""
        for begin in range(0, len(records), self.max_batch):
            part = records[begin : begin + self.max_batch]
            done = 0
            for chunk in self.reserve(len(part)):
                chunk.records[:] = part[done : done + len(chunk)]
                chunk.fill_columns()
                done += len(chunk)
            self.commit(len(part))

    def _publish(self, commit: Commit) -> None:
        layout = self._mapped
        self._commit = replace(commit, generation=self._commit.generation + 1)
        data = storefile.pack_commit(self._commit)
        at = storefile.commit_offset(self._commit.generation)
        layout.mapping[at : at + len(data)] = data
        layout.words[storefile.HEAD_INDEX] = self._commit.head

    def _populate(self, needed: int) -> None:
        # A first touch of a file page costs a fault of 1-2 us for 32 rows; in bulk it is a fraction of that.
        if needed <= self._populated:
            return
        layout = self._mapped
        ahead = min(max(needed - self._commit.head, _AHEAD_ROWS), layout.capacity)
        places = [(storefile.RECORDS, STORED_SIZE)] + [
            (offset, HOT_COLUMNS[name].itemsize)
            for name, offset in storefile.column_offsets(layout.capacity).items()
        ]
        for span in layout.spans(self._commit.head, ahead):
            for offset, size in places:
                begin = (offset + span.start * size) // mmap.PAGESIZE * mmap.PAGESIZE
                try:
                    layout.mapping.madvise(_POPULATE_WRITE, begin, offset + span.stop * size - begin)
                except OSError:
                    # Kernels before 5.14: pages are faulted one by one then.
                    self._populated = 1 << 63
                    return
        self._populated = self._commit.head + ahead

    def close(self) -> None:
        """Mark the file as closed in order, write it to disk and let go of it. Idempotent."""
        if self._layout is None:
            return
        self._mapped.mapping.flush()
        self._publish(replace(self._commit, boot_id=bytes(16)))
        self._mapped.mapping.flush(0, storefile.RECORDS)
        self._layout = None
        os.close(self._lock_fd)
