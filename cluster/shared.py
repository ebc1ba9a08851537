"""The shared state of one node over any store: wishes kept true, everything known kept, events told.

What it is: the one implementation of `cluster.backend.Backend`. A session connects, keeps a lease,
lists the store, writes what this node owns and the store lacks (the same identity numbers, addresses,
then the node), and follows changes until something fails; then the next session begins after a backoff
with jitter. Nothing known is forgotten in between.
What it is not: a store (that is a `cluster.driver.Driver`), nor the rules of what vanished entries mean
(`cluster.view`), how this node's keys get into the store (`cluster.ownwriter`) or how numbers are agreed
on (`cluster.identities`).
Input: the agent's calls. Output: keys in the store, and events to subscriptions.
"""

import asyncio
import contextlib
import logging
import random
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address

from cluster import keys
from cluster.backend import (
    BackendState,
    BackendStatus,
    Event,
    IdentityEntry,
    IdentityMoved,
    IpEntry,
    IpNetwork,
    NodeEntry,
)
from cluster.driver import Driver, Snapshot
from cluster.errors import BackendUnavailableError
from cluster.identities import Allocator, is_cluster_identity
from cluster.own import OwnKeys, Use
from cluster.ownwriter import OwnWriter, happened
from cluster.subscription import Subscriptions
from cluster.view import ClusterView
from palomar.clock import Clock, SystemClock
from palomar.identity import NumericIdentity
from palomar.labels import LabelSet
from palomar.tasks import spawn

logger = logging.getLogger(__name__)

MIN_BACKOFF_S = 0.1
MAX_BACKOFF_S = 5.0
ALLOCATE_WAIT_S = 1.0
"""How long an allocation waits for a connection that is being made."""


@dataclass(frozen=True, slots=True)
class SharedStateConfig:
    """Who this node is to the others, and how patient it is."""

    node_name: str
    node_ip: IPv4Address
    lease_ttl_s: int = 15
    """How long the node's keys outlive it."""
    grace_s: float = 300.0
    """How long entries of a node that vanished are kept."""


