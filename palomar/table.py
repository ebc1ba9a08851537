"""Desired state in a table: rows by key, each with its own status, watched by a reconciler.

Not thread-safe: one event loop owns a table. Rows are values; `put` marks the row pending unless it
is equal to what is there.
"""

from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass, replace
from enum import Enum
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class RowState(Enum):
    """Where a row stands between wish and kernel."""

    PENDING = "pending"
    DONE = "done"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class Row(Generic[K, V]):
    """A wish and how far it got."""

    key: K
    value: V
    state: RowState = RowState.PENDING
    error: str = ""
    attempts: int = 0
    deleted: bool = False


class Table(Generic[K, V]):
    """Rows by key with change notification."""

    def __init__(self, name: str) -> None:
        """Name appears in logs, status and metrics."""
        self.name = name
        self.revision = 0
        self._rows: dict[K, Row[K, V]] = {}
        self._watchers: list[Callable[[], None]] = []

    def watch(self, changed: Callable[[], None]) -> None:
        """Call `changed` after every put or delete."""
        self._watchers.append(changed)

    def put(self, key: K, value: V) -> bool:
        """Wish for `value` under `key`; False where that is already the wish."""
        row = self._rows.get(key)
        if row is not None and not row.deleted and row.value == value:
            return False
        self._rows[key] = Row(key, value)
        self._changed()
        return True

    def delete(self, key: K) -> bool:
        """Wish the row away; it leaves the table when the reconciler has removed it."""
        row = self._rows.get(key)
        if row is None or row.deleted:
            return False
        self._rows[key] = replace(row, deleted=True, state=RowState.PENDING, error="", attempts=0)
        self._changed()
        return True

    def get(self, key: K) -> V | None:
        """Return the wished value; None where there is none."""
        row = self._rows.get(key)
        return None if row is None or row.deleted else row.value

    def rows(self) -> Iterator[Row[K, V]]:
        """Every row, also those on their way out."""
        return iter(list(self._rows.values()))

    def pending(self) -> list[Row[K, V]]:
        """Rows that the reconciler still has to carry out or retry."""
        return [row for row in self._rows.values() if row.state is not RowState.DONE]

    def mark_done(self, row: Row[K, V]) -> None:
        """Record that `row` is in the kernel, unless it changed meanwhile."""
        if self._rows.get(row.key) is not row:
            return
        if row.deleted:
            del self._rows[row.key]
        else:
            self._rows[row.key] = replace(row, state=RowState.DONE, error="", attempts=0)

    def mark_error(self, row: Row[K, V], error: str) -> None:
        """Record why `row` is not in the kernel, unless it changed meanwhile."""
        if self._rows.get(row.key) is row:
            self._rows[row.key] = replace(row, state=RowState.ERROR, error=error, attempts=row.attempts + 1)

    def _changed(self) -> None:
        self.revision += 1
        for changed in self._watchers:
            changed()
