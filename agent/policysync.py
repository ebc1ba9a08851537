"""A policy's last step: every endpoint's resolved policy into its pinned map, kept there through all changes.

What it is: the wishes (a table: endpoint to entries), their reconciliation, and the order in which identities
of CIDRs, the ipcache and the maps change. What it is not: resolution (`agent.policy.engine`, pure) nor where
policies come from (`agent.policyset`). Input: endpoints, policies, identity changes. Output: policy maps
through `PolicyMapWriter` in the datapath thread; cookies and default denies to the ingest link.

No change opens a gap: a new CIDR identity gets into the maps of those that may reach the world before any
address has it, and leaves them only after none has it any more. Until the shared state was read once, entries
of identities that are not known here are left alone: the agent before knew them.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Network
from typing import Any, Protocol

from agent.datapaththread import DatapathThread
from agent.identity.cache import IdentityCache, IdentityChange
from agent.identity.cidr import CidrIdentities, cidr_labels
from agent.policy.api import Policy, PolicyName
from agent.policy.cookie import Cause, CookieTable, Reason
from agent.policy.engine import PolicyEngine, PolicyUpdate
from agent.policy.resolve import EndpointPolicy
from agent.policymaps import Entries, PolicyMapWriter
from datapath.abi.policy import PolicyEntry, PolicyKey
from palomar.errors import TransientError
from palomar.identity import EndpointId, NumericIdentity
from palomar.labels import LabelSet
from palomar.reconciler import keep_trying
from palomar.table import Row, RowState, Table

logger = logging.getLogger(__name__)

SETTLE_TIMEOUT_S = 2.0
SETTLE_POLL_S = 0.001


class PolicyNotWrittenError(TransientError):
    """An endpoint's policy map could not be written; it is retried."""

    def __init__(self, endpoint_id: int, reason: str) -> None:
        """Name the endpoint and why."""
        self.endpoint_id = endpoint_id
        super().__init__(f"policy map of endpoint {endpoint_id}: {reason}")


class Prefixes(Protocol):
    """Where the prefixes that policies name become addresses with identities (the ipcache)."""

    def set_cidrs(self, cidrs: Mapping[IPv4Network, NumericIdentity]) -> None:
        """Make the prefixes be exactly these."""
        ...

    @property
    def settled(self) -> bool:
        """Whether every wish made so far was tried."""
        ...


class PolicyListener(Protocol):
    """Who is told which rules stand behind a cookie."""

    def policy(self, cookie: int, policies: list[dict[str, Any]], *, deny: bool) -> None:
        """Say which rules a cookie stands for."""
        ...

    def forget_policy(self, cookie: int) -> None:
        """Say that a cookie is not in use any more."""
        ...

    def default_deny(self, endpoint_id: int, ingress: int, egress: int) -> None:
        """Say which cookies stand for an endpoint's default denies."""
        ...


@dataclass(frozen=True, slots=True)
class PolicyWish:
    """What an endpoint's map shall hold."""

    entries: Entries
    generation: int
    """Grows when all maps are to be looked at again."""


@dataclass(slots=True)
class SyncCounts:
    """What metrics are made of."""

    regenerations_ok: int = 0
    regenerations_failed: int = 0
    changes_ok: int = 0
    changes_failed: int = 0
    entries_written: int = 0
    entries_removed: int = 0


Regenerated = Callable[[EndpointId, str], None]
"""Called with the endpoint and the error (empty: none) after its map was written."""


