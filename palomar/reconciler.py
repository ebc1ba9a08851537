"""Makes a target match a table: update and delete each pending row, prune strangers at the start.

The target's operations are idempotent; a failed row is retried with exponential backoff and carries
its error. Adds and updates run before deletes, so that a change never opens a gap.
"""

import asyncio
import logging
from collections.abc import Hashable
from typing import Generic, Protocol, TypeVar

from palomar.errors import PalomarError
from palomar.table import Table

logger = logging.getLogger(__name__)

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")
Kc = TypeVar("Kc", bound=Hashable, contravariant=True)
Vc = TypeVar("Vc", contravariant=True)

MIN_RETRY_S = 0.1
MAX_RETRY_S = 30.0


class Target(Protocol[Kc, Vc]):
    """What a reconciler writes to. Every operation is idempotent and raises PalomarError."""

    def update(self, key: Kc, value: Vc) -> None:
        """Make `key` be `value`."""
        ...

    def delete(self, key: Kc) -> None:
        """Make `key` be absent; absent already is no error."""
        ...


class Reconciler(Generic[K, V]):
    """Carries a table's wishes out."""

    def __init__(self, table: Table[K, V], target: Target[K, V]) -> None:
        """Watch `table`; nothing is written before `run` or `reconcile_once`."""
        self.table = table
        self.target = target
        self._wake = asyncio.Event()
        table.watch(self._wake.set)

    def reconcile_once(self) -> int:
        """Try every pending row once; return how many failed."""
        failed = 0
        for row in sorted(self.table.pending(), key=lambda row: row.deleted):
            try:
                if row.deleted:
                    self.target.delete(row.key)
                else:
                    self.target.update(row.key, row.value)
            except PalomarError as error:
                failed += 1
                self.table.mark_error(row, str(error))
                logger.warning(
                    "reconcile failed",
                    extra={"table": self.table.name, "key": str(row.key), "error": str(error)},
                )
            else:
                self.table.mark_done(row)
        return failed

    async def run(self) -> None:
        """Reconcile on every change and retry failures with backoff, until cancelled."""
        delay_s = MIN_RETRY_S
        while True:
            self._wake.clear()
            if self.reconcile_once():
                timeout_s = delay_s
                delay_s = min(delay_s * 2, MAX_RETRY_S)
            else:
                timeout_s, delay_s = None, MIN_RETRY_S
            try:
                await asyncio.wait_for(self._wake.wait(), timeout_s)
            except TimeoutError:
                continue
