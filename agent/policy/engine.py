"""The policy of every endpoint, kept current: on each change only what it touches is resolved again.

Endpoints with the same labels share one resolution, and so do label sets that the same rules select. Not
thread-safe, no I/O: the agent calls in and carries the outcome to the maps. Input: policies, identities,
endpoints; output: the endpoints whose policy changed, with their new one.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Network

from agent.policy.api import Policy, PolicyName
from agent.policy.errors import PolicyProblem
from agent.policy.repository import PolicyChange, Repository, Rule, in_order
from agent.policy.resolve import EndpointPolicy, EnforcementMode, Posture, posture, resolve
from agent.policy.selectorcache import CachedSelector, SelectorCache
from palomar.identity import EndpointId
from palomar.labels import LabelSet


@dataclass(frozen=True, slots=True)
class PolicyConfig:
    """How policy is enforced on this node."""

    mode: EnforcementMode = EnforcementMode.DEFAULT
    allow_localhost: bool = False
    """The host may always reach local endpoints: `allow-localhost: always`, or `auto` under Kubernetes."""


@dataclass(frozen=True, slots=True)
class PolicyUpdate:
    """What a change came to."""

    revision: int
    changed: Mapping[EndpointId, EndpointPolicy] = field(default_factory=dict)
    """Endpoints to bring up to date: those that a changed policy selects or selected, with the names of its
    rules at their new revision, and those for which changed identities make a difference."""
    names: tuple[PolicyName, ...] = ()
    """Policies that were added, replaced or deleted."""


@dataclass(slots=True)
class _Subject:
    """Endpoints with the same labels."""

    rules: tuple[Rule, ...]
    policy: EndpointPolicy
    endpoints: set[EndpointId]


_Resolved = dict[tuple[tuple[Rule, ...], Posture], EndpointPolicy]


class PolicyEngine:
    """Repository, selector cache and the resolved policies over them."""

    def __init__(self, config: PolicyConfig, identities: Mapping[int, LabelSet] | None = None) -> None:
        """Begin with `identities` and no policy."""
        self.config = config
        self.selectors = SelectorCache(identities)
        self.repository = Repository(self.selectors)
        self._labels: dict[EndpointId, LabelSet] = {}
        self._subjects: dict[LabelSet, _Subject] = {}

    @property
    def revision(self) -> int:
        """The repository's revision, at which every endpoint's policy is."""
        return self.repository.revision

    def cidrs(self) -> frozenset[IPv4Network]:
        """Prefixes that need CIDR identities, and addresses in the ipcache, for the policies in force."""
        return self.repository.cidrs()

    def warnings(self, names: Iterable[PolicyName] | None = None) -> list[PolicyProblem]:
        """Selectors that select nothing, of all policies or of `names`."""
        return self.repository.warnings(names)

    def policy(self, endpoint: EndpointId) -> EndpointPolicy:
        """Policy of a known endpoint; KeyError for another."""
        return self._subjects[self._labels[endpoint]].policy

    def rules(self, endpoint: EndpointId) -> tuple[Rule, ...]:
        """Rules that select a known endpoint; KeyError for another."""
        return self._subjects[self._labels[endpoint]].rules

    def set_endpoint(self, endpoint: EndpointId, labels: LabelSet) -> EndpointPolicy:
        """Add an endpoint, or give it other labels; return its policy."""
        if self._labels.get(endpoint) != labels:
            self.remove_endpoint(endpoint)
            self._labels[endpoint] = labels
        subject = self._subjects.get(labels)
        if subject is None:
            rules = self.repository.rules_selecting(labels)
            subject = _Subject(rules, self._resolve(labels, rules, self._known()), set())
            self._subjects[labels] = subject
        subject.endpoints.add(endpoint)
        return subject.policy

    def remove_endpoint(self, endpoint: EndpointId) -> None:
        """Forget an endpoint; an unknown one is no error."""
        labels = self._labels.pop(endpoint, None)
        if labels is None:
            return
        subject = self._subjects[labels]
        subject.endpoints.discard(endpoint)
        if not subject.endpoints:
            del self._subjects[labels]

    def change_policies(
        self, upserts: Iterable[Policy] = (), deletes: Iterable[PolicyName] = ()
    ) -> PolicyUpdate:
        """Delete, then add or replace policies as one revision, and resolve what they select."""
        change = self.repository.change(upserts, deletes)
        if not change:
            return PolicyUpdate(change.revision)
        affected = self._affected(change)
        changed = self._update(affected)
        return PolicyUpdate(change.revision, changed, change.names)

    def update_identities(self, added: Mapping[int, LabelSet], removed: Iterable[int] = ()) -> PolicyUpdate:
        """Learn and forget identities, and resolve the policies whose selectors select others now."""
        selectors = self.selectors.update(added, removed)
        if not selectors:
            return PolicyUpdate(self.revision)
        rules = self._forget_expansions(selectors)
        affected = {
            labels: subject.rules
            for labels, subject in self._subjects.items()
            if not rules.isdisjoint(subject.rules)
        }
        before = {labels: subject.policy for labels, subject in self._subjects.items() if labels in affected}
        changed = self._update(affected)
        return PolicyUpdate(
            self.revision,
            {number: new for number, new in changed.items() if new != before[self._labels[number]]},
        )

    def _affected(self, change: PolicyChange) -> dict[LabelSet, tuple[Rule, ...]]:
        removed = set(change.removed)
        affected = {}
        for labels, subject in self._subjects.items():
            kept = [rule for rule in subject.rules if rule not in removed]
            new = [rule for rule in change.added if rule.selects(labels)]
            if new or len(kept) != len(subject.rules):
                affected[labels] = in_order(kept + new)
        return affected

    def _forget_expansions(self, changed: frozenset[CachedSelector]) -> set[Rule]:
        rules = set()
        for stored in self.repository.policies():
            for rule in stored.rules:
                for section in rule.sections:
                    if not changed.isdisjoint(section.selectors or ()):
                        section.forget()
                        rules.add(rule)
        return rules

    def _update(self, affected: dict[LabelSet, tuple[Rule, ...]]) -> dict[EndpointId, EndpointPolicy]:
        known = self._known(without=affected)
        changed = {}
        for labels, rules in affected.items():
            subject = self._subjects[labels]
            policy = self._resolve(labels, rules, known)
            subject.rules, subject.policy = rules, policy
            changed.update(dict.fromkeys(subject.endpoints, policy))
        return changed

    def _known(self, without: Mapping[LabelSet, object] | None = None) -> _Resolved:
        """Resolutions that still hold, by what they were made from."""
        return {
            (subject.rules, posture(labels, self.config.mode)): subject.policy
            for labels, subject in self._subjects.items()
            if without is None or labels not in without
        }

    def _resolve(self, labels: LabelSet, rules: tuple[Rule, ...], known: _Resolved) -> EndpointPolicy:
        stance = posture(labels, self.config.mode)
        found = known.get((rules, stance))
        if found is None:
            found = resolve(rules, stance, allow_localhost=self.config.allow_localhost)
            known[rules, stance] = found
        return found
