"""Packets for tests: a small builder with right checksums, a decoder, and the fixed cast.

Not a protocol library: Ethernet, ARP, IPv4 (options, fragments), IPv6, TCP, UDP and ICMP as far as the
datapath reads them. Input: the calls of a test; output: bytes from the Ethernet header on. Every header
method returns a new `Packet`, so a prefix can be shared:

    forward = between(POD_ONE, POD_TWO).tcp(40000, 80, "S")
    reply = between(POD_TWO, POD_ONE).tcp(80, 40000, "SA")

Fields left out are computed (lengths, checksums, EtherType, protocol); given ones are written as they are,
so a test can lie. Sources: RFC 791, 792, 793, 768, 826, 8200.
"""

import struct
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address, IPv6Address

ETH_IPV4, ETH_ARP, ETH_IPV6, ETH_VLAN = 0x0800, 0x0806, 0x86DD, 0x8100
ICMP, TCP, UDP, ICMPV6, SCTP = 1, 6, 17, 58, 132
ETH_LEN, IPV4_LEN = 14, 20
TCP_FLAGS = {"F": 0x01, "S": 0x02, "R": 0x04, "P": 0x08, "A": 0x10, "U": 0x20, "E": 0x40, "C": 0x80}
BROADCAST_MAC = b"\xff" * 6


@dataclass(frozen=True, slots=True)
class Host:
    """One of the cast: who sends and receives in tests."""

    name: str
    ipv4: IPv4Address
    mac: bytes
    """Of the device that is the host's own (a pod's eth0)."""
    gateway_mac: bytes = bytes(6)
    """Of the other end: the host side of a pod's veth."""
    identity: int = 0
    endpoint_id: int = 0
    node: IPv4Address | None = None
    """The node a pod runs on."""
    ifindex: int = 0
    """Made up: of the host side of a pod's veth, of a node's device."""


NODE_ONE = Host("node-one", IPv4Address("172.30.0.1"), b"\x0a\x00\xac\x1e\x00\x01", identity=1)
NODE_TWO = Host("node-two", IPv4Address("172.30.0.2"), b"\x0a\x00\xac\x1e\x00\x02", identity=6)
ROUTER_ONE = Host(
    "router-one", IPv4Address("10.1.0.1"), b"\x0a\x00\x0a\x01\x00\x01", identity=1, node=NODE_ONE.ipv4
)
ROUTER_TWO = Host(
    "router-two", IPv4Address("10.2.0.1"), b"\x0a\x00\x0a\x02\x00\x01", identity=6, node=NODE_TWO.ipv4
)
POD_ONE = Host(
    "pod-one",
    IPv4Address("10.1.0.11"),
    b"\x0a\x00\x0a\x01\x00\x0b",
    b"\x0e\x00\x0a\x01\x00\x0b",
    identity=1001,
    endpoint_id=101,
    node=NODE_ONE.ipv4,
    ifindex=1101,
)
POD_TWO = Host(
    "pod-two",
    IPv4Address("10.1.0.12"),
    b"\x0a\x00\x0a\x01\x00\x0c",
    b"\x0e\x00\x0a\x01\x00\x0c",
    identity=1002,
    endpoint_id=102,
    node=NODE_ONE.ipv4,
    ifindex=1102,
)
POD_REMOTE = Host(
    "pod-remote",
    IPv4Address("10.2.0.21"),
    b"\x0a\x00\x0a\x02\x00\x15",
    b"\x0e\x00\x0a\x02\x00\x15",
    identity=2001,
    endpoint_id=201,
    node=NODE_TWO.ipv4,
)
WORLD = Host("world", IPv4Address("198.51.100.7"), b"\x0a\x00\xc6\x33\x64\x07", identity=2)


def checksum(data: bytes) -> int:
    """Return the Internet checksum of `data` (RFC 1071); 0 over data that contains a right one."""
    if len(data) % 2:
        data += b"\0"
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return int(~total & 0xFFFF)


def tcp_flags(letters: str) -> int:
    """Return the flags byte: `SA` is 0x12."""
    return sum(TCP_FLAGS[letter] for letter in letters)


