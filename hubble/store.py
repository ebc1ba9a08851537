"""The flow store: a preallocated memory-mapped ring of records. The ingest writes, the flow server reads.

Not a queue: the writer never waits for a reader, old rows are overwritten, and a reader is told which of its
rows that befell. A position is the number of rows ever written before a row; it never repeats, also across
restarts. The file's layout and what makes it safe against `kill -9` is in `hubble.storefile`.

Input of the writer: batches of the ingest; input of the reader: the file alone, mapped read-only.
"""

import fcntl
import logging
import mmap
import os
import secrets
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from datapath.events import STORED_DTYPE, STORED_SIZE
from hubble import storefile
from hubble.accounting import CpuAccount
from hubble.errors import StoreBusyError, StoreDamagedError, StoreMissingError, StoreSpaceError
from hubble.storefile import HOT_COLUMNS, LOSS_CAPACITY, LOSS_DTYPE, Commit, Header
from palomar.clock import Clock

logger = logging.getLogger(__name__)

DEFAULT_CAPACITY = 1 << 20
RING_NAME = "flows.ring"
LOCK_NAME = "flows.lock"
KEPT_DAMAGED = 3
"""Damaged files kept for a look; older ones go, or a crash loop would fill the disk."""
_POPULATE_WRITE = 23
"""MADV_POPULATE_WRITE of linux/mman.h (5.14): fault pages in at once, cheaper than one by one."""
_AHEAD_ROWS = 8192
_WAIT_S = 0.005

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


class _Layout:
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
        return int(self.words[storefile.INTENT_INDEX])

    def head(self) -> int:
        return int(self.words[storefile.HEAD_INDEX])

    def spans(self, first: int, count: int) -> list[slice]:
        """The slots of `count` rows from position `first`: one slice, or two around the end of the ring."""
        start = first % self.capacity
        end = min(start + count, self.capacity)
        rest = count - (end - start)
        return [slice(start, end)] + ([slice(0, rest)] if rest else [])

    def commit(self) -> Commit | None:
        return storefile.latest_commit(
            [self.mapping[storefile.slot_span(generation)] for generation in (0, 1)]
        )