class PolicySync:
    """See the module's text. One event loop owns it."""

    def __init__(
        self,
        engine: PolicyEngine,
        identities: IdentityCache,
        cidrs: CidrIdentities,
        writer: PolicyMapWriter,
        thread: DatapathThread,
        prefixes: Prefixes,
        listener: PolicyListener,
    ) -> None:
        """`engine` must know the identities of `identities`; it hears of their changes from here."""
        self.engine = engine
        self.table: Table[EndpointId, PolicyWish] = Table("policy")
        self.counts = SyncCounts()
        self.regenerated: list[Regenerated] = []
        self.cidrs_changed: list[Callable[[], None]] = []
        """Called when `cidrs.snapshot()` is another, for whoever keeps it in a file."""
        self.store_synced = False
        """Whether the shared state was read once: then unknown identities are gone, not just unknown."""
        self._identities = identities
        self._cidrs = cidrs
        self._writer = writer
        self._thread = thread
        self._prefixes = prefixes
        self._listener = listener
        self._cookies = CookieTable()
        self._held: set[IPv4Network] = set()
        self._generation = 0
        self._changing = asyncio.Lock()
        self._writing = asyncio.Lock()
        self._wake = asyncio.Event()
        self.table.watch(self._wake.set)
        identities.listen(self._identities_changed)

    # --- endpoints

    async def attach(self, endpoint_id: EndpointId, labels: LabelSet) -> None:
        """Resolve the endpoint's policy and write its map; in the kernel on return.

        Raises PolicyNotWrittenError; the wish stays and is retried.
        """
        self._wish({endpoint_id: self.engine.set_endpoint(endpoint_id, labels)})
        await self.carry_out()
        row = next((row for row in self.table.rows() if row.key == endpoint_id), None)
        if row is not None and row.state is RowState.ERROR:
            raise PolicyNotWrittenError(endpoint_id, row.error)

    def detach(self, endpoint_id: EndpointId) -> None:
        """Forget the endpoint; its map goes with its devices. Idempotent."""
        self.engine.remove_endpoint(endpoint_id)
        self._retire(self._cookies.remove(endpoint_id).retired)
        self._listener.default_deny(endpoint_id, 0, 0)
        self.table.delete(endpoint_id)

    def policy_of(self, endpoint_id: EndpointId) -> EndpointPolicy | None:
        """Return the endpoint's resolved policy; None for one that is not attached."""
        try:
            return self.engine.policy(endpoint_id)
        except KeyError:
            return None

    def row(self, endpoint_id: EndpointId) -> Row[EndpointId, PolicyWish] | None:
        """Return how far the endpoint's wish got. O(endpoints)."""
        return next((row for row in self.table.rows() if row.key == endpoint_id), None)

    # --- policies

    async def change_policies(
        self, upserts: Iterable[Policy] = (), deletes: Iterable[PolicyName] = ()
    ) -> PolicyUpdate:
        """Change the policies in force as one revision; in the kernel on return, but for maps in retry."""
        news = tuple(upserts)
        async with self._changing:
            coming = {
                cidr
                for policy in news
                for spec in policy.specs
                for section in spec.sections
                for cidr in section.cidrs
            } - self._held
            if coming:
                self._hold(coming)
                await self.carry_out()
                await self._tell_prefixes()
            update = self.engine.change_policies(news, deletes)
            self._wish(update.changed)
            failed = await self.carry_out()
            going = self._held - self.engine.cidrs()
            if going:
                self._held -= going
                await self._tell_prefixes()
                self._let_go(going)
                await self.carry_out()
            if update.names:
                self.counts.changes_ok += not failed
                self.counts.changes_failed += bool(failed)
            return update

    def forget_old_cidrs(self) -> None:
        """Free the CIDR identities of the last agent that no policy took into use again."""
        stale = self._cidrs.forget_snapshot()
        if stale:
            self._notify_cidrs()

    def _hold(self, coming: Iterable[IPv4Network]) -> None:
        added: dict[int, LabelSet] = {}
        for network in sorted(coming):
            identity, _ = self._cidrs.acquire(network)
            self._held.add(network)
            added[identity] = cidr_labels(network)
        self._identities.update(added)
        self._notify_cidrs()

    def _let_go(self, going: Iterable[IPv4Network]) -> None:
        released = [self._cidrs.release(network) for network in sorted(going)]
        self._identities.update({}, [identity for identity in released if identity is not None])
        self._notify_cidrs()

    def _notify_cidrs(self) -> None:
        for changed in self.cidrs_changed:
            changed()

    async def _tell_prefixes(self) -> None:
        numbers = {network: self._cidrs.get(network) for network in self._held}
        self._prefixes.set_cidrs(
            {network: number for network, number in numbers.items() if number is not None}
        )
        try:
            async with asyncio.timeout(SETTLE_TIMEOUT_S):
                while not self._prefixes.settled:  # noqa: ASYNC110  # a table has no event for "tried"
                    await asyncio.sleep(SETTLE_POLL_S)
        except TimeoutError:
            logger.warning("ipcache is slow to take over the prefixes of policies")

    # --- identities

    def _identities_changed(self, change: IdentityChange) -> None:
        update = self.engine.update_identities(
            {int(number): labels for number, labels in change.added.items()},
            [int(number) for number in change.removed],
        )
        self._wish(update.changed)

    async def set_store_synced(self) -> None:
        """Say that the shared state was read completely: what is unknown now is gone; prune the maps."""
        if self.store_synced:
            return
        self.store_synced = True
        self._generation += 1
        for row in self.table.rows():
            if not row.deleted:
                self.table.put(row.key, PolicyWish(row.value.entries, self._generation))
        await self.carry_out()

    # --- wishes and maps

    def _wish(self, changed: Mapping[EndpointId, EndpointPolicy]) -> None:
        converted: dict[int, Entries] = {}
        for endpoint_id, policy in changed.items():
            cookies = self._cookies.set_policy(endpoint_id, policy)
            for cookie, reason in cookies.published.items():
                self._listener.policy(cookie, policy_refs(reason), deny=reason.cause is not Cause.ALLOW)
            self._retire(cookies.retired)
            if id(policy) not in converted:
                converted[id(policy)] = self._entries(policy)
            self._listener.default_deny(
                endpoint_id,
                self._cookies.of_default_deny(policy, egress=False),
                self._cookies.of_default_deny(policy, egress=True),
            )
            self.table.put(endpoint_id, PolicyWish(converted[id(policy)], self._generation))

    def _entries(self, policy: EndpointPolicy) -> Entries:
        values = {
            entry: PolicyEntry(deny=entry.deny, cookie=self._cookies.of_entry(entry))
            for entry in policy.distinct
        }
        return {PolicyKey(*key): values[entry] for key, entry in policy.entries.items()}

    def _retire(self, cookies: Iterable[int]) -> None:
        for cookie in cookies:
            self._listener.forget_policy(cookie)

    async def carry_out(self) -> int:
        """Write every pending wish now; return how many failed. All in one call of the datapath thread."""
        async with self._writing:
            rows = self.table.pending()
            if not rows:
                return 0
            for row in rows:
                if row.deleted:
                    await self._thread.run(self._writer.forget, row.key)
                    self.table.mark_done(row)
            live = [row for row in rows if not row.deleted]
            judgeable = None if self.store_synced else frozenset(map(int, self._identities.as_mapping()))
            outcomes = await self._thread.run(
                self._writer.apply, [(row.key, row.value.entries) for row in live], judgeable
            )
        failed = 0
        for row, outcome in zip(live, outcomes, strict=True):
            if outcome.error:
                failed += 1
                self.table.mark_error(row, outcome.error)
                logger.warning(
                    "policy map not written", extra={"endpoint_id": row.key, "error": outcome.error}
                )
            else:
                self.table.mark_done(row)
            self.counts.regenerations_ok += not outcome.error
            self.counts.regenerations_failed += bool(outcome.error)
            self.counts.entries_written += outcome.written
            self.counts.entries_removed += outcome.removed
            for regenerated in self.regenerated:
                regenerated(row.key, outcome.error)
        return failed

    async def run(self) -> None:
        """Carry out wishes as they come and retry failures with backoff, until cancelled."""
        await keep_trying(self.carry_out, self._wake)


def policy_refs(reason: Reason) -> list[dict[str, Any]]:
    """Return the rules of a reason as the ingest is told of them, ordered."""
    refs = sorted(reason.rules, key=lambda ref: (ref.policy, ref.path))
    return [
        {
            "name": ref.policy.name,
            "namespace": ref.policy.namespace,
            "kind": str(ref.kind),
            "labels": list(ref.labels),
            "revision": ref.revision,
            "rule": ref.path,
        }
        for ref in refs
    ]
