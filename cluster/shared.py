"""The shared state of one node over any store: wishes kept true, everything known kept, events told.

What it is: the one implementation of `cluster.backend.Backend`. A session connects, keeps a lease,
lists the store, writes what this node owns and the store lacks (the same identity numbers, addresses,
then the node), and follows changes until something fails; then the next session begins after a backoff
with jitter. Nothing known is forgotten in between.
What it is not: a store (that is a `cluster.driver.Driver`), nor the rules of what vanished entries mean
(`cluster.view`) or how numbers are agreed on (`cluster.identities`).
Input: the agent's calls. Output: keys in the store, and events to subscriptions.
"""

import asyncio
import contextlib
import logging
import random
import weakref
from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import TypeVar

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
from cluster.driver import Delete as DeleteKey
from cluster.driver import Driver, Equals, Operation, Put, Snapshot
from cluster.errors import BackendUnavailableError
from cluster.identities import Allocator, is_cluster_identity
from cluster.own import OwnKeys, Use
from cluster.subscription import Subscription
from cluster.view import ClusterView
from palomar.clock import Clock, SystemClock
from palomar.identity import NumericIdentity
from palomar.labels import LabelSet
from palomar.tasks import spawn

logger = logging.getLogger(__name__)

E = TypeVar("E", IdentityEntry, IpEntry, NodeEntry)
AnySubscription = Subscription[IdentityEntry] | Subscription[IpEntry] | Subscription[NodeEntry]

MIN_BACKOFF_S = 0.1
MAX_BACKOFF_S = 5.0
ALLOCATE_WAIT_S = 1.0
"""How long an allocation waits for a connection that is being made."""
MAX_OPERATIONS = 100
"""etcd refuses transactions of more than 128 operations."""


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
        self._subscriptions: dict[keys.Kind, weakref.WeakSet[AnySubscription]] = {}
        self._moved: list[IdentityMoved] = []
        self._allocating: dict[LabelSet, asyncio.Lock] = {}
        self._write = asyncio.Event()
        self._idle = asyncio.Event()
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
        for subscription in self._all_subscriptions():
            subscription.close()

    async def wait_synced(self, timeout_s: float) -> bool:
        """Wait for the first complete listing."""
        return await _happened(self._synced, timeout_s)

    async def flush(self, timeout_s: float) -> bool:
        """Wait until nothing is pending."""
        if self._session is not None and not self._own.pending:
            return True
        self._idle.clear()
        self._write.set()
        return await _happened(self._idle, timeout_s)

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
                await _happened(self._online, ALLOCATE_WAIT_S)
            session, claimed = self._session, False
            try:
                if session is None:
                    raise BackendUnavailableError(self._driver.name, "allocate identity", self._message)
                identity = await session.allocate(labels, wanted, self._taken(labels))
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
            self._write.set()
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
            self._write.set()

    def upsert_ip(self, entry: IpEntry) -> None:
        """Publish an address of this node."""
        self._own.put(keys.ip_key(entry.network), keys.encode_ip(entry))
        self._write.set()

    def delete_ip(self, network: IpNetwork) -> None:
        """Withdraw an address of this node."""
        self._own.remove(keys.ip_key(network))
        self._write.set()

    def publish_node(self, entry: NodeEntry) -> None:
        """Publish this node."""
        self._own.put(keys.node_key(entry.cluster, entry.name), keys.encode_node(entry))
        self._write.set()

    def watch_identities(self) -> AsyncIterator[Event[IdentityEntry]]:
        """Follow identities."""
        return self._subscribe(keys.Kind.IDENTITY, self._view.identities)

    def watch_ips(self) -> AsyncIterator[Event[IpEntry]]:
        """Follow addresses."""
        return self._subscribe(keys.Kind.IP, self._view.ips)

    def watch_nodes(self) -> AsyncIterator[Event[NodeEntry]]:
        """Follow nodes."""
        return self._subscribe(keys.Kind.NODE, self._view.nodes)

    def on_identity_moved(self, listener: IdentityMoved) -> None:
        """Hear of numbers that had to be replaced."""
        self._moved.append(listener)

    def identities(self) -> dict[NumericIdentity, IdentityEntry]:
        """Every known identity, and those used here that the store has not seen yet."""
        own = {use.identity: IdentityEntry(use.identity, use.labels) for use in self._uses()}
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
        await self._write_own(session)
        self._connected(session, touched)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._keep_alive(lease))
            tasks.create_task(self._follow(snapshot))
            tasks.create_task(self._write_loop(session))
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
                    self._write.set()
            self._tell(touched)
        raise BackendUnavailableError(self._driver.name, "watch", "the stream ended")

    async def _expire_loop(self) -> None:
        period_s = min(1.0, max(0.05, self._config.grace_s / 4))
        while True:
            await asyncio.sleep(period_s)
            self._tell(self._view.expire(self._now_ns()))

    async def _write_loop(self, session: Allocator) -> None:
        while True:
            self._write.clear()
            await self._write_own(session)
            if not self._own.pending:
                self._idle.set()
            await self._write.wait()

    async def _write_own(self, session: Allocator) -> None:
        for use in self._uses():
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
        reference = keys.reference_key(use.labels, self._config.node_ip)
        taken = self._taken(use.labels) | {old}
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
        for listener in self._moved:
            listener(use.labels, old, use.identity)

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
        self._tell(touched)
        if not self._synced.is_set():
            self._synced.set()
            for subscription in self._all_subscriptions():
                subscription.sync()

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
        taken = self._taken(labels)
        for number in wanted:
            if is_cluster_identity(number) and number not in taken:
                return NumericIdentity(number)
        return None

    def _taken(self, labels: LabelSet) -> set[NumericIdentity]:
        """Numbers that are known to stand for other labels."""
        known = {e.identity for e in self._view.identities.values() if e.labels != labels}
        return known | {use.identity for use in self._uses() if use.labels != labels}

    def _uses(self) -> list[Use]:
        return list(self._own.uses.values())

    def _now_ns(self) -> int:
        return self._clock.monotonic_ns()

    def _tell(self, touched: Iterable[str]) -> None:
        for key in touched:
            for subscription in self._subscriptions.get(keys.kind_of(key), ()):
                subscription.touch(key)

    def _subscribe(self, kind: keys.Kind, table: Mapping[str, E]) -> Subscription[E]:
        subscription = Subscription(table.get, list(table))
        if self._synced.is_set():
            subscription.sync()
        # Weak: a consumer that ended its loop needs no further call to be forgotten.
        self._subscriptions.setdefault(kind, weakref.WeakSet()).add(subscription)
        return subscription

    def _all_subscriptions(self) -> list[AnySubscription]:
        return [s for several in self._subscriptions.values() for s in several]


async def _happened(event: asyncio.Event, timeout_s: float) -> bool:
    try:
        await asyncio.wait_for(event.wait(), timeout_s)
    except TimeoutError:
        return False
    return True


def _first_message(group: BaseExceptionGroup[BaseException]) -> str:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    if isinstance(error, BackendUnavailableError):
        return f"{error.operation}: {error.reason}"
    return str(error) or type(error).__name__
