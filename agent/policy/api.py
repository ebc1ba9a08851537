"""A network policy as values: what a CiliumNetworkPolicy says once it has been read and checked.

What it is: policies, their specs and sections, with namespaces applied to every selector.
What it is not: a document (`agent.policy.parse`) nor a decision (`agent.policy.resolve`).
Input from the parser; output to the repository.
"""

from dataclasses import dataclass, field
from enum import StrEnum
from ipaddress import IPv4Network
from typing import NamedTuple

from agent.policy.selector import Selector


class PolicyKind(StrEnum):
    """Which resource a policy came from."""

    NETWORK_POLICY = "CiliumNetworkPolicy"
    CLUSTERWIDE_NETWORK_POLICY = "CiliumClusterwideNetworkPolicy"


class PolicyName(NamedTuple):
    """What a policy is stored under; the namespace of a clusterwide one is empty."""

    namespace: str
    name: str

    def __str__(self) -> str:
        """`demo/allow-web`, or the name alone where it is clusterwide."""
        return f"{self.namespace}/{self.name}" if self.namespace else self.name


@dataclass(frozen=True, slots=True)
class RuleRef:
    """Names the part of a policy that decided: what a cookie stands for and a flow shows.

    Equal whatever the revision, so that the same rule keeps its cookie over updates and restarts.
    """

    kind: PolicyKind
    policy: PolicyName
    path: str
    """Inside the spec: `ingress[0].toPorts[0]`; of a further spec `specs[1].egress[0]`."""
    labels: tuple[str, ...] = ()
    """The policy's labels as `source:key=value`, sorted."""
    revision: int = field(default=0, compare=False)
    """Repository revision at which the policy came in."""

    def __str__(self) -> str:
        """`demo/allow-web ingress[0].toPorts[0]`."""
        return f"{self.policy} {self.path}"


@dataclass(frozen=True, slots=True)
class PortRange:
    """Ports `first` to `last`, both included, of one protocol; 0 to 65535 is every port of it.

    For ICMP the "ports" are message types.
    """

    protocol: int
    """IP protocol number, never 0."""
    first: int
    last: int


@dataclass(frozen=True, slots=True)
class PortRule:
    """One item of `toPorts` or `icmps`."""

    path: str
    """`toPorts[0]` or `icmps[0]`."""
    ports: tuple[PortRange, ...]


@dataclass(frozen=True, slots=True)
class Section:
    """One item of `ingress`, `egress`, `ingressDeny` or `egressDeny`."""

    path: str
    """`ingress[0]`, with `specs[i].` before it where the policy has several specs."""
    egress: bool
    deny: bool
    peers: tuple[Selector, ...] | None
    """The remote side is any of these; empty: nobody; None: the section names no peers."""
    ports: tuple[PortRule, ...] | None
    """None: every port of every protocol."""
    cidrs: tuple[IPv4Network, ...] = ()
    """Prefixes, also excepted ones, that must have identities for the selectors to tell them apart."""

    @property
    def is_void(self) -> bool:
        """Tell whether it selects nothing: `ingress: [{}]` enforces and allows nobody."""
        return self.peers == () or (self.peers is None and self.ports is None)


@dataclass(frozen=True, slots=True)
class Spec:
    """One `spec`: a subject and what is allowed and denied to it."""

    path: str
    """`spec` or `specs[i]`."""
    subject: Selector
    sections: tuple[Section, ...]
    ingress_default_deny: bool
    """What the sections of the direction do not allow is denied; False where there are none."""
    egress_default_deny: bool
    description: str = ""
    labels: tuple[str, ...] = ()
    """`source:key=value`, sorted; with those that name the policy."""

    def enforces(self, *, egress: bool) -> bool:
        """Tell whether any section, allow or deny, speaks of the direction."""
        return any(section.egress == egress for section in self.sections)

    def default_deny(self, *, egress: bool) -> bool:
        """Tell whether the direction is closed but for what rules allow."""
        return self.egress_default_deny if egress else self.ingress_default_deny


@dataclass(frozen=True, slots=True)
class Policy:
    """One CiliumNetworkPolicy or CiliumClusterwideNetworkPolicy."""

    kind: PolicyKind
    name: PolicyName
    specs: tuple[Spec, ...]
    document: str
    """The document it was read from as JSON, without status: what `policy get` prints."""
