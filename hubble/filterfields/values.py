"""What the texts of a filter's fields may be, and what each means.

Pure. Both ends of a request read them here: the CLI to refuse a flag before it asks, the flow server to
compile it. A text that cannot be used is an InvalidInputError that says what can.
"""

import fnmatch
import ipaddress
import re

from palomar.errors import InvalidInputError
from palomar.verdict import IpProtocol

MAX_PORT = 65535
DEFAULT_NAMESPACE = "default"

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def read_network(value: str) -> Network:
    """Return the network of a CIDR, or of one address."""
    try:
        if "/" in value:
            return ipaddress.ip_network(value, strict=False)
        return ipaddress.ip_network(ipaddress.ip_address(value))
    except ValueError as error:
        raise InvalidInputError(f"{value!r} is neither an IP address nor a CIDR") from error


def read_pod(value: str) -> tuple[str, str]:
    """Return namespace and prefix of `[namespace/]prefix`; an empty namespace is any, so `/` is every pod."""
    namespace, slash, prefix = value.partition("/")
    if not slash:
        namespace, prefix = DEFAULT_NAMESPACE, value
    if not value or "/" in prefix:
        raise InvalidInputError(f"{value!r} is not [namespace/][pod name prefix]")
    return namespace, prefix


_NAME_PATTERN = re.compile(r"[A-Za-z0-9_.*-]+")


def read_glob(value: str) -> re.Pattern[str]:
    """Return the pattern of a name in which * stands for any characters; it never backtracks far."""
    if _NAME_PATTERN.fullmatch(value) is None:
        raise InvalidInputError(
            f"{value!r} is not a name of letters, digits, - _ . with * for any characters"
        )
    return re.compile(fnmatch.translate(value))


def read_port(value: str) -> int:
    """Return a port number."""
    if not (value.isascii() and value.isdigit()) or int(value) > MAX_PORT:
        raise InvalidInputError(f"{value!r} is not a port: write a number from 0 to {MAX_PORT}")
    return int(value)


PROTOCOLS: dict[str, tuple[int, ...]] = {
    "tcp": (IpProtocol.TCP,),
    "udp": (IpProtocol.UDP,),
    "icmp": (IpProtocol.ICMP, IpProtocol.ICMPV6),
    "icmpv4": (IpProtocol.ICMP,),
    "icmpv6": (IpProtocol.ICMPV6,),
    "sctp": (IpProtocol.SCTP,),
    "vrrp": (112,),
    "igmp": (2,),
    "http": (),
    "dns": (),
    "kafka": (),
}
"""IANA numbers; none for the application protocols, which only a proxy sees."""


def read_protocol(value: str) -> tuple[int, ...]:
    """Return the IP protocols that a name stands for, whatever its case."""
    found = PROTOCOLS.get(value.lower())
    if found is None:
        raise InvalidInputError(f"{value!r} is not a protocol: use one of {', '.join(PROTOCOLS)}")
    return found


def read_node_pattern(value: str) -> tuple[re.Pattern[str], re.Pattern[str]]:
    """`node` of any cluster, `cluster/` all of its nodes, `/node` of the cluster `default`."""
    cluster, slash, name = value.partition("/")
    if not slash:
        return read_glob("*"), read_glob(value)
    if not cluster and not name:
        raise InvalidInputError(f"{value!r} is not [cluster/][node name]")
    return read_glob(cluster or "default"), read_glob(name or "*")


def check_regex(value: str) -> None:
    """Refuse what is not a regular expression."""
    try:
        re.compile(value)
    except re.error as error:
        raise InvalidInputError(f"{value!r} is not a regular expression: {error}") from error


_STATUS = re.compile(r"[1-5][0-9]{2}|[1-5][0-9]?\+")


def check_http_status(value: str) -> None:
    """Refuse what is neither a status code nor a prefix of one with a plus."""
    if _STATUS.fullmatch(value) is None:
        raise InvalidInputError(f"{value!r} is not an HTTP status: write 404, 4+ or 40+")


def check_text(value: str) -> None:
    """Refuse an empty text."""
    if not value:
        raise InvalidInputError("may not be empty")
