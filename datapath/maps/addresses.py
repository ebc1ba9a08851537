"""The maps that are asked for an address: ipcache, local endpoints, tunnels.

The agent's reconcilers write, programs and the CLI read. Bytes are `datapath.abi.addresses`.
"""

from collections.abc import Callable, Iterator
from ipaddress import IPv4Address, IPv4Network
from typing import Generic, TypeVar

from datapath.abi.addresses import EndpointInfo, EndpointKey, IpcacheEntry, IpcacheKey, TunnelEntry, TunnelKey
from datapath.maps.raw import RawMap

K = TypeVar("K")
V = TypeVar("V")


class TypedMap(Generic[K, V]):
    """A hash or trie with the codecs of its key and value."""

    def __init__(
        self,
        raw: RawMap,
        encode_key: Callable[[K], bytes],
        decode_key: Callable[[bytes], K],
        encode: Callable[[V], bytes],
        decode: Callable[[bytes], V],
    ) -> None:
        """Wrap `raw`."""
        self.raw = raw
        self._encode_key, self._decode_key = encode_key, decode_key
        self._encode, self._decode = encode, decode

    def get(self, key: K) -> V | None:
        """Return the value under `key` (a trie: the longest match); None where there is none."""
        value = self.raw.lookup(self._encode_key(key))
        return None if value is None else self._decode(value)

    def put(self, key: K, value: V) -> None:
        """Write `value` under `key`. Idempotent."""
        self.raw.update(self._encode_key(key), self._encode(value))

    def remove(self, key: K) -> bool:
        """Remove `key`; False where it was not there. Idempotent."""
        return self.raw.delete(self._encode_key(key))

    def items(self) -> Iterator[tuple[K, V]]:
        """Yield every key with its value."""
        for key, value in self.raw.items():
            yield self._decode_key(key), self._decode(value)


class IpcacheMap(TypedMap[IpcacheKey, IpcacheEntry]):
    """`cilium_ipcache`: address prefix to identity and node."""

    def __init__(self, raw: RawMap) -> None:
        """Wrap `raw`."""
        super().__init__(raw, IpcacheKey.pack, IpcacheKey.unpack, IpcacheEntry.pack, IpcacheEntry.unpack)

    def upsert(self, net: IPv4Network, identity: int, tunnel_endpoint: IPv4Address | None = None) -> None:
        """Say that `net` has `identity` and lives on the node `tunnel_endpoint` (None: no tunnel)."""
        self.put(IpcacheKey(net), IpcacheEntry(identity, tunnel_endpoint))

    def delete(self, net: IPv4Network) -> bool:
        """Forget `net`; False where it was not there."""
        return self.remove(IpcacheKey(net))

    def lookup(self, address: IPv4Address) -> IpcacheEntry | None:
        """Return what the programs find for `address`: the longest match."""
        return self.get(IpcacheKey(IPv4Network(address)))


class EndpointMap(TypedMap[EndpointKey, EndpointInfo]):
    """`cilium_lxc`: local address to device and endpoint."""

    def __init__(self, raw: RawMap) -> None:
        """Wrap `raw`."""
        super().__init__(raw, EndpointKey.pack, EndpointKey.unpack, EndpointInfo.pack, EndpointInfo.unpack)

    def upsert(self, ipv4: IPv4Address, info: EndpointInfo) -> None:
        """Say how packets for the local address are delivered."""
        self.put(EndpointKey(ipv4), info)

    def delete(self, ipv4: IPv4Address) -> bool:
        """Forget the address; False where it was not there."""
        return self.remove(EndpointKey(ipv4))

    def lookup(self, ipv4: IPv4Address) -> EndpointInfo | None:
        """Return the endpoint at `ipv4`."""
        return self.get(EndpointKey(ipv4))


class TunnelMap(TypedMap[TunnelKey, TunnelEntry]):
    """`cilium_tunnel_map`: a node's pod CIDR to the node."""

    def __init__(self, raw: RawMap) -> None:
        """Wrap `raw`."""
        super().__init__(raw, TunnelKey.pack, TunnelKey.unpack, TunnelEntry.pack, TunnelEntry.unpack)

    def upsert(self, pod_cidr: IPv4Network, node_ipv4: IPv4Address) -> None:
        """Say that pods of `pod_cidr` live behind `node_ipv4`."""
        self.put(TunnelKey(pod_cidr.network_address), TunnelEntry(node_ipv4))

    def delete(self, pod_cidr: IPv4Network) -> bool:
        """Forget the pod CIDR; False where it was not there."""
        return self.remove(TunnelKey(pod_cidr.network_address))
