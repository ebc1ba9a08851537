"""Key and value of an endpoint's policy map.

Pure. Mirrors bpf/lib/policy.h; what the agent computes is `agent.policy.mapstate`.
"""

import struct
from dataclasses import dataclass
from typing import ClassVar, Self


@dataclass(frozen=True, slots=True)
class PolicyKey:
    """C `struct policy_key`: {u32 prefixlen, u32 sec_label, u8 egress bit0, u8 protocol, be16 dport}.

    Identity 0 is any peer; protocol 0 any protocol (then without a port). ICMP: `dport` is the type.
    """

    identity: int
    egress: bool
    protocol: int = 0
    dport: int = 0
    dport_prefix_bits: int = 0
    """0: any port; 16: exactly `dport`; between: the aligned range that `dport` starts."""
    FORMAT: ClassVar[struct.Struct] = struct.Struct("<IIBBH")
    STATIC_PREFIX_BITS: ClassVar[int] = 40

    def __post_init__(self) -> None:
        """Refuse what the trie cannot say."""
        if not 0 <= self.dport_prefix_bits <= 16:
            raise ValueError(f"a port has 16 bits, not {self.dport_prefix_bits}")
        if self.dport_prefix_bits and not self.protocol:
            raise ValueError("a port needs a protocol")
        mask = (0xFFFF << (16 - self.dport_prefix_bits)) & 0xFFFF
        if self.dport & ~mask:
            raise ValueError(f"port {self.dport} has bits beyond its prefix of {self.dport_prefix_bits}")

    @property
    def lpm_prefix_length(self) -> int:
        """Bits beyond the static part (0..24): the entry's precedence among equals."""
        return (8 if self.protocol else 0) + self.dport_prefix_bits

    def pack(self) -> bytes:
        """Return the 12 bytes of the key."""
        dport = struct.unpack("<H", struct.pack(">H", self.dport))[0]
        return self.FORMAT.pack(
            self.STATIC_PREFIX_BITS + self.lpm_prefix_length,
            self.identity,
            int(self.egress),
            self.protocol,
            dport,
        )

    @classmethod
    def unpack(cls, raw: bytes) -> Self:
        """Read 12 bytes."""
        prefixlen, identity, egress, protocol, _ = cls.FORMAT.unpack(raw)
        (dport,) = struct.unpack(">H", raw[10:12])
        return cls(
            identity, bool(egress & 1), protocol, dport, max(0, prefixlen - cls.STATIC_PREFIX_BITS - 8)
        )


@dataclass(frozen=True, slots=True)
class PolicyEntry:
    """C `struct policy_entry`, 12 bytes: the decision, and the cookie that names the deciding rule."""

    deny: bool
    cookie: int
    proxy_port: int = 0
    priority: int = 0
    FORMAT: ClassVar[struct.Struct] = struct.Struct("<2sBBB3xI")

    def pack(self, key: PolicyKey) -> bytes:
        """Return the 12 bytes of the value under `key`, whose precedence the value repeats."""
        return self.FORMAT.pack(
            struct.pack(">H", self.proxy_port),
            int(self.deny) | key.lpm_prefix_length << 3,
            0,
            self.priority,
            self.cookie,
        )

    @classmethod
    def unpack(cls, raw: bytes) -> Self:
        """Read 12 bytes."""
        proxy_port, flags, _, priority, cookie = cls.FORMAT.unpack(raw)
        return cls(bool(flags & 1), cookie, struct.unpack(">H", proxy_port)[0], priority)
