"""The plain reading of policy: rule by rule, what it says of one flow. Slow and obvious on purpose.

The model that the property tests hold the kernel's look-up in the resolved map against. Input: parsed
policies and labels; output: the verdict with the rules for and against.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum

from agent.policy.api import Policy, PolicyName, Section, Spec
from agent.policy.resolve import EnforcementMode, Posture, posture
from palomar.identity import Reserved
from palomar.labels import LabelSet


class Outcome(Enum):
    """What becomes of a flow and why."""

    NOT_ENFORCED = "not enforced"
    ALLOWED = "allowed"
    ALLOWED_BY_DEFAULT = "allowed by default"
    """Rules speak of the direction, but none closes it."""
    ALLOWED_LOCALHOST = "allowed as localhost"
    DENIED = "denied"
    DENIED_BY_DEFAULT = "denied by default"

    @property
    def is_allowed(self) -> bool:
        """Tell whether the flow passes."""
        return self not in (Outcome.DENIED, Outcome.DENIED_BY_DEFAULT)


@dataclass(frozen=True, slots=True)
class Flow:
    """The first packet of a flow, as seen from the endpoint that policy is read for."""

    egress: bool
    remote: LabelSet
    """Labels of the other side."""
    protocol: int
    dport: int
    """ICMP: the type."""


@dataclass(frozen=True, slots=True)
class Explanation:
    """The outcome and the rules that speak of the flow, as (policy, path of the section or port rule)."""

    outcome: Outcome
    allowing: tuple[tuple[PolicyName, str], ...] = ()
    denying: tuple[tuple[PolicyName, str], ...] = ()
    closing: tuple[PolicyName, ...] = ()
    """Policies that close the direction to everything they do not allow."""


def explain(
    subject: LabelSet,
    flow: Flow,
    policies: Iterable[Policy],
    mode: EnforcementMode = EnforcementMode.DEFAULT,
    *,
    allow_localhost: bool = False,
) -> Explanation:
    """Read every policy for one flow of an endpoint with the labels `subject`."""
    specs = [
        (policy.name, spec)
        for policy in policies
        for spec in policy.specs
        if spec.subject.matches(subject) and spec.enforces(egress=flow.egress)
    ]
    stance = posture(subject, mode)
    if stance is Posture.OPEN or (stance is Posture.BY_RULES and not specs):
        return Explanation(Outcome.NOT_ENFORCED)
    denying = _speaking(specs, flow, deny=True)
    allowing = _speaking(specs, flow, deny=False)
    closing = tuple(name for name, spec in specs if spec.default_deny(egress=flow.egress))
    is_host = flow.remote.get(Reserved.HOST.label_name, "reserved") is not None
    if denying:
        outcome = Outcome.DENIED
    elif allowing:
        outcome = Outcome.ALLOWED
    elif allow_localhost and is_host and not flow.egress:
        outcome = Outcome.ALLOWED_LOCALHOST
    elif stance is Posture.BY_RULES and not closing:
        outcome = Outcome.ALLOWED_BY_DEFAULT
    else:
        outcome = Outcome.DENIED_BY_DEFAULT
    return Explanation(outcome, allowing, denying, closing)


def _speaking(
    specs: Iterable[tuple[PolicyName, Spec]], flow: Flow, *, deny: bool
) -> tuple[tuple[PolicyName, str], ...]:
    return tuple(
        (name, path)
        for name, spec in specs
        for section in spec.sections
        if section.deny == deny and section.egress == flow.egress
        for path in _matching_paths(section, flow)
    )


def _matching_paths(section: Section, flow: Flow) -> Iterable[str]:
    if section.peers is None:
        if section.ports is None:
            return
    elif not any(peer.matches(flow.remote) for peer in section.peers):
        return
    if section.ports is None:
        yield section.path
        return
    for rule in section.ports:
        if any(
            ports.protocol == flow.protocol and ports.first <= flow.dport <= ports.last
            for ports in rule.ports
        ):
            yield f"{section.path}.{rule.path}"
