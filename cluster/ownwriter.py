"""Makes the store hold what this node wishes: numbers claimed, keys written, keys removed.

What it is not: the wishes (`cluster.own`) nor the connection (`cluster.shared`, which runs it in each
session). A failure ends the session; the next one compares the wishes with the store and goes on from
there.
"""

import asyncio
import logging

from cluster import keys
from cluster.backend import IdentityMoved, IpAddress
from cluster.driver import Delete as DeleteKey
from cluster.driver import Driver, Equals, Operation, Put
from cluster.identities import Allocator
from cluster.own import OwnKeys, Use
from cluster.view import ClusterView

logger = logging.getLogger(__name__)

MAX_OPERATIONS = 100
"""etcd refuses transactions of more than 128 operations."""


class OwnWriter:
    """Writes the keys of one node."""

    def __init__(self, driver: Driver, own: OwnKeys, view: ClusterView, node_ip: IpAddress) -> None:
        """`own` says what is pending; `view` which numbers others have."""
        self._driver = driver
        self._own = own
        self._view = view
        self._node_ip = node_ip
        self.moved: list[IdentityMoved] = []
        """Told of numbers that had to be replaced."""
        self._wake = asyncio.Event()
        self._idle = asyncio.Event()

    def wake(self) -> None:
        """Note that something is wished."""
        self._wake.set()

    async def flush(self, timeout_s: float) -> bool:
        """Wait until everything was written once more; False after `timeout_s`."""
        self._idle.clear()
        self._wake.set()
        return await happened(self._idle, timeout_s)

    async def run(self, session: Allocator) -> None:
        """Write whenever something is wished, until the store fails."""
        while True:
            self._wake.clear()
            await self.write(session)
            if not self._own.pending:
                self._idle.set()
            await self._wake.wait()

    async def write(self, session: Allocator) -> None:
        """Write what is pending once. Raises BackendUnavailableError."""
        for use in list(self._own.uses.values()):
            if not use.claimed:
                await self._claim(session, use)
        to_write = self._own.to_write()
        for start in range(0, len(to_write), MAX_OPERATIONS):
            chunk = to_write[start : start + MAX_OPERATIONS]
            operations: list[Operation] = [Put(key, value, session.lease) for key, value in chunk]
            await self._driver.transact([], operations)
            for key, value in chunk:
                self._own.written(key, value)
        for key, value in self._own.to_remove():
            await self._driver.transact([Equals(key, value)], [DeleteKey(key)])
            self._own.removed(key)

    async def _claim(self, session: Allocator, use: Use) -> None:
        """Make the store agree with a number in use here, or move to another number."""
        if await session.claim(use.labels, use.identity):
            use.claimed = True
            return
        old = use.identity
        reference = keys.reference_key(use.labels, self._node_ip)
        taken = self._own.taken(use.labels, self._view.identities.values()) | {old}
        wanted = self._view.numbers_of(use.labels)
        # Its own reference to the number it must give up would be found again otherwise.
        await self._driver.transact([Equals(reference, str(old))], [DeleteKey(reference)])
        use.identity = await session.allocate(use.labels, wanted, taken)
        use.claimed = True
        self._own.put(reference, str(use.identity))
        self._own.written(reference, str(use.identity))
        if self._own.uses.get(use.labels) is not use:
            self._own.remove(reference)  # released while the store was asked
            return
        logger.error(
            "identity number belongs to other labels and was replaced",
            extra={"labels": use.labels.canonical(), "old": old, "new": use.identity},
        )
        for listener in self.moved:
            listener(use.labels, old, use.identity)


async def happened(event: asyncio.Event, timeout_s: float) -> bool:
    """Wait for `event`; False after `timeout_s`."""
    try:
        await asyncio.wait_for(event.wait(), timeout_s)
    except TimeoutError:
        return False
    return True
