"""Keys and values of the maps that are asked for an address: ipcache, local endpoints, tunnels.

Pure. Mirrors bpf/lib/eps.h.
"""

import struct
from dataclasses import dataclass
from enum import IntFlag
from ipaddress import IPv4Address, IPv4Network
from typing import ClassVar, Self

FAMILY_IPV4 = 1


class EndpointFlag(IntFlag):
    """`flags` of a `cilium_lxc` value."""

    HOST = 1


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
