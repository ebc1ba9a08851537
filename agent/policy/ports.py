"""The ports of a rule: `toPorts` and `icmps` to port ranges by protocol number.

Pure part of `agent.policy.parse`. A protocol that is left out or ANY stands for TCP, UDP and SCTP; port 0 for
every port; ICMP types take the place of ports.
"""

import re

from agent.policy.api import PortRange, PortRule
from agent.policy.node import NOT_ENFORCED, Node
from palomar.verdict import IpProtocol

MAX_PORTS = 40
"""Ports of one toPorts item, and ICMP fields of one icmps item, as the CRD limits them."""
MAX_PORT = 65535
MAX_ICMP_TYPE = 255

_PROTOCOLS: dict[str, tuple[IpProtocol, ...]] = {
    "TCP": (IpProtocol.TCP,),
    "UDP": (IpProtocol.UDP,),
    "SCTP": (IpProtocol.SCTP,),
    "ANY": (IpProtocol.TCP, IpProtocol.UDP, IpProtocol.SCTP),
}
_FAMILIES = {"IPv4": IpProtocol.ICMP, "IPv6": IpProtocol.ICMPV6}
_PORT_NAME = re.compile(r"^(?=.*[a-zA-Z])[a-zA-Z0-9](-?[a-zA-Z0-9]){0,62}$")

_ICMP_TYPES: dict[str, dict[str, int]] = {
    "IPv4": {
        "EchoReply": 0,
        "DestinationUnreachable": 3,
        "Redirect": 5,
        "Echo": 8,
        "EchoRequest": 8,
        "RouterAdvertisement": 9,
        "RouterSelection": 10,
        "TimeExceeded": 11,
        "ParameterProblem": 12,
        "Timestamp": 13,
        "TimestampReply": 14,
        "Photuris": 40,
        "ExtendedEchoRequest": 42,
        "ExtendedEchoReply": 43,
    },
    "IPv6": {
        "DestinationUnreachable": 1,
        "PacketTooBig": 2,
        "TimeExceeded": 3,
        "ParameterProblem": 4,
        "EchoRequest": 128,
        "EchoReply": 129,
        "MulticastListenerQuery": 130,
        "MulticastListenerReport": 131,
        "MulticastListenerDone": 132,
        "RouterSolicitation": 133,
        "RouterAdvertisement": 134,
        "NeighborSolicitation": 135,
        "NeighborAdvertisement": 136,
        "RedirectMessage": 137,
    },
}
"""Names of ICMP types. Source: the IANA registries, spelled as policies spell them."""


def parse_ports(section: Node, fields: dict[str, Node], *, deny: bool) -> tuple[PortRule, ...] | None:
    """Return a section's ports; None where it names none, which is every port of every protocol."""
    to_ports = fields["toPorts"].items() if "toPorts" in fields else []
    icmps = fields["icmps"].items() if "icmps" in fields else []
    if to_ports and icmps:
        fields["icmps"].error("cannot be combined with toPorts in one rule: write two rules")
    if not to_ports and not icmps:
        return None
    return tuple(
        PortRule(item.path.removeprefix(f"{section.path}."), tuple(dict.fromkeys(read(item, deny=deny))))
        for read, items in ((_port_rule, to_ports), (_icmp_rule, icmps))
        for item in items
    )


def _port_rule(item: Node, *, deny: bool) -> list[PortRange]:
    later = ("listener", "originatingTLS", "terminatingTLS", "serverNames")
    forbidden = dict.fromkeys((*later, "rules"), "is not possible in a deny rule") if deny else {}
    fields = item.fields(
        ("ports",) if deny else ("ports", "rules"), not_enforced=() if deny else later, forbidden=forbidden
    )
    if "rules" in fields:
        fields["rules"].fields((), not_enforced=("http", "kafka", "dns", "l7", "l7proto"))
    if "ports" not in fields:
        if isinstance(item.value, dict) and "ports" not in item.value:
            item.error("ports is missing")
        return []
    ports = fields["ports"].items(MAX_PORTS)
    if fields["ports"].value == []:
        fields["ports"].error('is empty: name a port, "0" for every port')
    return [found for port in ports for found in _port(port)]


def _port(item: Node) -> list[PortRange]:
    fields = item.fields(("port", "endPort", "protocol"))
    protocol = fields["protocol"].choice(_PROTOCOLS) if "protocol" in fields else "ANY"
    if isinstance(item.value, dict) and "port" not in item.value:
        item.error("port is missing")
    first = _port_number(fields["port"]) if "port" in fields else None
    last = fields["endPort"].integer(0, MAX_PORT) if "endPort" in fields else 0
    if first is None or last is None or protocol is None:
        return []
    if last and first == 0:
        fields["endPort"].error("a range cannot begin with port 0, which stands for every port")
    elif last and last < first:
        fields["endPort"].error(f"{last} is below port {first}")
    if first == 0:
        last = MAX_PORT
    return [PortRange(int(number), first, last or first) for number in _PROTOCOLS[protocol]]


def _port_number(node: Node) -> int | None:
    if isinstance(node.value, int) and not isinstance(node.value, bool):
        node.error(f'must be text: write "{node.value}"')
        return None
    text = node.text()
    if text is None:
        return None
    number = _number(text, MAX_PORT)
    if number is not None:
        return number
    if text.isdecimal():
        node.error(f"port {text[:20]} is not between 0 and {MAX_PORT}")
    elif _PORT_NAME.match(text):
        node.error(f"named port {text!r}: {NOT_ENFORCED}")
    else:
        node.error(f"{text!r} is not a port: a number from 0 to {MAX_PORT} in quotes is")
    return None


def _number(text: str, high: int) -> int | None:
    """Read up to five plain digits, not above `high`."""
    if len(text) <= 5 and text.isascii() and text.isdecimal() and int(text) <= high:
        return int(text)
    return None


def _icmp_rule(item: Node, *, deny: bool) -> list[PortRange]:
    fields = item.fields(("fields",))
    if isinstance(item.value, dict) and not item.value.get("fields"):
        item.error("fields is missing or empty: name an ICMP type")
    ranges = []
    for entry in fields["fields"].items(MAX_PORTS) if "fields" in fields else ():
        found = entry.fields(("family", "type"))
        family = found["family"].choice(_FAMILIES) if "family" in found else "IPv4"
        if isinstance(entry.value, dict) and "type" not in entry.value:
            entry.error("type is missing")
        if family is None or "type" not in found:
            continue
        number = _icmp_type(found["type"], family)
        if number is not None:
            ranges.append(PortRange(int(_FAMILIES[family]), number, number))
        if family == "IPv6":
            entry.warn("matches nothing yet: IPv6 packets are dropped")
    return ranges


def _icmp_type(node: Node, family: str) -> int | None:
    if not isinstance(node.value, str):
        return node.integer(0, MAX_ICMP_TYPE)
    number = _number(node.value, MAX_ICMP_TYPE)
    if number is not None:
        return number
    if node.value.isdecimal():
        node.error(f"{node.value[:20]} is not between 0 and {MAX_ICMP_TYPE}")
        return None
    name = node.choice(_ICMP_TYPES[family])
    return None if name is None else _ICMP_TYPES[family][name]
