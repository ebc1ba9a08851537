"""Makes a target match a table: updates and deletes each pending row, again where that failed.

The target's operations are idempotent; a failed row is retried with exponential backoff and carries
its error. Adds and updates run before deletes, so that a change never opens a gap. What a target holds beyond
the table is not known here: who fills the table at the start wishes such strangers away.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Hashable
from contextlib import suppress
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

        async def once() -> int:
            return self.reconcile_once()

        await keep_trying(once, self._wake)


async def keep_trying(carry_out: Callable[[], Awaitable[int]], wake: asyncio.Event) -> None:
    """Call `carry_out` when `wake` is set, with backoff while it says that some failed, until cancelled."""
    delay_s = MIN_RETRY_S
    while True:
        wake.clear()
        timeout_s = None
        if await carry_out():
            timeout_s, delay_s = delay_s, min(delay_s * 2, MAX_RETRY_S)
        else:
            delay_s = MIN_RETRY_S
        with suppress(TimeoutError):
            await asyncio.wait_for(wake.wait(), timeout_s)
