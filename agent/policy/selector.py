"""Label selectors: which identities a policy speaks of.

A key is written `source:key`, `source.key` or `key`; without a source, or with `any`, a label of every
source matches. The dotted form is read for the sources of `_DOTTED` only, and not for `k8s.io/...`, which
is a key of its own. Pure. Input: the parser's keys and values; output: selectors with a canonical order,
so that equal selectors share one line of the selector cache.
Source of the semantics: Kubernetes label selectors; the scoping rules of CiliumNetworkPolicy.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from ipaddress import IPv4Network, IPv6Network

from palomar.identity import Reserved
from palomar.labels import CLUSTER_KEY, NAMESPACE_KEY, SOURCES, LabelSet

NAMESPACE_LABELS_PREFIX = "io.cilium.k8s.namespace.labels"
"""Labels of a pod's namespace are kept under this prefix."""

_DOTTED = frozenset({"any", "k8s", "reserved", "cidr", "container", "unspec"})


class Operator(StrEnum):
    """How a requirement compares."""

    IN = "In"
    NOT_IN = "NotIn"
    EXISTS = "Exists"
    DOES_NOT_EXIST = "DoesNotExist"


@dataclass(frozen=True, slots=True, order=True)
class Requirement:
    """One condition on the labels with `key`."""

    key: str
    source: str
    """`any` matches every source."""
    operator: Operator
    values: tuple[str, ...] = ()
    """Sorted; empty for Exists and DoesNotExist."""

    def matches(self, labels: LabelSet) -> bool:
        """Tell whether `labels` fulfil it; NotIn and DoesNotExist hold where there is no such label."""
        if self.operator is Operator.IN or self.operator is Operator.EXISTS:
            return self._found(labels)
        return not self._found(labels)

    def _found(self, labels: LabelSet) -> bool:
        """Tell whether a label has the key and, where values are given, one of them."""
        if self.source != "any":
            value = labels.get(self.key, self.source)
            return value is not None and (not self.values or value in self.values)
        return any(
            label.key == self.key and (not self.values or label.value in self.values) for label in labels
        )

    def __str__(self) -> str:
        """`k8s:app=web`, `any:tier in (a,b)`, `!k8s:canary`, `k8s:app`."""
        name = f"{self.source}:{self.key}"
        if self.operator is Operator.EXISTS:
            return name
        if self.operator is Operator.DOES_NOT_EXIST:
            return f"!{name}"
        if self.operator is Operator.IN and len(self.values) == 1:
            return f"{name}={self.values[0]}" if self.values[0] else name
        word = "in" if self.operator is Operator.IN else "notin"
        return f"{name} {word} ({','.join(self.values)})"


@dataclass(frozen=True, slots=True)
class Selector:
    """Every requirement must hold; none at all selects everything. Build with `select`."""

    requirements: tuple[Requirement, ...] = ()

    @property
    def is_wildcard(self) -> bool:
        """Tell whether it selects every identity, also unknown ones."""
        return not self.requirements

    def matches(self, labels: LabelSet) -> bool:
        """Tell whether `labels` fulfil every requirement."""
        return all(requirement.matches(labels) for requirement in self.requirements)

    def names(self, key: str) -> bool:
        """Tell whether a requirement is about `key`, of whatever source."""
        return any(requirement.key == key for requirement in self.requirements)

    def also(self, *requirements: Requirement) -> "Selector":
        """Return this selector narrowed."""
        return select((*self.requirements, *requirements))

    def __str__(self) -> str:
        """Requirements joined by commas; `*` for everything."""
        return ",".join(map(str, self.requirements)) or "*"


WILDCARD = Selector()


def select(requirements: Iterable[Requirement]) -> Selector:
    """Build a selector in canonical order."""
    return Selector(tuple(sorted(set(requirements))))


