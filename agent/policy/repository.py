"""Every policy in force, by name, with a revision that grows with each change.

Keeps each spec ready for use: its selectors taken into the selector cache, its ports split into map prefixes.
Not a store: what must survive a restart comes again from the policy directory or the API. Input: parsed
policies; output: the rules that select a set of labels, the CIDRs that need identities, and warnings.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from ipaddress import IPv4Network

from agent.policy.api import Policy, PolicyName, RuleRef, Section, Spec
from agent.policy.errors import PolicyProblem
from agent.policy.mapstate import (
    ALL_PORTS,
    ANY_IDENTITY,
    MapEntry,
    PolicyKey,
    PortPrefix,
    port_prefixes,
)
from agent.policy.selectorcache import CachedSelector, SelectorCache
from palomar.labels import CLUSTER_KEY, LabelSet


class SectionInUse:
    """A section with its selectors in the cache and its ports as prefixes, each with the entry it makes.

    `keys` is remembered until the selections change: many endpoints take the same ones.
    """

    __slots__ = ("_expanded", "_identities", "deny", "egress", "ports", "section", "selectors")

    def __init__(self, section: Section, name: RuleRef, cache: SelectorCache) -> None:
        """Take the selectors into use; `name` is the rule's without the path."""
        self.section = section
        self.egress = section.egress
        self.deny = section.deny
        self.selectors = (
            None if section.peers is None else tuple(cache.acquire(peer) for peer in section.peers)
        )
        self.ports = _entries_by_port(section, name)
        self._identities: frozenset[int] | None = None
        self._expanded: dict[tuple[PortPrefix, ...], dict[PolicyKey, MapEntry]] = {}

    def release(self, cache: SelectorCache) -> None:
        """Give the selectors back."""
        for cached in self.selectors or ():
            cache.release(cached)

    def forget(self) -> None:
        """Forget what was computed from selections that are no longer."""
        self._identities = None
        self._expanded.clear()

    def identities(self) -> frozenset[int]:
        """Return the peers' numbers: {0} for anybody, empty for nobody."""
        if self._identities is None:
            if self.selectors is None:
                found = frozenset({ANY_IDENTITY})
            else:
                found = frozenset(number for cached in self.selectors for number in cached.identities)
            # Anybody includes everybody: one entry says it all.
            self._identities = frozenset({ANY_IDENTITY}) if ANY_IDENTITY in found else found
        return self._identities

    def keys(self, ports: tuple[PortPrefix, ...]) -> dict[PolicyKey, MapEntry]:
        """Return identities x `ports` (some or all of `self.ports`) as map entries; not to be changed."""
        found = self._expanded.get(ports)
        if found is None:
            identities = self.identities()
            found = {}
            for port in ports:
                entry = self.ports[port]
                for identity in identities:
                    found[PolicyKey(identity, self.egress, *port)] = entry
            self._expanded[ports] = found
        return found


def _entries_by_port(section: Section, name: RuleRef) -> dict[PortPrefix, MapEntry]:
    if section.is_void:
        return {}
    if section.ports is None:
        ref = _at(name, section.path)
        return {ALL_PORTS: MapEntry(section.deny, frozenset({ref}))}
    found: dict[PortPrefix, set[RuleRef]] = {}
    for rule in section.ports:
        ref = _at(name, f"{section.path}.{rule.path}")
        for ports in rule.ports:
            for prefix in port_prefixes(ports):
                found.setdefault(prefix, set()).add(ref)
    return {prefix: MapEntry(section.deny, frozenset(refs)) for prefix, refs in found.items()}


def _at(name: RuleRef, path: str) -> RuleRef:
    return RuleRef(name.kind, name.policy, path, name.labels, name.revision)


class Rule:
    """A spec in force. Compared by identity: a policy that is replaced gets new rules."""

    __slots__ = ("policy", "ref", "revision", "sections", "spec")

    def __init__(self, policy: Policy, spec: Spec, revision: int, cache: SelectorCache) -> None:
        """Take the spec's selectors into use."""
        self.policy = policy.name
        self.spec = spec
        self.revision = revision
        self.ref = RuleRef(policy.kind, policy.name, "", spec.labels, revision)
        self.sections = tuple(SectionInUse(section, self.ref, cache) for section in spec.sections)

    def release(self, cache: SelectorCache) -> None:
        """Give the spec's selectors back."""
        for section in self.sections:
            section.release(cache)

    def selects(self, labels: LabelSet) -> bool:
        """Tell whether endpoints with `labels` are the subject."""
        return self.spec.subject.matches(labels)

    def selectors(self) -> Iterator[CachedSelector]:
        """Every peer selector of every section."""
        for section in self.sections:
            yield from section.selectors or ()

    def enforcing_ref(self, *, egress: bool) -> RuleRef:
        """Name the rule as the one that closes a direction: by its first section there."""
        path = next(section.path for section in self.spec.sections if section.egress == egress)
        return _at(self.ref, path.rpartition("[")[0])


