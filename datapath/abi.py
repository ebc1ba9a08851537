"""Keys and values of the pinned maps as bytes, and the table of maps with their attributes.

Pure: no kernel, no files. Mirrors the structs of bpf/lib/*.h; tests/datapath/test_abi.py compares the two
through BTF. Outside this module addresses are `ipaddress` objects and ports host order; inside,
integers of the kernel are little endian (amd64, arm64) and addresses network order.
Source of the layouts: docs/abi.md.
"""

import struct
from dataclasses import dataclass
from enum import IntEnum, IntFlag
from ipaddress import IPv4Address, IPv4Network
from typing import ClassVar, Self

FAMILY_IPV4 = 1
ENDPOINT_ID_MAX = 65535


class MapType(IntEnum):
    """`enum bpf_map_type` of linux/bpf.h, those in use."""

    HASH = 1
    ARRAY = 2
    PROG_ARRAY = 3
    PERF_EVENT_ARRAY = 4
    PERCPU_HASH = 5
    PERCPU_ARRAY = 6
    LRU_HASH = 9
    LPM_TRIE = 11


NO_PREALLOC = 1
"""BPF_F_NO_PREALLOC."""


@dataclass(frozen=True, slots=True)
class MapSpec:
    """Attributes of a map; a pinned one must agree with every one of them."""

    name: str
    type: MapType
    key_size: int
    value_size: int
    max_entries: int
    """0: the number of possible CPUs."""
    flags: int = 0


POLICY_SPEC = MapSpec("cilium_policy_v2", MapType.LPM_TRIE, 12, 12, 16384, NO_PREALLOC)
"""One per endpoint, pinned as `policy_map_name(id)`."""

GLOBAL_MAPS: tuple[MapSpec, ...] = (
    MapSpec("cilium_ipcache", MapType.LPM_TRIE, 24, 12, 512000, NO_PREALLOC),
    MapSpec("cilium_lxc", MapType.HASH, 20, 48, 65536, NO_PREALLOC),
    MapSpec("cilium_tunnel_map", MapType.HASH, 20, 20, 65536, NO_PREALLOC),
    MapSpec("cilium_ct4_global", MapType.LRU_HASH, 14, 64, 131072),
    MapSpec("cilium_ct_any4_global", MapType.LRU_HASH, 14, 64, 65536),
    MapSpec("cilium_metrics", MapType.PERCPU_HASH, 8, 16, 65536, NO_PREALLOC),
    MapSpec("cilium_call_policy", MapType.PROG_ARRAY, 4, 4, 65536),
    MapSpec("cilium_events", MapType.PERF_EVENT_ARRAY, 4, 4, 0),
    MapSpec("cilium_signals", MapType.PERF_EVENT_ARRAY, 4, 4, 0),
    MapSpec("cilium_runtime_config", MapType.ARRAY, 4, 8, 256),
    MapSpec("palomar_policy_revision", MapType.ARRAY, 4, 4, 65536),
    MapSpec("palomar_event_stats", MapType.PERCPU_ARRAY, 4, 24, 1),
)
"""Every map shared by a node's programs."""


def policy_map_name(endpoint_id: int) -> str:
    """Return the pin name of an endpoint's policy map."""
    return f"{POLICY_SPEC.name}_{endpoint_id:05d}"


def calls_map_name(owner: int | str) -> str:
    """Return the pin name of a tail call map: an endpoint id or `netdev_00007`, `overlay_00007`."""
    return f"cilium_calls_{owner:05d}" if isinstance(owner, int) else f"cilium_calls_{owner}"


class RuntimeConfig(IntEnum):
    """Indices of `cilium_runtime_config` that Palomar uses (0 and 1 are the field's)."""

    UTIME_OFFSET = 0
    AGENT_LIVENESS = 1
    AGGREGATION = 16
    REPORT_INTERVAL_NS = 17
    EVENTS_OFF = 18
    AUDIT_MODE = 19


class Direction(IntEnum):
    """Of a conntrack entry or of policy, seen from the endpoint."""

    OUT = 0
    IN = 1
    RELATED = 2


class EndpointFlag(IntFlag):
    """`flags` of a `cilium_lxc` value."""

    HOST = 1


class CtFlag(IntFlag):
    """`flags` of a conntrack value."""

    RX_CLOSING = 0x01
    TX_CLOSING = 0x02
    SEEN_NON_SYN = 0x10


def _mac(raw: bytes) -> bytes:
    if len(raw) != 6:
        raise ValueError(f"a MAC address has 6 bytes, not {len(raw)}")
    return raw


@dataclass(frozen=True, slots=True)
class IpcacheKey:
    """C `struct ipcache_key`: {u32 prefixlen, u16 pad, u8 pad, u8 family, u8 ip[16]}."""

    net: IPv4Network
    FORMAT: ClassVar[struct.Struct] = struct.Struct("<IHBB4s12x")
    STATIC_PREFIX_BITS: ClassVar[int] = 32

    def pack(self) -> bytes:
        """Return the 24 bytes of the key."""
        return self.FORMAT.pack(
            self.STATIC_PREFIX_BITS + self.net.prefixlen, 0, 0, FAMILY_IPV4, self.net.network_address.packed
        )

    @classmethod
    def unpack(cls, raw: bytes) -> Self:
        """Read 24 bytes."""
        prefixlen, _, _, _, address = cls.FORMAT.unpack(raw)
        return cls(IPv4Network((address, prefixlen - cls.STATIC_PREFIX_BITS), strict=False))


