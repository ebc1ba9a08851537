"""The way of the ipcache and the tunnel table into the kernel's maps, and a fake of those maps.

`IpMaps` is the part of `datapath.maps.node.DatapathMaps` that is needed here. The targets are what
`palomar.reconciler.Reconciler` writes to; `strangers` lists what the maps hold beyond the wishes.
"""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from typing import Protocol

from datapath.abi.addresses import IpcacheEntry, IpcacheKey, TunnelEntry, TunnelKey
from palomar.errors import TransientError


class IpcacheMap(Protocol):
    """`cilium_ipcache`."""

    def upsert(self, net: IPv4Network, identity: int, tunnel_endpoint: IPv4Address | None = None) -> None:
        """Write an entry."""
        ...

    def delete(self, net: IPv4Network) -> bool:
        """Remove an entry; False where it was not there."""
        ...

    def items(self) -> Iterator[tuple[IpcacheKey, IpcacheEntry]]:
        """Yield every entry."""
        ...


class TunnelMap(Protocol):
    """`cilium_tunnel_map`: keyed by the network address of a pod CIDR alone."""

    def upsert(self, pod_cidr: IPv4Network, node_ipv4: IPv4Address) -> None:
        """Write an entry."""
        ...

    def delete(self, pod_cidr: IPv4Network) -> bool:
        """Remove an entry; False where it was not there."""
        ...

    def items(self) -> Iterator[tuple[TunnelKey, TunnelEntry]]:
        """Yield every entry."""
        ...


class IpMaps(Protocol):
    """The maps of a node that say where addresses are."""

    @property
    def ipcache(self) -> IpcacheMap:
        """`cilium_ipcache`."""
        ...

    @property
    def tunnel(self) -> TunnelMap:
        """`cilium_tunnel_map`."""
        ...


@dataclass(frozen=True, slots=True)
class IpcacheWish:
    """What the datapath is to find for a prefix."""

    identity: int
    tunnel_endpoint: IPv4Address | None


class IpcacheTarget:
    """Writes ipcache wishes."""

    def __init__(self, maps: IpMaps) -> None:
        """Write to `maps.ipcache`."""
        self._map = maps.ipcache

    def update(self, key: IPv4Network, value: IpcacheWish) -> None:
        """Make the entry be there."""
        self._map.upsert(key, value.identity, value.tunnel_endpoint)

    def delete(self, key: IPv4Network) -> None:
        """Make the entry be absent."""
        self._map.delete(key)

    def strangers(self, wished: Collection[IPv4Network]) -> dict[IPv4Network, IPv4Address | None]:
        """Return what is there and not wished, with its tunnel endpoint."""
        return {key.net: entry.tunnel_endpoint for key, entry in self._map.items() if key.net not in wished}


class TunnelTarget:
    """Writes tunnel wishes: network address of a pod CIDR to the node's address."""

    def __init__(self, maps: IpMaps) -> None:
        """Write to `maps.tunnel`."""
        self._map = maps.tunnel

    def update(self, key: IPv4Address, value: IPv4Address) -> None:
        """Make the entry be there."""
        self._map.upsert(IPv4Network(key), value)

    def delete(self, key: IPv4Address) -> None:
        """Make the entry be absent."""
        self._map.delete(IPv4Network(key))

    def strangers(self, wished: Collection[IPv4Address]) -> list[IPv4Address]:
        """Return the pod CIDRs that are there and not wished."""
        return [key.prefix for key, _ in self._map.items() if key.prefix not in wished]


class FakeIpcacheMap:
    """An `IpcacheMap` in memory; `broken` makes every write fail."""

    def __init__(self) -> None:
        """Start empty."""
        self.entries: dict[IPv4Network, IpcacheEntry] = {}
        self.broken = False

    def upsert(self, net: IPv4Network, identity: int, tunnel_endpoint: IPv4Address | None = None) -> None:
        """Write an entry."""
        self._check()
        self.entries[net] = IpcacheEntry(identity, tunnel_endpoint)

    def delete(self, net: IPv4Network) -> bool:
        """Remove an entry."""
        self._check()
        return self.entries.pop(net, None) is not None

    def items(self) -> Iterator[tuple[IpcacheKey, IpcacheEntry]]:
        """Yield every entry."""
        for net, entry in list(self.entries.items()):
            yield IpcacheKey(net), entry

    def _check(self) -> None:
        if self.broken:
            raise TransientError("fake ipcache map is broken: repair it")


class FakeTunnelMap:
    """A `TunnelMap` in memory."""

    def __init__(self) -> None:
        """Start empty."""
        self.entries: dict[IPv4Address, IPv4Address] = {}

    def upsert(self, pod_cidr: IPv4Network, node_ipv4: IPv4Address) -> None:
        """Write an entry."""
        self.entries[pod_cidr.network_address] = node_ipv4

    def delete(self, pod_cidr: IPv4Network) -> bool:
        """Remove an entry."""
        return self.entries.pop(pod_cidr.network_address, None) is not None

    def items(self) -> Iterator[tuple[TunnelKey, TunnelEntry]]:
        """Yield every entry."""
        for prefix, node in list(self.entries.items()):
            yield TunnelKey(prefix), TunnelEntry(node)


class FakeIpMaps:
    """`IpMaps` in memory."""

    def __init__(self) -> None:
        """Start empty."""
        self.ipcache = FakeIpcacheMap()
        self.tunnel = FakeTunnelMap()
