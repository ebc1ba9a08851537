"""The remote side of a rule: endpoints, entities and CIDRs to selectors, with namespaces applied.

Pure part of `agent.policy.parse`. A rule names one sort of peer: several sorts in one rule are refused, as in
the field, because a reader cannot tell AND from OR.
"""

import re
from dataclasses import dataclass, replace
from ipaddress import IPv4Network, IPv6Network, ip_interface

from agent.policy.node import Node
from agent.policy.selector import (
    ENTITIES,
    Operator,
    Requirement,
    Selector,
    cidr,
    entity,
    equals,
    peer_in_namespace,
    select,
    split_key,
)

_KEY_PREFIX = r"([a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*/)?"
_KEY = re.compile(rf"^{_KEY_PREFIX}[A-Za-z0-9]([-A-Za-z0-9_.]{{0,61}}[A-Za-z0-9])?$")
_VALUE = re.compile(r"^(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?$")
_MAX_KEY = 317
_MAX_VALUE = 63

IpNetwork = IPv4Network | IPv6Network


@dataclass(frozen=True, slots=True)
class Scope:
    """What selectors without a namespace mean."""

    namespace: str
    """The policy's; empty: clusterwide."""
    cluster: str
    """Name that the entity `cluster` stands for."""
    subject_is_init: bool = False

    def of_subject(self, *, init: bool) -> "Scope":
        """Return the scope of a spec whose subject is (or is not) reserved:init."""
        return replace(self, subject_is_init=init)


def parse_selector(node: Node) -> Selector:
    """Read a label selector as written; problems go to the report."""
    fields = node.fields(("matchLabels", "matchExpressions"))
    found = []
    if "matchLabels" in fields:
        for key, child in fields["matchLabels"].entries().items():
            value = child.text()
            source, name = _key(child, key)
            if value is not None:
                _check_value(child, value, source)
                found.append(equals(name, value, source))
    if "matchExpressions" in fields:
        found += [
            requirement
            for item in fields["matchExpressions"].items()
            if (requirement := _expression(item)) is not None
        ]
    return select(found)


def parse_peers(
    fields: dict[str, Node], scope: Scope, *, egress: bool
) -> tuple[tuple[Selector, ...] | None, tuple[IPv4Network, ...]]:
    """Return what a section's peers are (None: it names none) and the prefixes that need identities."""
    side = "to" if egress else "from"
    named = [name for name in (f"{side}{what}" for what in _READERS) if name in fields]
    filled = [name for name in named if fields[name].value]
    for other in filled[1:]:
        fields[other].error(f"cannot be combined with {filled[0]} in one rule: write two rules")
    if not named:
        return None, ()
    selectors: list[Selector] = []
    cidrs: list[IPv4Network] = []
    for name in named:
        read, networks = _READERS[name.removeprefix(side)](fields[name], scope)
        selectors += read
        cidrs += networks
    return tuple(dict.fromkeys(selectors)), tuple(dict.fromkeys(cidrs))


def _endpoints(node: Node, scope: Scope) -> tuple[list[Selector], list[IPv4Network]]:
    return [
        peer_in_namespace(parse_selector(item), scope.namespace, subject_is_init=scope.subject_is_init)
        for item in node.items()
    ], []


def _entities(node: Node, scope: Scope) -> tuple[list[Selector], list[IPv4Network]]:
    names = [item.choice(ENTITIES) for item in node.items()]
    return [selector for name in names if name for selector in entity(name, scope.cluster)], []


def _cidrs(node: Node, scope: Scope) -> tuple[list[Selector], list[IPv4Network]]:
    networks = [network for item in node.items() if (network := _network(item)) is not None]
    return [selector for network in networks for selector in cidr(network)], _ipv4(networks)


