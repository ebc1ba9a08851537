"""Rules to the entries of an endpoint's policy map, such that the kernel's look-up gives the rules' verdict.

The map knows no rules, only longest prefixes: a deny must beat every allow that it covers, however specific.
Therefore allows that a deny covers are left out here: those of the same identity, and under a deny for any
identity all of them. Works on products (identities x ports) and merges whole dictionaries, because
thousands of keys per endpoint are normal. Pure. Input: rules in use from the repository; output: an
EndpointPolicy for the reconciler.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import Enum, StrEnum, auto

from agent.policy.api import RuleRef
from agent.policy.mapstate import (
    ALL_PORTS,
    ANY_IDENTITY,
    MapEntry,
    MapState,
    PolicyKey,
    PortPrefix,
)
from agent.policy.repository import Rule, SectionInUse
from palomar.identity import Reserved
from palomar.labels import LabelSet

OPEN = MapEntry(deny=False)
"""Allows without a rule: the direction is not enforced, or localhost is always let in."""


class EnforcementMode(StrEnum):
    """When policy is enforced (`enable-policy`)."""

    DEFAULT = "default"
    """On endpoints that a rule selects, in the directions it speaks of."""
    ALWAYS = "always"
    """On every endpoint in both directions."""
    NEVER = "never"


class Posture(Enum):
    """What holds for one endpoint before any rule is read."""

    BY_RULES = auto()
    CLOSED = auto()
    """Both directions are enforced whatever the rules."""
    OPEN = auto()
    """Nothing is enforced whatever the rules."""


@dataclass(frozen=True, slots=True)
class EndpointPolicy:
    """What is enforced on an endpoint, and the map entries that do it."""

    ingress_enforced: bool
    egress_enforced: bool
    entries: MapState
    """Not to be changed; shared by endpoints that the same rules select."""
    ingress_default_deny: frozenset[RuleRef] = frozenset()
    """Rules that close the direction to what no entry allows; empty too where the mode closes it."""
    egress_default_deny: frozenset[RuleRef] = frozenset()
    distinct: tuple[MapEntry, ...] = field(default=(), compare=False)
    """The different values of `entries`."""

    @property
    def enforced(self) -> str:
        """`none`, `ingress`, `egress` or `both`, as the API says it."""
        if self.ingress_enforced:
            return "both" if self.egress_enforced else "ingress"
        return "egress" if self.egress_enforced else "none"


def posture(labels: LabelSet, mode: EnforcementMode) -> Posture:
    """Decide what holds for an endpoint: init is always closed, the host open (it has no host policy)."""
    if mode is EnforcementMode.NEVER or labels.get(Reserved.HOST.label_name, "reserved") is not None:
        return Posture.OPEN
    if mode is EnforcementMode.ALWAYS or labels.get(Reserved.INIT.label_name, "reserved") is not None:
        return Posture.CLOSED
    return Posture.BY_RULES


def resolve(rules: Sequence[Rule], stance: Posture, *, allow_localhost: bool) -> EndpointPolicy:
    """Resolve the rules that select an endpoint; O(sections + entries)."""
    ingress = _Direction(rules, stance, egress=False)
    egress = _Direction(rules, stance, egress=True)
    entries = ingress.entries(allow_localhost=allow_localhost)
    _merge(entries, egress.entries(allow_localhost=False))
    return EndpointPolicy(
        ingress_enforced=ingress.enforced,
        egress_enforced=egress.enforced,
        entries=entries,
        ingress_default_deny=ingress.closed_by,
        egress_default_deny=egress.closed_by,
        distinct=_distinct(entries.values()),
    )


class _Direction:
    """One direction of one endpoint."""

    def __init__(self, rules: Sequence[Rule], stance: Posture, *, egress: bool) -> None:
        speaking = [rule for rule in rules if rule.spec.enforces(egress=egress)]
        closing = [rule for rule in speaking if rule.spec.default_deny(egress=egress)]
        self.egress = egress
        self.enforced = stance is Posture.CLOSED or (stance is Posture.BY_RULES and bool(speaking))
        self.default_allow = not self.enforced or (stance is Posture.BY_RULES and not closing)
        self.closed_by = frozenset(
            rule.enforcing_ref(egress=egress) for rule in closing if stance is not Posture.OPEN
        )
        self.sections = [
            section
            for rule in (speaking if self.enforced else ())
            for section in rule.sections
            if section.egress == egress
        ]

    def entries(self, *, allow_localhost: bool) -> dict[PolicyKey, MapEntry]:
        """Allows that no deny covers, and the denies."""
        denying = [section for section in self.sections if section.deny]
        allowing = [section for section in self.sections if not section.deny]
        denies: dict[PolicyKey, MapEntry] = {}
        for section in denying:
            _merge(denies, section.keys(tuple(section.ports)))
        denied_to_all = _prefixes_denied_to_all(denying)
        found: dict[PolicyKey, MapEntry] = {}
        for section in allowing:
            _merge(found, section.keys(_uncovered(section.ports, denied_to_all)))
        for identity in self._open_to(allow_localhost=allow_localhost):
            if ALL_PORTS not in denied_to_all:
                _merge(found, {PolicyKey(identity, self.egress): OPEN})
        allowed = {port for section in allowing for port in section.ports} | {ALL_PORTS}
        _drop_covered(found, allowed, denying)
        _merge(found, denies)
        return found

    def _open_to(self, *, allow_localhost: bool) -> Iterator[int]:
        if self.default_allow:
            yield ANY_IDENTITY
        if allow_localhost and self.enforced:
            yield int(Reserved.HOST)


def _prefixes_denied_to_all(denying: Iterable[SectionInUse]) -> set[PortPrefix]:
    return {port for section in denying if ANY_IDENTITY in section.identities() for port in section.ports}


def _uncovered(ports: Iterable[PortPrefix], denied: set[PortPrefix]) -> tuple[PortPrefix, ...]:
    if not denied:
        return tuple(ports)
    return tuple(port for port in ports if not any(deny.covers(port) for deny in denied))


def _drop_covered(
    allows: dict[PolicyKey, MapEntry], allowed: set[PortPrefix], denying: Iterable[SectionInUse]
) -> None:
    """Drop allows of an identity, on any of `allowed`, that a deny of the same identity covers."""
    for section in denying:
        covered = [port for port in allowed if any(deny.covers(port) for deny in section.ports)]
        for identity in section.identities() if covered else ():
            for port in covered:
                allows.pop(PolicyKey(identity, section.egress, *port), None)


def _merge(into: dict[PolicyKey, MapEntry], more: MapState) -> None:
    """Add entries of the same verdict; what both hold is decided by the rules of both."""
    common = into.keys() & more.keys() if into else ()
    both = {key: (into[key], more[key]) for key in common}
    into.update(more)
    for key, (one, other) in both.items():
        into[key] = one if one == other else MapEntry(one.deny, one.rules | other.rules)


def _distinct(entries: Iterable[MapEntry]) -> tuple[MapEntry, ...]:
    by_object = {id(entry): entry for entry in entries}
    return tuple(dict.fromkeys(by_object.values()))
