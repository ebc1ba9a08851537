"""Key and value of the conntrack maps.

Pure. Mirrors bpf/lib/conntrack.h.
"""

import struct
from dataclasses import dataclass
from enum import IntEnum, IntFlag
from ipaddress import IPv4Address
from typing import ClassVar, Self


class Direction(IntEnum):
    """Of a conntrack entry or of policy, seen from the endpoint."""

    OUT = 0
    IN = 1
    RELATED = 2


class CtFlag(IntFlag):
    """`flags` of a conntrack value."""

    RX_CLOSING = 0x01
    TX_CLOSING = 0x02
    SEEN_NON_SYN = 0x10


@dataclass(frozen=True, slots=True)
class CtKey:
    """C `struct ipv4_ct_tuple`, 14 bytes: {be32 daddr, saddr, be16 dport, sport, u8 nexthdr, flags}."""

    daddr: IPv4Address
    saddr: IPv4Address
    dport: int
    sport: int
    protocol: int
    direction: Direction
    FORMAT: ClassVar[struct.Struct] = struct.Struct(">4s4sHHBB")

    def pack(self) -> bytes:
        """Return the 14 bytes of the key."""
        return self.FORMAT.pack(
            self.daddr.packed, self.saddr.packed, self.dport, self.sport, self.protocol, self.direction
        )

    @classmethod
    def unpack(cls, raw: bytes) -> Self:
        """Read 14 bytes."""
        daddr, saddr, dport, sport, protocol, flags = cls.FORMAT.unpack(raw)
        return cls(IPv4Address(daddr), IPv4Address(saddr), dport, sport, protocol, Direction(flags & 3))


@dataclass(frozen=True, slots=True)
class CtEntry:
    """C `struct ct_entry`, 64 bytes: one connection's counters, age and verdict."""

    rx_packets: int
    rx_bytes: int
    tx_packets: int
    tx_bytes: int
    lifetime_s: int
    """Seconds of CLOCK_MONOTONIC at which the entry may be removed."""
    flags: CtFlag
    rev_nat: int
    policy_revision: int
    """The low 16 bits of the endpoint's policy revision that the connection was last judged at."""
    tx_flags_seen: int
    rx_flags_seen: int
    source_identity: int
    last_tx_report_s: int
    last_rx_report_s: int
    rtt_us: int
    policy_cookie: int
    FORMAT: ClassVar[struct.Struct] = struct.Struct("<QQQQIHHHBBIIIII")
    LIFETIME_OFFSET: ClassVar[int] = 32

    def pack(self) -> bytes:
        """Return the 64 bytes of the value."""
        return self.FORMAT.pack(
            self.rx_packets,
            self.rx_bytes,
            self.tx_packets,
            self.tx_bytes,
            self.lifetime_s,
            self.flags,
            self.rev_nat,
            self.policy_revision,
            self.tx_flags_seen,
            self.rx_flags_seen,
            self.source_identity,
            self.last_tx_report_s,
            self.last_rx_report_s,
            self.rtt_us,
            self.policy_cookie,
        )

    @classmethod
    def unpack(cls, raw: bytes) -> Self:
        """Read 64 bytes."""
        fields = list(cls.FORMAT.unpack(raw))
        fields[5] = CtFlag(fields[5])
        return cls(*fields)