def split_key(text: str) -> tuple[str, str]:
    """Read `source:key`, `source.key` or `key` as (source, key); the source is `any` where none is."""
    head, colon, tail = text.partition(":")
    if colon and head in SOURCES:
        return head, tail
    head, dot, tail = text.partition(".")
    if dot and head in _DOTTED and not text.startswith("k8s.io/"):
        return head, tail
    return "any", text


def equals(key: str, value: str, source: str = "k8s") -> Requirement:
    """Require a label's value."""
    return Requirement(key, source, Operator.IN, (value,))


def exists(key: str, source: str = "k8s") -> Requirement:
    """Require a label, whatever its value."""
    return Requirement(key, source, Operator.EXISTS)


def subject_in_namespace(selector: Selector, namespace: str) -> Selector:
    """Bind a subject to its policy's namespace, in place of any other it names.

    One that names reserved:init stays as it is: endpoints that wait for their labels have no namespace yet.
    """
    if names_reserved(selector, Reserved.INIT):
        return selector
    kept = (found for found in selector.requirements if found.key != NAMESPACE_KEY)
    return select((*kept, equals(NAMESPACE_KEY, namespace)))


def peer_in_namespace(selector: Selector, namespace: str, *, subject_is_init: bool = False) -> Selector:
    """Scope a peer selector to its policy's namespace, or of a clusterwide policy (empty) to pods.

    One that names a namespace, labels of a namespace or a `reserved:` label stays as it is.
    """
    for found in selector.requirements:
        if (
            found.source == "reserved"
            or found.key == NAMESPACE_KEY
            or found.key.startswith(NAMESPACE_LABELS_PREFIX)
        ):
            return selector
    if namespace:
        return selector.also(equals(NAMESPACE_KEY, namespace))
    return selector if subject_is_init else selector.also(exists(NAMESPACE_KEY))


def names_reserved(selector: Selector, name: Reserved) -> bool:
    """Tell whether a requirement is about `reserved:<name>`."""
    return any(found.source == "reserved" and found.key == name.label_name for found in selector.requirements)


def reserved(name: Reserved) -> Selector:
    """Select the identities that carry `reserved:<name>`."""
    return select([exists(name.label_name, "reserved")])


ENTITIES = (
    "all",
    "world",
    "cluster",
    "host",
    "init",
    "ingress",
    "unmanaged",
    "remote-node",
    "health",
    "none",
    "kube-apiserver",
)
"""What fromEntities and toEntities may name."""

_WORLD = (Reserved.WORLD, Reserved.WORLD_IPV4, Reserved.WORLD_IPV6)
_CLUSTER = (
    Reserved.HOST,
    Reserved.REMOTE_NODE,
    Reserved.INIT,
    Reserved.INGRESS,
    Reserved.HEALTH,
    Reserved.UNMANAGED,
    Reserved.KUBE_APISERVER,
)


def entity(name: str, cluster: str) -> tuple[Selector, ...]:
    """Return the selectors that one of ENTITIES stands for; `none` stands for no selector."""
    if name == "all":
        return (WILDCARD,)
    if name == "none":
        return ()
    if name == "world":
        return tuple(map(reserved, _WORLD))
    if name == "cluster":
        return (*map(reserved, _CLUSTER), select([equals(CLUSTER_KEY, cluster)]))
    return (reserved(Reserved[name.upper().replace("-", "_")]),)


def cidr(
    network: IPv4Network | IPv6Network, excepted: Iterable[IPv4Network | IPv6Network] = ()
) -> tuple[Selector, ...]:
    """Select the CIDR identities inside `network` but outside of `excepted`; never pods or nodes.

    0.0.0.0/0 also stands for reserved:world: what has no more exact identity.
    """
    without = [Requirement(str(inner), "cidr", Operator.DOES_NOT_EXIST) for inner in excepted]
    inside = select([exists(str(network), "cidr"), *without])
    if network == IPv4Network("0.0.0.0/0"):
        return inside, select([exists(Reserved.WORLD.label_name, "reserved"), *without])
    return (inside,)