@dataclass(frozen=True, slots=True)
class Ipv4Header:
    """An IPv4 header; None fields are computed."""

    src: IPv4Address
    dst: IPv4Address
    ttl: int = 64
    protocol: int = 0
    tos: int = 0
    ident: int = 1
    more_fragments: bool = False
    fragment_offset: int = 0
    """In units of 8 bytes."""
    options: bytes = b""
    """Padded to a multiple of 4."""
    version: int = 4
    ihl: int | None = None
    total_length: int | None = None

    def build(self, payload: bytes) -> bytes:
        """Return header and payload."""
        options = self.options + bytes(-len(self.options) % 4)
        ihl = self.ihl if self.ihl is not None else (IPV4_LEN + len(options)) // 4
        total = self.total_length if self.total_length is not None else IPV4_LEN + len(options) + len(payload)
        head = struct.pack(
            "!BBHHHBBH4s4s",
            self.version << 4 | ihl,
            self.tos,
            total,
            self.ident,
            self.more_fragments << 13 | self.fragment_offset,
            self.ttl,
            self.protocol,
            0,
            self.src.packed,
            self.dst.packed,
        )
        check = checksum(head + options)
        return head[:10] + struct.pack("!H", check) + head[12:] + options + payload

    def pseudo(self, protocol: int, length: int) -> bytes:
        """Return the pseudo header of TCP and UDP checksums."""
        return self.src.packed + self.dst.packed + struct.pack("!BBH", 0, protocol, length)


@dataclass(frozen=True, slots=True)
class Packet:
    """A frame in the making. Start with `between`, `frame` or `arp_request`."""

    source_mac: bytes
    destination_mac: bytes
    ether_type: int = 0
    ip: Ipv4Header | None = None
    body: bytes = b""
    cut: int | None = field(default=None)

    def ipv4(self, **fields: object) -> "Packet":
        """Change fields of the IPv4 header (`ttl`, `options`, `more_fragments`, ...)."""
        assert self.ip is not None, "no IPv4 header to change"
        return replace(self, ip=replace(self.ip, **fields))  # type: ignore[arg-type]  # names checked at run time

    def macs(self, source: bytes | None = None, destination: bytes | None = None) -> "Packet":
        """Change Ethernet addresses."""
        return replace(
            self,
            source_mac=source if source is not None else self.source_mac,
            destination_mac=destination if destination is not None else self.destination_mac,
        )

    def _l4(self, protocol: int, head: bytes, payload: bytes, check_at: int) -> "Packet":
        assert self.ip is not None, "no IPv4 header below"
        segment = head + payload
        pseudo = b"" if protocol == ICMP else self.ip.pseudo(protocol, len(segment))
        check = checksum(pseudo + segment) or (0xFFFF if protocol == UDP else 0)
        segment = segment[:check_at] + struct.pack("!H", check) + segment[check_at + 2 :]
        return replace(self, ip=replace(self.ip, protocol=protocol), body=segment)

    def tcp(
        self,
        sport: int,
        dport: int,
        flags: str = "A",
        payload: bytes = b"",
        seq: int = 1,
        ack: int = 1,
        data_offset: int = 5,
    ) -> "Packet":
        """Add a TCP segment; `flags` are letters of FSRPAUEC."""
        head = struct.pack(
            "!HHIIBBHHH", sport, dport, seq, ack, data_offset << 4, tcp_flags(flags), 64240, 0, 0
        )
        return self._l4(TCP, head, payload, 16)

    def udp(self, sport: int, dport: int, payload: bytes = b"") -> "Packet":
        """Add a UDP datagram."""
        return self._l4(UDP, struct.pack("!HHHH", sport, dport, 8 + len(payload), 0), payload, 6)

    def icmp(self, kind: int, code: int = 0, rest: int = 0, payload: bytes = b"") -> "Packet":
        """Add an ICMP message; `rest` is the second word of its header."""
        return self._l4(ICMP, struct.pack("!BBHI", kind, code, 0, rest), payload, 2)

    def echo(self, ident: int, seq: int = 1, reply: bool = False) -> "Packet":
        """Add an ICMP echo request, or reply."""
        return self.icmp(0 if reply else 8, 0, ident << 16 | seq, b"palomar!")

    def icmp_error(self, kind: int, code: int, quoted: "Packet", quoted_bytes: int = 8) -> "Packet":
        """Add an ICMP error that quotes the IP header of `quoted` and `quoted_bytes` after it."""
        raw = quoted.bytes()[ETH_LEN:]
        return self.icmp(kind, code, 0, raw[: (raw[0] & 0x0F) * 4 + quoted_bytes])

    def raw(self, protocol: int, body: bytes) -> "Packet":
        """Add bytes that nobody parses, e.g. a later fragment's or SCTP's."""
        assert self.ip is not None, "no IPv4 header below"
        return replace(self, ip=replace(self.ip, protocol=protocol), body=body)

    def truncate(self, length: int) -> "Packet":
        """Cut the finished frame to `length` bytes."""
        return replace(self, cut=length)

    def bytes(self) -> bytes:
        """Return the frame from its Ethernet header on."""
        payload = self.ip.build(self.body) if self.ip is not None else self.body
        frame_bytes = self.destination_mac + self.source_mac + struct.pack("!H", self.ether_type) + payload
        return frame_bytes if self.cut is None else frame_bytes[: self.cut]


