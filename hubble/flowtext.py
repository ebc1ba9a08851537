"""The words of a flow: its one-line summary.

Pure. Texts are those Hubble clients show and people grep for; ICMP names are IANA's in the spelling
of the field. Used by `hubble.flowbuilder`.
"""

from palomar.verdict import IpProtocol

TCP_FLAG_BITS = {"FIN": 1, "SYN": 2, "RST": 4, "PSH": 8, "ACK": 16, "URG": 32, "ECE": 64, "CWR": 128}
"""Bits of `l4_flags`, as in the TCP header (RFC 9293, section 3.1)."""

_SUMMARY_ORDER = ("SYN", "ACK", "RST", "FIN", "PSH", "URG", "ECE", "CWR")

_UNREACHABLE_V4 = (
    "Net",
    "Host",
    "Protocol",
    "Port",
    "FragmentationNeeded",
    "SourceRoutingFailed",
    "NetUnknown",
    "HostUnknown",
    "SourceIsolated",
    "NetAdminProhibited",
    "HostAdminProhibited",
    "NetTOS",
    "HostTOS",
    "CommAdminProhibited",
    "HostPrecedence",
    "PrecedenceCutoff",
)
_ICMPV4: dict[int, tuple[str, tuple[str, ...]]] = {
    0: ("EchoReply", ()),
    3: ("DestinationUnreachable", _UNREACHABLE_V4),
    4: ("SourceQuench", ()),
    5: ("Redirect", ("Net", "Host", "TOS+Net", "TOS+Host")),
    8: ("EchoRequest", ()),
    9: ("RouterAdvertisement", ()),
    10: ("RouterSolicitation", ()),
    11: ("TimeExceeded", ("TTLExceeded", "FragmentReassemblyTimeExceeded")),
    12: ("ParameterProblem", ("PointerIndicatesError", "MissingOption", "BadLength")),
    13: ("TimestampRequest", ()),
    14: ("TimestampReply", ()),
    17: ("AddressMaskRequest", ()),
    18: ("AddressMaskReply", ()),
}
_ICMPV6: dict[int, tuple[str, tuple[str, ...]]] = {
    1: (
        "DestinationUnreachable",
        ("NoRouteToDst", "AdminProhibited", "BeyondScopeOfSrc", "Address", "Port"),
    ),
    2: ("PacketTooBig", ()),
    3: ("TimeExceeded", ("HopLimitExceeded", "FragmentReassemblyTimeExceeded")),
    4: ("ParameterProblem", ("ErroneousHeader", "UnrecognizedNextHeader", "UnrecognizedIPv6Option")),
    128: ("EchoRequest", ()),
    129: ("EchoReply", ()),
    133: ("RouterSolicitation", ()),
    134: ("RouterAdvertisement", ()),
    135: ("NeighborSolicitation", ()),
    136: ("NeighborAdvertisement", ()),
    137: ("Redirect", ()),
}


def tcp_flags_text(flags: int) -> str:
    """`SYN, ACK` for 0x12."""
    return ", ".join(name for name in _SUMMARY_ORDER if flags & TCP_FLAG_BITS[name])


def icmp_text(icmp_type: int, code: int, version: int) -> str:
    """`EchoRequest`, `DestinationUnreachable(Port)`; an unknown type is `type(code)` in numbers."""
    found = (_ICMPV6 if version == 6 else _ICMPV4).get(icmp_type)
    if found is None:
        return f"{icmp_type}({code})"
    name, codes = found
    if codes and code < len(codes):
        return f"{name}({codes[code]})"
    return f"{name}(Code: {code})" if code or codes else name


def summary(protocol: int, l4_flags: int, icmp_code: int, version: int) -> str:
    """The Summary of a packet; `version` is 4, 6, or 0 for a packet without an IP header."""
    if not version:
        return "Ethernet"
    match protocol:
        case IpProtocol.TCP:
            flags = tcp_flags_text(l4_flags)
            return f"TCP Flags: {flags}" if flags else "TCP"
        case IpProtocol.UDP:
            return "UDP"
        case IpProtocol.SCTP:
            return "SCTP"
        case IpProtocol.ICMP:
            return f"ICMPv4 {icmp_text(l4_flags, icmp_code, 4)}"
        case IpProtocol.ICMPV6:
            return f"ICMPv6 {icmp_text(l4_flags, icmp_code, 6)}"
        case _:
            return f"IPv{version}"