@dataclass(frozen=True, slots=True)
class IpcacheEntry:
    """C `struct remote_endpoint_info`: {u32 sec_label, be32 tunnel_endpoint, u8 key, u8 pad[3]}."""

    identity: int
    tunnel_endpoint: IPv4Address | None = None
    """The node the address lives on; None: not behind a tunnel."""
    encrypt_key: int = 0
    FORMAT: ClassVar[struct.Struct] = struct.Struct("<I4sB3x")

    def pack(self) -> bytes:
        """Return the 12 bytes of the value."""
        node = self.tunnel_endpoint.packed if self.tunnel_endpoint else bytes(4)
        return self.FORMAT.pack(self.identity, node, self.encrypt_key)

    @classmethod
    def unpack(cls, raw: bytes) -> Self:
        """Read 12 bytes."""
        identity, node, key = cls.FORMAT.unpack(raw)
        return cls(identity, IPv4Address(node) if any(node) else None, key)


@dataclass(frozen=True, slots=True)
class EndpointKey:
    """C `struct endpoint_key`: {u8 ip[16], u8 family, u8 key, u16 cluster_id}."""

    ipv4: IPv4Address
    FORMAT: ClassVar[struct.Struct] = struct.Struct("<4s12xBBH")

    def pack(self) -> bytes:
        """Return the 20 bytes of the key."""
        return self.FORMAT.pack(self.ipv4.packed, FAMILY_IPV4, 0, 0)

    @classmethod
    def unpack(cls, raw: bytes) -> Self:
        """Read 20 bytes."""
        return cls(IPv4Address(cls.FORMAT.unpack(raw)[0]))


@dataclass(frozen=True, slots=True)
class EndpointInfo:
    """C `struct endpoint_info`, 48 bytes: where and how packets for a local address are delivered."""

    ifindex: int
    endpoint_id: int
    mac: bytes
    """The pod's side, 6 bytes."""
    node_mac: bytes
    """The host's side, 6 bytes."""
    identity: int = 0
    flags: int = 0
    """`EndpointFlag` bits."""
    parent_ifindex: int = 0
    FORMAT: ClassVar[struct.Struct] = struct.Struct("<IHHI4x6s2x6s2xII8x")

    def pack(self) -> bytes:
        """Return the 48 bytes of the value; ValueError for a MAC that is not 6 bytes."""
        return self.FORMAT.pack(
            self.ifindex,
            0,
            self.endpoint_id,
            self.flags,
            _mac(self.mac),
            _mac(self.node_mac),
            self.identity,
            self.parent_ifindex,
        )

    @classmethod
    def unpack(cls, raw: bytes) -> Self:
        """Read 48 bytes."""
        ifindex, _, endpoint_id, flags, mac, node_mac, identity, parent = cls.FORMAT.unpack(raw)
        return cls(ifindex, endpoint_id, mac, node_mac, identity, flags, parent)


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


@dataclass(frozen=True, slots=True)
class TunnelKey:
    """C `struct tunnel_key`, 20 bytes: the network address of a node's pod CIDR."""

    prefix: IPv4Address
    FORMAT: ClassVar[struct.Struct] = struct.Struct("<4s12xBBH")

    def pack(self) -> bytes:
        """Return the 20 bytes of the key."""
        return self.FORMAT.pack(self.prefix.packed, FAMILY_IPV4, 0, 0)

    @classmethod
    def unpack(cls, raw: bytes) -> Self:
        """Read 20 bytes."""
        return cls(IPv4Address(cls.FORMAT.unpack(raw)[0]))


@dataclass(frozen=True, slots=True)
class TunnelEntry:
    """C `struct tunnel_value`, 20 bytes: the node behind a pod CIDR."""

    node_ipv4: IPv4Address
    encrypt_key: int = 0
    FORMAT: ClassVar[struct.Struct] = struct.Struct("<4s12xBBH")

    def pack(self) -> bytes:
        """Return the 20 bytes of the value."""
        return self.FORMAT.pack(self.node_ipv4.packed, FAMILY_IPV4, self.encrypt_key, 0)

    @classmethod
    def unpack(cls, raw: bytes) -> Self:
        """Read 20 bytes."""
        node, _, key, _ = cls.FORMAT.unpack(raw)
        return cls(IPv4Address(node), key)


@dataclass(frozen=True, slots=True)
class MetricsKey:
    """C `struct metrics_key`, 8 bytes: {u8 reason, u8 dir bits 0..1, u16 line, u8 file, u8[3]}."""

    reason: int
    """0: forwarded; else a drop reason."""
    direction: int
    """0 unknown, 1 ingress, 2 egress."""
    line: int
    file: int
    FORMAT: ClassVar[struct.Struct] = struct.Struct("<BBHB3x")

    def pack(self) -> bytes:
        """Return the 8 bytes of the key."""
        return self.FORMAT.pack(self.reason, self.direction, self.line, self.file)

    @classmethod
    def unpack(cls, raw: bytes) -> Self:
        """Read 8 bytes."""
        reason, direction, line, file = cls.FORMAT.unpack(raw)
        return cls(reason, direction & 3, line, file)


@dataclass(frozen=True, slots=True)
class MetricsValue:
    """C `struct metrics_value`, 16 bytes, of one CPU or summed."""

    packets: int
    bytes: int
    FORMAT: ClassVar[struct.Struct] = struct.Struct("<QQ")


@dataclass(frozen=True, slots=True)
class EventStats:
    """C `struct event_stats` of one CPU: what the programs tried to say there."""

    cpu: int
    emitted: int
    """Events tried, also when the ring was full: the next sequence number."""
    failed: int
    """Of these, those the perf ring refused."""
    suppressed: int
    """Not tried at all: events are switched off, or aggregated away."""