def in_order(rules: Iterable[Rule]) -> tuple[Rule, ...]:
    """Sort rules, so that the same ones are always the same tuple."""
    return tuple(sorted(rules, key=lambda rule: (rule.policy, rule.spec.path)))


@dataclass(frozen=True, slots=True)
class StoredPolicy:
    """A policy in force."""

    policy: Policy
    revision: int
    """At which it came in."""
    rules: tuple[Rule, ...]


@dataclass(frozen=True, slots=True)
class PolicyChange:
    """What a change took away and brought."""

    revision: int
    removed: tuple[Rule, ...] = ()
    added: tuple[Rule, ...] = ()
    names: tuple[PolicyName, ...] = ()
    """Policies that were added, replaced or deleted."""

    def __bool__(self) -> bool:
        """Tell whether anything changed."""
        return bool(self.names)


class Repository:
    """Policies by name."""

    def __init__(self, selectors: SelectorCache) -> None:
        """Begin empty, at revision 1 as the field does."""
        self.revision = 1
        self._selectors = selectors
        self._policies: dict[PolicyName, StoredPolicy] = {}

    def policies(self) -> list[StoredPolicy]:
        """Every policy in force, by name."""
        return [self._policies[name] for name in sorted(self._policies)]

    def get(self, name: PolicyName) -> StoredPolicy | None:
        """One policy in force."""
        return self._policies.get(name)

    def change(self, upserts: Iterable[Policy] = (), deletes: Iterable[PolicyName] = ()) -> PolicyChange:
        """Delete, then add or replace policies, as one revision; equal and unknown ones change nothing."""
        wanted = {policy.name: policy for policy in upserts}
        gone = [name for name in dict.fromkeys(deletes) if name in self._policies and name not in wanted]
        news = [policy for policy in wanted.values() if self._current(policy.name) != policy]
        if not gone and not news:
            return PolicyChange(self.revision)
        self.revision += 1
        removed: list[Rule] = []
        added: list[Rule] = []
        for policy in news:
            # The new rules take their selectors before the old give them back: shared ones stay cached.
            rules = tuple(Rule(policy, spec, self.revision, self._selectors) for spec in policy.specs)
            removed += self._remove(policy.name)
            self._policies[policy.name] = StoredPolicy(policy, self.revision, rules)
            added += rules
        for name in gone:
            removed += self._remove(name)
        names = tuple(gone) + tuple(policy.name for policy in news)
        return PolicyChange(self.revision, tuple(removed), tuple(added), names)

    def rules_selecting(self, labels: LabelSet) -> tuple[Rule, ...]:
        """Rules whose subject `labels` are, ordered by policy; O(rules)."""
        return in_order(
            rule for stored in self._policies.values() for rule in stored.rules if rule.selects(labels)
        )

    def cidrs(self) -> frozenset[IPv4Network]:
        """Prefixes that need an identity of their own for the rules in force."""
        return frozenset(
            network
            for stored in self._policies.values()
            for rule in stored.rules
            for section in rule.spec.sections
            for network in section.cidrs
        )

    def warnings(self, names: Iterable[PolicyName] | None = None) -> list[PolicyProblem]:
        """Selectors that select no known identity, of all policies or of `names`; O(identities)."""
        found: list[PolicyProblem] = []
        for name in sorted(self._policies if names is None else set(names) & self._policies.keys()):
            for rule in self._policies[name].rules:
                found += self._warnings(rule)
        return found

    def _warnings(self, rule: Rule) -> Iterator[PolicyProblem]:
        prefix, policy = rule.spec.path, str(rule.policy)
        if not self._selectors.selections(rule.spec.subject):
            yield PolicyProblem(
                f"{prefix}.endpointSelector", f"selects no endpoint: {rule.spec.subject}", policy
            )
        for section in rule.sections:
            path = f"{prefix}.{section.section.path.rpartition('.')[2]}"
            for cached in section.selectors or ():
                if not cached.identities and not _may_select_nothing(cached):
                    yield PolicyProblem(path, f"a peer selects nothing: {cached.selector}", policy)

    def _current(self, name: PolicyName) -> Policy | None:
        stored = self._policies.get(name)
        return None if stored is None else stored.policy

    def _remove(self, name: PolicyName) -> tuple[Rule, ...]:
        stored = self._policies.pop(name, None)
        if stored is None:
            return ()
        for rule in stored.rules:
            rule.release(self._selectors)
        return stored.rules


def _may_select_nothing(cached: CachedSelector) -> bool:
    """Tell whether a selector is an entity's or a CIDR's, which may well select nothing now."""
    return any(
        found.source in ("reserved", "cidr") or found.key == CLUSTER_KEY
        for found in cached.selector.requirements
    )