def frame(source_mac: bytes, destination_mac: bytes, ether_type: int, body: bytes = b"") -> Packet:
    """Return an Ethernet frame with an opaque body."""
    return Packet(source_mac, destination_mac, ether_type, None, body)


def between(source: Host, destination: Host) -> Packet:
    """Return an IPv4 packet as `source` puts it on its wire: a pod sends to its gateway's MAC."""
    next_hop = source.gateway_mac if any(source.gateway_mac) else destination.mac
    return Packet(source.mac, next_hop, ETH_IPV4, Ipv4Header(source.ipv4, destination.ipv4))


def arp(
    sender: Host,
    target: IPv4Address,
    operation: int = 1,
    target_mac: bytes = bytes(6),
    hardware: int = 1,
    sender_ipv4: IPv4Address | None = None,
    sender_mac: bytes | None = None,
) -> Packet:
    """Return an ARP packet: `sender` asks for `target` (operation 1) or answers (2)."""
    body = struct.pack(
        "!HHBBH6s4s6s4s",
        hardware,
        ETH_IPV4,
        6,
        4,
        operation,
        sender_mac or sender.mac,
        (sender_ipv4 or sender.ipv4).packed,
        target_mac,
        target.packed,
    )
    destination = BROADCAST_MAC if operation == 1 else target_mac
    return Packet(sender.mac, destination, ETH_ARP, None, body)


def ipv6(source_mac: bytes, destination_mac: bytes, src: str, dst: str) -> Packet:
    """Return an IPv6 packet with an empty payload (no next header)."""
    body = struct.pack("!IHBB", 6 << 28, 0, 59, 64) + IPv6Address(src).packed + IPv6Address(dst).packed
    return Packet(source_mac, destination_mac, ETH_IPV6, None, body)


@dataclass(frozen=True, slots=True)
class Decoded:
    """An IPv4 frame taken apart, for assertions."""

    source_mac: bytes
    destination_mac: bytes
    ether_type: int
    src: IPv4Address
    dst: IPv4Address
    ttl: int
    protocol: int
    header_ok: bool
    """The IPv4 header checksum is right."""
    payload_ok: bool
    """The TCP, UDP or ICMP checksum is right."""
    body: bytes


def decode(raw: bytes) -> Decoded:
    """Take an IPv4 frame apart; ValueError for another EtherType."""
    (ether_type,) = struct.unpack("!H", raw[12:14])
    if ether_type != ETH_IPV4:
        raise ValueError(f"EtherType {ether_type:#06x} is not IPv4")
    header_len = (raw[14] & 0x0F) * 4
    header = raw[ETH_LEN : ETH_LEN + header_len]
    body = raw[ETH_LEN + header_len :]
    ttl, protocol = header[8], header[9]
    pseudo = b"" if protocol == ICMP else header[12:20] + struct.pack("!BBH", 0, protocol, len(body))
    return Decoded(
        source_mac=raw[6:12],
        destination_mac=raw[:6],
        ether_type=ether_type,
        src=IPv4Address(header[12:16]),
        dst=IPv4Address(header[16:20]),
        ttl=ttl,
        protocol=protocol,
        header_ok=checksum(header) == 0,
        payload_ok=protocol not in (ICMP, TCP, UDP) or checksum(pseudo + body) == 0,
        body=body,
    )
