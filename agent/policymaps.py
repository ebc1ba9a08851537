"""Writing policy maps: from the entries an endpoint shall have to the pinned map that has them.

`PolicyMaps` is the part of `datapath.maps.node.DatapathMaps` needed here, with a fake for tests. Everything
blocks and belongs in the datapath thread, which owns a `PolicyMapWriter`. New and changed entries are written
before others are removed, so a change never opens a gap; the policy revision is bumped last, so that live
connections are judged by the new map.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from datapath.abi.policy import PolicyEntry, PolicyKey
from palomar.errors import PalomarError, TransientError
from palomar.identity import MAX_CLUSTER_IDENTITY, MIN_CLUSTER_IDENTITY

Entries = Mapping[PolicyKey, PolicyEntry]


class PolicyMap(Protocol):
    """`cilium_policy_v2_NNNNN` of one endpoint."""

    def upsert(self, key: PolicyKey, entry: PolicyEntry) -> None:
        """Write an entry."""
        ...

    def delete(self, key: PolicyKey) -> bool:
        """Remove an entry; False where it was not there."""
        ...

    def items(self) -> dict[PolicyKey, PolicyEntry]:
        """Return every entry."""
        ...


class PolicyMaps(Protocol):
    """Every endpoint's policy map."""

    def policy(self, endpoint_id: int) -> PolicyMap:
        """Return the endpoint's map, made empty where it is missing."""
        ...

    def bump_policy_revision(self, endpoint_id: int) -> int:
        """Make live connections of the endpoint be judged anew."""
        ...


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one endpoint's map."""

    endpoint_id: int
    written: int = 0
    removed: int = 0
    kept: int = 0
    """Entries that were left because their identity is not known yet."""
    error: str = ""


class PolicyMapWriter:
    """Makes maps be as wished, remembering what they hold."""

    def __init__(self, maps: PolicyMaps) -> None:
        """Nothing is read before the first `apply`."""
        self._maps = maps
        self._held: dict[int, Entries] = {}

    def apply(
        self, wishes: Sequence[tuple[int, Entries]], judgeable: frozenset[int] | None = None
    ) -> list[Outcome]:
        """Make each endpoint's map hold exactly its entries; one failure does not stop the others.

        `judgeable` (while the shared state was not read yet): entries of cluster identities that are not in
        it were written by the agent before and are kept. About 2 µs per changed entry.
        """
        differences: _Differences = {}
        return [self._apply(key, entries, judgeable, differences) for key, entries in wishes]

    def forget(self, endpoint_id: int) -> None:
        """Forget what the endpoint's map holds: it is gone."""
        self._held.pop(endpoint_id, None)

    def _apply(
        self,
        endpoint_id: int,
        entries: Entries,
        judgeable: frozenset[int] | None,
        differences: "_Differences",
    ) -> Outcome:
        try:
            policy = self._maps.policy(endpoint_id)
            held = self._held.get(endpoint_id)
            if held is None:
                held = policy.items()
            # Endpoints that share a policy share these objects: the difference is computed once for all.
            between = (id(held), id(entries))
            if between not in differences:
                differences[between] = (held, *_difference(held, entries))
            _, upserts, strangers = differences[between]
            kept = [key for key in strangers if judgeable is not None and not _is_judged(key, judgeable)]
            deletes = [key for key in strangers if key not in kept] if kept else strangers
            self._held.pop(endpoint_id, None)  # unknown until all is written
            for key in upserts:
                policy.upsert(key, entries[key])
            for key in deletes:
                policy.delete(key)
            if upserts or deletes:
                self._maps.bump_policy_revision(endpoint_id)
        except PalomarError as error:
            return Outcome(endpoint_id, error=str(error))
        self._held[endpoint_id] = {**entries, **{key: held[key] for key in kept}} if kept else entries
        return Outcome(endpoint_id, len(upserts), len(deletes), len(kept))


_Differences = dict[tuple[int, int], tuple[Entries, list[PolicyKey], list[PolicyKey]]]
"""By the ids of what is held and what is wished; the first is kept so that its id stays its own."""


def _difference(held: Entries, entries: Entries) -> tuple[list[PolicyKey], list[PolicyKey]]:
    upserts = [key for key, entry in entries.items() if held.get(key) != entry]
    # Denies first: an allow that goes in before its deny would be open for a moment.
    upserts.sort(key=lambda key: not entries[key].deny)
    return upserts, [key for key in held if key not in entries]


def _is_judged(key: PolicyKey, judgeable: frozenset[int]) -> bool:
    in_cluster = MIN_CLUSTER_IDENTITY <= key.identity <= MAX_CLUSTER_IDENTITY
    return not in_cluster or key.identity in judgeable


class FakePolicyMap:
    """A `PolicyMap` in memory."""

    def __init__(self, operations: list[str], name: int) -> None:
        """Log every operation to `operations`."""
        self.entries: dict[PolicyKey, PolicyEntry] = {}
        self.broken = False
        self._operations = operations
        self._name = name

    def upsert(self, key: PolicyKey, entry: PolicyEntry) -> None:
        """Write an entry."""
        if self.broken:
            raise TransientError("fake policy map is broken: repair it")
        self._operations.append(f"upsert {self._name} {key.identity}")
        self.entries[key] = entry

    def delete(self, key: PolicyKey) -> bool:
        """Remove an entry."""
        if self.broken:
            raise TransientError("fake policy map is broken: repair it")
        self._operations.append(f"delete {self._name} {key.identity}")
        return self.entries.pop(key, None) is not None

    def items(self) -> dict[PolicyKey, PolicyEntry]:
        """Return a copy of the entries."""
        return dict(self.entries)


class FakePolicyMaps:
    """`PolicyMaps` in memory; `operations` says what was done in which order."""

    def __init__(self) -> None:
        """Begin without maps."""
        self.maps: dict[int, FakePolicyMap] = {}
        self.revisions: dict[int, int] = {}
        self.operations: list[str] = []

    def policy(self, endpoint_id: int) -> FakePolicyMap:
        """Return the endpoint's map."""
        return self.maps.setdefault(endpoint_id, FakePolicyMap(self.operations, endpoint_id))

    def bump_policy_revision(self, endpoint_id: int) -> int:
        """Count."""
        self.operations.append(f"bump {endpoint_id}")
        self.revisions[endpoint_id] = self.revisions.get(endpoint_id, 0) + 1
        return self.revisions[endpoint_id]