def _cidr_sets(node: Node, scope: Scope) -> tuple[list[Selector], list[IPv4Network]]:
    selectors: list[Selector] = []
    networks: list[IpNetwork] = []
    for item in node.items():
        fields = item.fields(("cidr", "except"), not_enforced=("cidrGroupRef", "cidrGroupSelector"))
        if "cidr" not in fields:
            if isinstance(item.value, dict) and not {"cidr", "cidrGroupRef", "cidrGroupSelector"} & set(
                item.value
            ):
                item.error("cidr is missing")
            continue
        network = _network(fields["cidr"])
        excepted = [
            inner
            for child in (fields["except"].items() if "except" in fields else ())
            if (inner := _excepted(child, network)) is not None
        ]
        if network is not None:
            selectors += cidr(network, excepted)
            networks += [network, *excepted]
    return selectors, _ipv4(networks)


_READERS = {"Endpoints": _endpoints, "Entities": _entities, "CIDR": _cidrs, "CIDRSet": _cidr_sets}


def _network(node: Node) -> IpNetwork | None:
    text = node.text()
    if text is None:
        return None
    try:
        interface = ip_interface(text)
    except ValueError:
        interface = None
    bits = text.partition("/")[2]
    if interface is None or (bits and not bits.isdecimal()):
        node.error(f"{text!r} is not a CIDR: write it like 10.0.0.0/8")
        return None
    network = interface.network
    if interface.ip != network.network_address:
        node.warn(f"{text} has bits beyond its prefix: {network} is meant")
    if network.version == 6:
        node.warn("matches nothing yet: IPv6 packets are dropped")
    return network


def _excepted(node: Node, outer: IpNetwork | None) -> IpNetwork | None:
    inner = _network(node)
    if inner is None or outer is None:
        return None
    if (isinstance(inner, IPv4Network) and isinstance(outer, IPv4Network) and inner.subnet_of(outer)) or (
        isinstance(inner, IPv6Network) and isinstance(outer, IPv6Network) and inner.subnet_of(outer)
    ):
        return inner
    node.error(f"{inner} is not inside {outer}")
    return None


def _ipv4(networks: list[IpNetwork]) -> list[IPv4Network]:
    """Keep those that need an identity: IPv4, and not everything, which is reserved:world."""
    return [network for network in networks if isinstance(network, IPv4Network) and network.prefixlen]


def _key(node: Node, text: str) -> tuple[str, str]:
    source, name = split_key(text)
    if source in ("any", "k8s", "reserved") and (len(name) > _MAX_KEY or not _KEY.match(name)):
        node.error(f"{text!r} is not a label key: write [source:][prefix/]name")
    elif not name:
        node.error(f"{text!r} is not a label key: nothing after the source")
    return source, name


def _check_value(node: Node, value: str, source: str) -> None:
    if source in ("any", "k8s") and (len(value) > _MAX_VALUE or not _VALUE.match(value)):
        node.error(
            f"{value!r} is not a label value: up to {_MAX_VALUE} letters, digits, -, _ and . are, "
            "with a letter or digit at both ends"
        )


def _expression(item: Node) -> Requirement | None:
    fields = item.fields(("key", "operator", "values"))
    if isinstance(item.value, dict):
        for required in ("key", "operator"):
            if required not in item.value:
                item.error(f"{required} is missing")
    key = fields["key"].text() if "key" in fields else None
    operator = (
        fields["operator"].choice([found.value for found in Operator]) if "operator" in fields else None
    )
    values = fields["values"].items() if "values" in fields else []
    texts = [(node, text) for node in values if (text := node.text()) is not None]
    if key is None or operator is None:
        return None
    source, name = _key(fields["key"], key)
    for node, text in texts:
        _check_value(node, text, source)
    if operator in (Operator.IN, Operator.NOT_IN):
        if not values:
            item.error(f"operator {operator} needs values")
            return None
    elif values:
        fields["values"].error(f"operator {operator} takes no values")
    return Requirement(name, source, Operator(operator), tuple(sorted({text for _, text in texts})))
