"""What this node knows of the cluster: the entries of the store, and those it keeps though they vanished.

Pure: snapshots and change batches in (from a driver, by `cluster.shared`), names of touched keys out.
The rule that keeps traffic flowing: a foreign entry that is missing from the store is removed at once
only while its node is there to have removed it. If the node's own key is missing too (its lease ended,
or the store came back empty) the entry is kept until the node publishes itself again, which it does
after its addresses, or until the grace period has passed. An identity stays as long as a known address
uses it. Keys in `own` are never taken from the view by their absence: their owner writes them again.
"""

import logging
from collections.abc import Collection, Iterable, Mapping

from cluster import keys
from cluster.backend import IdentityEntry, IpEntry, NodeEntry
from cluster.driver import Batch, Change, Stored
from cluster.errors import MalformedEntryError
from cluster.keys import Entry, Kind
from palomar.identity import NumericIdentity
from palomar.labels import LabelSet

logger = logging.getLogger(__name__)

FOREVER_NS = 1 << 63
"""Deadline of a vanished identity: it goes with the last address that uses it."""


class ClusterView:
    """Known identities, addresses and nodes by key."""

    def __init__(self, grace_ns: int) -> None:
        """Keep a vanished foreign entry for `grace_ns`."""
        self.identities: dict[str, IdentityEntry] = {}
        self.ips: dict[str, IpEntry] = {}
        self.nodes: dict[str, NodeEntry] = {}
        self.malformed: set[str] = set()
        self._grace_ns = grace_ns
        self._raw: dict[str, str] = {}
        self._vanished: dict[str, int] = {}
        self._hosts: dict[str, set[str]] = {}

    @property
    def vanished(self) -> int:
        """Count the entries kept though the store has them no more."""
        return len(self._vanished)

    def entry(self, key: str) -> Entry | None:
        """Return the entry under `key`; None where there is none."""
        return self.identities.get(key) or self.ips.get(key) or self.nodes.get(key)

    def numbers_of(self, labels: LabelSet) -> list[NumericIdentity]:
        """Return the numbers known for `labels`, lowest first. O(identities)."""
        return sorted(e.identity for e in self.identities.values() if e.labels == labels)

    def merge(self, values: Mapping[str, Stored], own: Collection[str], now_ns: int) -> list[str]:
        """Take over a complete listing; return the keys that changed, oldest write first."""
        touched = [
            key
            for key, stored in sorted(values.items(), key=lambda item: item[1].revision)
            if self._set(key, stored.value)
        ]
        missing = [key for key in self._raw if key not in values and key not in own]
        self.malformed.intersection_update(values)
        return touched + self._lose(missing, now_ns, stranger_ips_gone=False)

    def apply(self, batch: Batch, own: Collection[str], now_ns: int) -> list[str]:
        """Take over changes that became visible together; return the keys that changed."""
        last: dict[str, Change] = {}
        for change in batch.changes:
            last.pop(change.key, None)
            last[change.key] = change
        touched: list[str] = []
        lost: list[str] = []
        republished: list[NodeEntry] = []
        for key, change in last.items():
            if change.value is None:
                self.malformed.discard(key)
                if key in self._raw and key not in own:
                    lost.append(key)
                continue
            if self._set(key, change.value):
                touched.append(key)
            node = self.nodes.get(key)
            if node is not None:
                republished.append(node)
        touched += self._lose(lost, now_ns, stranger_ips_gone=True)
        for node in republished:
            touched += self._complete(node)
        return touched

    def expire(self, now_ns: int) -> list[str]:
        """Drop what vanished longer than the grace period ago; return the keys."""
        due = [key for key, deadline_ns in self._vanished.items() if deadline_ns <= now_ns]
        return self._remove(due) + self._sweep_identities()

    def _set(self, key: str, value: str) -> bool:
        if keys.kind_of(key) not in (Kind.IDENTITY, Kind.IP, Kind.NODE):
            return False
        self._vanished.pop(key, None)
        if self._raw.get(key) == value:
            return False
        try:
            entry = keys.decode(key, value)
        except MalformedEntryError as error:
            if key not in self.malformed:
                self.malformed.add(key)
                logger.warning("entry ignored", extra={"key": key, "error": str(error)})
            return bool(self._remove([key]))
        self.malformed.discard(key)
        self._remove([key])
        self._raw[key] = value
        if isinstance(entry, IdentityEntry):
            self.identities[key] = entry
        elif isinstance(entry, IpEntry):
            self.ips[key] = entry
        else:
            self.nodes[key] = entry
            for host in _hosts_of(entry):
                self._hosts.setdefault(host, set()).add(key)
        return True

    def _lose(self, missing: Iterable[str], now_ns: int, *, stranger_ips_gone: bool) -> list[str]:
        """Remove or keep for a while each key of `missing`; return the removed ones.

        `stranger_ips_gone`: an address of a node never heard of goes at once.
        """
        by_kind: dict[Kind, list[str]] = {}
        for key in missing:
            by_kind.setdefault(keys.kind_of(key), []).append(key)
        deadline_ns = now_ns + self._grace_ns
        for key in by_kind.get(Kind.NODE, ()):
            self._vanished[key] = deadline_ns
        for key in by_kind.get(Kind.IDENTITY, ()):
            self._vanished[key] = FOREVER_NS
        gone = []
        for key in by_kind.get(Kind.IP, ()):
            if self._owner_removed_it(self.ips[key], stranger_ips_gone):
                gone.append(key)
            else:
                self._vanished[key] = deadline_ns
        return self._remove(gone) + self._sweep_identities()

    def _owner_removed_it(self, entry: IpEntry, stranger_ips_gone: bool) -> bool:
        if entry.host_ip is None:
            return True
        nodes = self._hosts.get(str(entry.host_ip))
        if not nodes:
            return stranger_ips_gone
        return any(key not in self._vanished for key in nodes)

    def _complete(self, node: NodeEntry) -> list[str]:
        """Drop the vanished addresses of a node that has published itself: it has no others."""
        if not self._vanished:
            return []
        hosts = _hosts_of(node)
        return (
            self._remove(
                [
                    key
                    for key in self._vanished
                    if (entry := self.ips.get(key)) is not None and str(entry.host_ip) in hosts
                ]
            )
            + self._sweep_identities()
        )

    def _sweep_identities(self) -> list[str]:
        candidates = [key for key in self._vanished if key in self.identities]
        if not candidates:
            return []
        used = {entry.identity for entry in self.ips.values()}
        return self._remove([key for key in candidates if self.identities[key].identity not in used])

    def _remove(self, gone: Iterable[str]) -> list[str]:
        removed = []
        for key in gone:
            if self._raw.pop(key, None) is None:
                continue
            removed.append(key)
            self._vanished.pop(key, None)
            self.identities.pop(key, None)
            self.ips.pop(key, None)
            node = self.nodes.pop(key, None)
            if node is not None:
                for host in _hosts_of(node):
                    holders = self._hosts.get(host, set())
                    holders.discard(key)
                    if not holders:
                        self._hosts.pop(host, None)
        return removed


def _hosts_of(node: NodeEntry) -> set[str]:
    return {address.ip for address in node.addresses}