class SharedState:
    """See `cluster.backend.Backend` for what each method promises."""

    def __init__(
        self,
        driver: Driver,
        config: SharedStateConfig,
        clock: Clock | None = None,
        rng: random.Random | None = None,
    ) -> None:
        """Keep the store's driver; nothing happens before `start`."""
        self._driver = driver
        self._config = config
        self._clock = clock or SystemClock()
        self._rng = rng or random.SystemRandom()
        self._view = ClusterView(int(config.grace_s * 1e9))
        self._own = OwnKeys()
        self._writer = OwnWriter(driver, self._own, self._view, config.node_ip)
        self._subscriptions = Subscriptions()
        self._allocating: dict[LabelSet, asyncio.Lock] = {}
        self._synced = asyncio.Event()
        self._online = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._session: Allocator | None = None
        self._lease = 0
        self._revision = 0
        self._state = BackendState.CONNECTING
        self._message = f"{driver.name}: connecting"
        self._failures = 0

    async def start(self) -> None:
        """Begin to connect in the background."""
        if self._task is None:
            self._task = spawn(self._run(), f"cluster {self._driver.name}")

    async def stop(self, *, withdraw: bool = False) -> None:
        """Disconnect; with `withdraw` end the lease and with it this node's keys."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
            self._task = None
        if withdraw and self._lease:
            try:
                await self._driver.revoke_lease(self._lease)
            except BackendUnavailableError as error:
                logger.warning("lease left to expire", extra={"error": str(error)})
            self._lease = 0
        await self._driver.close()
        self._session = None
        self._online.clear()
        self._state = BackendState.STOPPED
        self._message = f"{self._driver.name}: stopped"
        self._subscriptions.close()

    async def wait_synced(self, timeout_s: float) -> bool:
        """Wait for the first complete listing."""
        return await happened(self._synced, timeout_s)

    async def flush(self, timeout_s: float) -> bool:
        """Wait until nothing is pending."""
        if self._session is not None and not self._own.pending:
            return True
        return await self._writer.flush(timeout_s)

    async def allocate_identity(self, labels: LabelSet, preferred: int | None = None) -> NumericIdentity:
        """Return the number of `labels` and count one use."""
        async with self._allocating.setdefault(labels, asyncio.Lock()):
            use = self._own.uses.get(labels)
            if use is not None:
                use.count += 1
                return use.identity
            wanted = [] if preferred is None else [preferred]
            wanted += self._view.numbers_of(labels)
            if not self._failures or self._known_without_store(labels, wanted) is None:
                await happened(self._online, ALLOCATE_WAIT_S)
            session, claimed = self._session, False
            try:
                if session is None:
                    raise BackendUnavailableError(self._driver.name, "allocate identity", self._message)
                identity = await session.allocate(
                    labels, wanted, self._own.taken(labels, self._view.identities.values())
                )
                claimed = session is self._session
            except BackendUnavailableError:
                offline = self._known_without_store(labels, wanted)
                if offline is None:
                    raise
                identity = offline
            self._own.uses[labels] = Use(labels, identity, claimed=claimed)
            reference = keys.reference_key(labels, self._config.node_ip)
            self._own.put(reference, str(identity))
            if claimed:
                self._own.written(reference, str(identity))
            self._writer.wake()
            return identity

    def release_identity(self, labels: LabelSet) -> None:
        """Count one use less."""
        use = self._own.uses.get(labels)
        if use is None:
            return
        use.count -= 1
        if use.count == 0:
            del self._own.uses[labels]
            self._allocating.pop(labels, None)
            self._own.remove(keys.reference_key(labels, self._config.node_ip))
            self._writer.wake()

    def upsert_ip(self, entry: IpEntry) -> None:
        """Publish an address of this node."""
        self._own.put(keys.ip_key(entry.network), keys.encode_ip(entry))
        self._writer.wake()

    def delete_ip(self, network: IpNetwork) -> None:
        """Withdraw an address of this node."""
        self._own.remove(keys.ip_key(network))
        self._writer.wake()

    def publish_node(self, entry: NodeEntry) -> None:
        """Publish this node."""
        self._own.put(keys.node_key(entry.cluster, entry.name), keys.encode_node(entry))
        self._writer.wake()

    def watch_identities(self) -> AsyncIterator[Event[IdentityEntry]]:
        """Follow identities."""
        return self._subscriptions.add(keys.Kind.IDENTITY, self._view.identities)

    def watch_ips(self) -> AsyncIterator[Event[IpEntry]]:
        """Follow addresses."""
        return self._subscriptions.add(keys.Kind.IP, self._view.ips)

    def watch_nodes(self) -> AsyncIterator[Event[NodeEntry]]:
        """Follow nodes."""
        return self._subscriptions.add(keys.Kind.NODE, self._view.nodes)

    def on_identity_moved(self, listener: IdentityMoved) -> None:
        """Hear of numbers that had to be replaced."""
        self._writer.moved.append(listener)

    def identities(self) -> dict[NumericIdentity, IdentityEntry]:
        """Every known identity, and those used here that the store has not seen yet."""
        own = {use.identity: IdentityEntry(use.identity, use.labels) for use in self._own.uses.values()}
        return own | {entry.identity: entry for entry in self._view.identities.values()}

    def ips(self) -> dict[IpNetwork, IpEntry]:
        """Every known address."""
        return {entry.network: entry for entry in self._view.ips.values()}

    def nodes(self) -> dict[str, NodeEntry]:
        """Every known node."""
        return {entry.full_name: entry for entry in self._view.nodes.values()}

    def status(self) -> BackendStatus:
        """Say how the store is doing."""
        return BackendStatus(
            backend=self._driver.name,
            state=self._state,
            message=self._message,
            synced=self._synced.is_set(),
            revision=self._revision,
            lease=self._lease,
            pending=self._own.pending,
            identities=len(self._view.identities),
            ips=len(self._view.ips),
            nodes=len(self._view.nodes),
            vanished=self._view.vanished,
            malformed=len(self._view.malformed),
            failures=self._failures,
        )

    # --- sessions

    async def _run(self) -> None:
        while True:
            reason = "ended"
            try:
                await self._run_session()
            except* BackendUnavailableError as group:
                reason = _first_message(group)
            except* Exception as group:
                reason = f"internal error: {_first_message(group)}"
                logger.exception("session failed")
            self._disconnected(reason)
            await self._driver.close()
            await asyncio.sleep(self._backoff_s())

    async def _run_session(self) -> None:
        await self._driver.connect()
        lease = await self._renew_lease()
        snapshot = await self._driver.snapshot(keys.STATE_PREFIX)
        session = Allocator(self._driver, self._config.node_ip, lease, self._rng)
        self._own.compare(snapshot.values, lease)
        touched = self._view.merge(snapshot.values, self._own.keys(), self._now_ns())
        self._revision = snapshot.revision
        await self._writer.write(session)
        self._connected(session, touched)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._keep_alive(lease))
            tasks.create_task(self._follow(snapshot))
            tasks.create_task(self._writer.run(session))
            tasks.create_task(self._expire_loop())

    async def _renew_lease(self) -> int:
        if not self._lease or not await self._driver.keep_alive(self._lease):
            self._lease = 0
            self._lease = await self._driver.grant_lease(self._config.lease_ttl_s)
        return self._lease

    async def _keep_alive(self, lease: int) -> None:
        while True:
            await asyncio.sleep(self._config.lease_ttl_s / 3)
            if not await self._driver.keep_alive(lease):
                raise BackendUnavailableError(self._driver.name, "keep lease alive", "it ended")

    async def _follow(self, since: Snapshot) -> None:
        async for batch in self._driver.watch(keys.STATE_PREFIX, since):
            own = self._own.keys()
            touched = self._view.apply(batch, own, self._now_ns())
            self._revision = batch.revision
            lost = [change.key for change in batch.changes if change.value is None]
            for key in lost:
                if key in own:
                    self._own.lost(key)
                    self._writer.wake()
            self._subscriptions.tell(touched)
        raise BackendUnavailableError(self._driver.name, "watch", "the stream ended")

    async def _expire_loop(self) -> None:
        period_s = min(1.0, max(0.05, self._config.grace_s / 4))
        while True:
            await asyncio.sleep(period_s)
            self._subscriptions.tell(self._view.expire(self._now_ns()))

    # --- helpers

    def _connected(self, session: Allocator, touched: Iterable[str]) -> None:
        self._session = session
        self._online.set()
        self._state = BackendState.OK
        self._failures = 0
        self._message = f"{self._driver.name}: connected"
        logger.info(
            "cluster store connected",
            extra={"backend": self._driver.name, "revision": self._revision, "lease": self._lease},
        )
        self._subscriptions.tell(touched)
        if not self._synced.is_set():
            self._synced.set()
            self._subscriptions.sync()

    def _disconnected(self, reason: str) -> None:
        if self._state is not BackendState.CONNECTING:
            self._state = BackendState.DISCONNECTED
        log = logger.warning if self._failures == 0 else logger.debug
        self._session = None
        self._online.clear()
        self._failures += 1
        self._message = f"no connection after {self._failures} attempts: {reason}"
        log("cluster store away", extra={"backend": self._driver.name, "error": reason})

    def _backoff_s(self) -> float:
        longest_s = min(MAX_BACKOFF_S, MIN_BACKOFF_S * (1 << min(self._failures, 10)))
        return longest_s * self._rng.uniform(0.5, 1.0)

    def _known_without_store(self, labels: LabelSet, wanted: Iterable[int]) -> NumericIdentity | None:
        taken = self._own.taken(labels, self._view.identities.values())
        for number in wanted:
            if is_cluster_identity(number) and number not in taken:
                return NumericIdentity(number)
        return None

    def _now_ns(self) -> int:
        return self._clock.monotonic_ns()


def _first_message(group: BaseExceptionGroup[BaseException]) -> str:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    if isinstance(error, BackendUnavailableError):
        return f"{error.operation}: {error.reason}"
    return str(error) or type(error).__name__