class FlowStoreWriter:
    """The one writer. Rows become visible by `commit`, in one step with the accounts."""

    def __init__(
        self, path: Path, lock_fd: int, layout: _Layout, header: Header, commit: Commit, set_aside: int
    ) -> None:
        """Use `open`."""
        self.path = path
        self.store_id = header.store_id
        self.set_aside = set_aside
        """Damaged files set aside in this directory, this time and before."""
        self._lock_fd = lock_fd
        self._layout: _Layout | None = layout
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
        lock_fd = _lock(directory / LOCK_NAME)
        try:
            path = directory / RING_NAME
            boot_id = boot_id or _boot_id()
            whole = _open_whole(path, capacity, boot_id)
            if isinstance(whole, str):
                _set_aside(path, whole)
            if whole is None or isinstance(whole, str):
                _create(path, capacity, clock.wall_ns(), boot_id)
                whole = _open_whole(path, capacity, boot_id)
            if whole is None or isinstance(whole, str):
                raise StoreDamagedError(path, "changed while it was made")
        except BaseException:
            os.close(lock_fd)
            raise
        mapping, header, commit = whole
        writer = cls(
            path, lock_fd, _Layout(mapping, capacity), header, commit, len(_damaged_files(directory))
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
    def _mapped(self) -> _Layout:
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


class Block:
    """Rows copied out of the store; the copy does not change any more."""

    def __init__(self, first: int, columns: dict[str, Column], fetch: Callable[[], Records]) -> None:
        """`fetch` copies the whole records when first asked."""
        self.first = first
        """Position of row 0."""
        self.columns = columns
        """The hot columns."""
        self._fetch = fetch
        self._records: Records | None = None

    def __len__(self) -> int:
        return len(self.columns["type"])

    @property
    def records(self) -> Records:
        """The whole records (STORED_DTYPE), copied when first asked for.

        A row overwritten between `read` and now is all zeros: its `version` is 0.
        """
        if self._records is None:
            self._records = self._fetch()
        return self._records

    def column(self, name: str) -> Column:
        """Return a field by its name, one value a row; a hot one is contiguous and cheap."""
        hot = self.columns.get(name)
        return self.records[name] if hot is None else hot


class FlowStoreReader:
    """Reads while the writer writes. Nothing here blocks the writer, and no torn row gets out."""

    def __init__(self, path: Path, layout: _Layout, header: Header, inode: int) -> None:
        """Use `open`."""
        self.path = path
        self.store_id = header.store_id
        """60 random bits, made with the file."""
        self.created_ns = header.created_ns
        self._layout = layout
        self._inode = inode

    @classmethod
    def open(cls, directory: Path) -> Self:
        """Map the store of `directory`. Raises StoreMissingError, StoreDamagedError."""
        path = directory / RING_NAME
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError as error:
            raise StoreMissingError(path) from error
        try:
            status = os.fstat(fd)
            header = storefile.parse_header(os.pread(fd, storefile.PAGE, 0), status.st_size)
            if isinstance(header, str):
                raise StoreDamagedError(path, header)
            mapping = mmap.mmap(fd, status.st_size, mmap.MAP_SHARED, mmap.PROT_READ)
        finally:
            os.close(fd)
        return cls(path, _Layout(mapping, header.capacity), header, status.st_ino)

    def is_replaced(self) -> bool:
        """Tell whether the writer has set this file aside and made another: open the store again then."""
        try:
            return self.path.stat().st_ino != self._inode
        except FileNotFoundError:
            return True

    @property
    def head(self) -> int:
        """Rows ever written."""
        return self._layout.head()

    @property
    def oldest(self) -> int:
        """Position of the oldest row that is still whole."""
        return max(0, self._layout.intent() - self.capacity)

    @property
    def capacity(self) -> int:
        """Rows kept."""
        return self._layout.capacity

    @property
    def oldest_time_ns(self) -> int:
        """Wall clock of the oldest row; 0 for an empty store."""
        block, _ = self.read(self.oldest, 1)
        return int(block.columns["time_ns"][0]) if len(block) else 0

    def read(self, first: int, count: int) -> tuple[Block, int]:
        """Copy up to `count` rows from position `first`, and say how many of them were overwritten.

        The block begins at `first` plus that number and ends at `first + count` or at the head.
        """
        layout = self._layout
        end = min(first + count, layout.head())
        begin = min(max(first, self.oldest), max(end, first))
        length = max(0, end - begin)
        columns = {}
        for name, column in layout.columns.items():
            columns[name] = _copied(column, layout.spans(begin, length))
        # Looked at after the copy: whatever was announced by now may have been overwritten meanwhile.
        whole_from = min(max(begin, layout.intent() - layout.capacity), begin + length)
        if whole_from > begin:
            columns = {name: column[whole_from - begin :] for name, column in columns.items()}
        length -= whole_from - begin
        block = Block(whole_from, columns, lambda: self._records(whole_from, length))
        return block, whole_from - first

    def _records(self, first: int, count: int) -> Records:
        layout = self._layout
        records = _copied(layout.records, layout.spans(first, count))
        overwritten = layout.intent() - layout.capacity - first
        if overwritten > 0:
            records[:overwritten] = np.zeros((), dtype=STORED_DTYPE)
        return records

    def accounting(self) -> list[CpuAccount]:
        """Return the accounts, one a CPU, as of the latest commit."""
        return list(self._latest().accounts)

    def losses(self, since_ns: int = 0) -> list[Loss]:
        """Return the losses noticed at or after `since_ns`, oldest first; some 3,000 are kept."""
        return [loss for loss in self.losses_from(0)[0] if loss.time_ns >= since_ns]

    def losses_from(self, number: int) -> tuple[list[Loss], int]:
        """Return the losses from the one with this number on, and the number of the next: for followers."""
        layout = self._layout
        while True:
            end = self._latest().losses
            begin = min(max(number, end - storefile.LOSSES_KEPT), end)
            rows = layout.losses[np.arange(begin, end) % LOSS_CAPACITY]
            if self._latest().losses == end:
                break
        losses = [
            Loss(int(row["time_ns"]), int(row["position"]), int(row["count"]), int(row["cpu"]))
            for row in rows
        ]
        return losses, end

    def _latest(self) -> Commit:
        for _ in range(1000):
            commit = self._layout.commit()
            if commit is not None:
                return commit
        raise StoreDamagedError(self.path, "no whole commit in it")

    def wait(self, head: int, timeout_s: float) -> bool:
        """Block until there are more than `head` rows, looking every 5 ms; False after `timeout_s`.

        For threads; a coroutine looks at `head` itself.
        """
        for _ in range(max(1, round(timeout_s / _WAIT_S))):
            if self.head > head:
                return True
            time.sleep(_WAIT_S)
        return self.head > head


def _copied(source: Column, spans: Sequence[slice]) -> Column:
    return source[spans[0]].copy() if len(spans) == 1 else np.concatenate([source[span] for span in spans])


def _lock(path: Path) -> int:
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(fd)
        raise StoreBusyError(path) from error
    return fd


def _boot_id() -> bytes:
    text = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii")
    return bytes.fromhex(text.strip().replace("-", ""))


def _open_whole(path: Path, capacity: int, boot_id: bytes) -> tuple[mmap.mmap, Header, Commit] | str | None:
    """Return the mapped file with what it says of itself, None when there is none, or why it is not whole."""
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        size = os.fstat(fd).st_size
        header = storefile.parse_header(os.pread(fd, storefile.PAGE, 0), size)
        if isinstance(header, str):
            return header
        if header.capacity != capacity:
            return f"holds {header.capacity} flows, {capacity} are configured"
        mapping = mmap.mmap(fd, size)
    finally:
        os.close(fd)
    layout = _Layout(mapping, capacity)
    commit = layout.commit()
    if commit is None:
        return "no whole commit in it"
    # The plain head may trail the slot (killed in between), the intent may lead it (killed in a batch).
    if layout.head() > commit.head or layout.intent() > commit.head + capacity:
        return "its head is impossible"
    if commit.boot_id not in (bytes(16), boot_id):
        return "the machine stopped while it was written"
    return mapping, header, commit


def _damaged_files(directory: Path) -> list[tuple[int, Path]]:
    numbered = [(path.name.rpartition("-")[2], path) for path in directory.glob("flows.corrupt-*")]
    return sorted((int(number), path) for number, path in numbered if number.isdecimal())


def _set_aside(path: Path, reason: str) -> None:
    damaged = _damaged_files(path.parent)
    target = path.with_name(f"flows.corrupt-{damaged[-1][0] + 1 if damaged else 1}")
    path.rename(target)
    for _, old in damaged[: len(damaged) - KEPT_DAMAGED + 1]:
        old.unlink(missing_ok=True)
    logger.warning("flow store set aside", extra={"path": str(target), "reason": reason})


def _create(path: Path, capacity: int, now_ns: int, boot_id: bytes) -> None:
    if not storefile.MIN_CAPACITY <= capacity <= storefile.MAX_CAPACITY:
        raise ValueError(f"capacity {capacity} is not in {storefile.MIN_CAPACITY}..{storefile.MAX_CAPACITY}")
    size = storefile.file_size(capacity)
    header = Header(capacity, secrets.randbits(60), now_ns)
    commit = Commit(generation=1, head=0, losses=0, source_id=0, boot_id=boot_id, accounts=())
    # Made beside and renamed: a reader never maps half a header. Blocks are allocated now, because a full
    # disk met later would be a SIGBUS in the middle of a batch.
    new = path.with_suffix(".new")
    fd = os.open(new, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o640)
    try:
        os.posix_fallocate(fd, 0, size)
        os.pwrite(fd, storefile.pack_header(header), 0)
        os.pwrite(fd, storefile.pack_commit(commit), storefile.commit_offset(commit.generation))
    except OSError as error:
        new.unlink(missing_ok=True)
        raise StoreSpaceError(path, size, error.strerror or str(error)) from error
    finally:
        os.close(fd)
    new.rename(path)
