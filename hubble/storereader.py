"""Reading the flow store while its writer writes: whole rows are copied out, torn ones never.

Input: the file alone, mapped read-only; output: blocks of rows, and how many of those asked for are gone.
Following a store as it grows is `hubble.storefollower`.
"""

import mmap
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Self

import numpy as np

from hubble import storefile
from hubble.accounting import CpuAccount
from hubble.errors import StoreDamagedError, StoreMissingError
from hubble.storefile import LOSS_CAPACITY, RING_NAME, Commit, Header
from hubble.storemapping import Column, Loss, Records, StoreMapping

SCANNED_ROWS = 4096
"""Blocks of more rows are there to be looked through: a field is copied alone, a tenth of its record's cost.

Smaller ones are there to be built, which takes most fields.
"""


class Block:
    """Rows copied out of the store; the copy does not change any more."""

    def __init__(self, first: int, columns: dict[str, Column], fetch: Callable[[str | None], Column]) -> None:
        """`fetch` copies one field of the records, or the whole records for None."""
        self.first = first
        """Position of row 0."""
        self.columns = columns
        """The hot columns."""
        self._fetch = fetch
        self._records: Records | None = None
        self._fields: dict[str, Column] = {}

    def __len__(self) -> int:
        return len(self.columns["type"])

    @property
    def records(self) -> Records:
        """The whole records (STORED_DTYPE), copied when first asked for.

        A row overwritten between `read` and now is all zeros: its `version` is 0.
        """
        if self._records is None:
            self._records = self._fetch(None)
        return self._records

    def column(self, name: str) -> Column:
        """Return a field by its name, one value a row; a hot one is contiguous and cheap."""
        hot = self.columns.get(name)
        if hot is not None:
            return hot
        if self._records is not None or len(self) <= SCANNED_ROWS:
            return self.records[name]
        if name not in self._fields:
            self._fields[name] = self._fetch(name)
        return self._fields[name]


class FlowStoreReader:
    """Reads while the writer writes. Nothing here blocks the writer, and no torn row gets out."""

    def __init__(self, path: Path, layout: StoreMapping, header: Header, inode: int) -> None:
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
        return cls(path, StoreMapping(mapping, header.capacity), header, status.st_ino)

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
        block = Block(whole_from, columns, lambda field: self._cold(whole_from, length, field))
        return block, whole_from - first

    def _cold(self, first: int, count: int, field: str | None) -> Column:
        """Copy a field of the records, or all of them; zeros where a row was overwritten meanwhile."""
        layout = self._layout
        source = layout.records if field is None else layout.records[field]
        copy = _copied(source, layout.spans(first, count))
        overwritten = layout.intent() - layout.capacity - first
        if overwritten > 0:
            copy[:overwritten] = np.zeros((), dtype=copy.dtype)
        return copy

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


def _copied(source: Column, spans: Sequence[slice]) -> Column:
    return source[spans[0]].copy() if len(spans) == 1 else np.concatenate([source[span] for span in spans])
