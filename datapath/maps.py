"""The pinned maps of a node with typed keys and values: create or check them, read them, change them.

Not their layout (`abi.py`) and not the programs. The agent's reconcilers write here, the CLI reads
(`open_maps`), programs do both. Updates and deletes are idempotent; a failed one raises `MapError`, which
may be retried. Big dumps go in batches of 4,096 entries per system call.
"""

import ctypes as ct
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from dataclasses import replace as replaced
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Generic, TypeVar

from datapath import libbpf, tables
from datapath.abi import (
    GLOBAL_MAPS,
    POLICY_SPEC,
    CtEntry,
    CtKey,
    EndpointInfo,
    EndpointKey,
    EventStats,
    IpcacheEntry,
    IpcacheKey,
    MapSpec,
    MapType,
    MetricsKey,
    MetricsValue,
    PolicyEntry,
    PolicyKey,
    RuntimeConfig,
    TunnelEntry,
    TunnelKey,
    policy_map_name,
)
from datapath.errors import MapDifference, MapError, MapMismatchError, MapMissingError
from datapath.loader import map_info, open_pinned, pin

K = TypeVar("K")
V = TypeVar("V")

BATCH = 4096
_ENOENT, _ENOSPC = 2, 28


@dataclass(frozen=True, slots=True)
class GcCount:
    """What one pass over conntrack saw and removed."""

    seen: int
    deleted: int


class RawMap:
    """A pinned hash or trie as bytes."""

    def __init__(self, spec: MapSpec, fd: int) -> None:
        """Take ownership of `fd`."""
        self.spec = spec
        self.fd = fd

    def lookup(self, key: bytes) -> bytes | None:
        """Return the value under `key`; None where there is none. A trie answers with its longest match."""
        value = ct.create_string_buffer(self.spec.value_size)
        if libbpf.map_lookup_elem(self.fd, key, value) == 0:
            return value.raw
        errno = libbpf.last_errno()
        if errno == _ENOENT:
            return None
        raise self._error("lookup", errno)

    def update(self, key: bytes, value: bytes) -> None:
        """Write `value` under `key`, whether or not it is there."""
        if libbpf.map_update_elem(self.fd, key, value, 0) != 0:
            raise self._error(f"update {key.hex()}", libbpf.last_errno())

    def delete(self, key: bytes) -> bool:
        """Remove `key`; False where it was not there."""
        if libbpf.map_delete_elem(self.fd, key) == 0:
            return True
        errno = libbpf.last_errno()
        if errno == _ENOENT:
            return False
        raise self._error(f"delete {key.hex()}", errno)

    def batches(self) -> Iterator[tuple[int, bytes, bytes]]:
        """Yield (count, keys, values), each a concatenation of `count` items.

        Entries that change meanwhile may be missed or seen twice, as with any walk over a live map.
        """
        size = BATCH
        token = ct.create_string_buffer(max(4, self.spec.key_size))
        started = False
        while True:
            keys = ct.create_string_buffer(size * self.spec.key_size)
            values = ct.create_string_buffer(size * self.spec.value_size)
            count = ct.c_uint32(size)
            status = libbpf.map_lookup_batch(
                self.fd, token if started else None, token, keys, values, ct.byref(count), None
            )
            errno = 0 if status == 0 else libbpf.last_errno()
            if errno == _ENOSPC:
                size *= 2  # one hash bucket holds more than the batch
                continue
            if errno not in (0, _ENOENT):
                raise self._error("lookup batch", errno)
            started = True
            n = count.value
            if n:
                yield n, keys.raw[: n * self.spec.key_size], values.raw[: n * self.spec.value_size]
            if errno == _ENOENT:
                return

    def items(self) -> Iterator[tuple[bytes, bytes]]:
        """Yield every key with its value."""
        key_size, value_size = self.spec.key_size, self.spec.value_size
        for count, keys, values in self.batches():
            for i in range(count):
                yield (
                    keys[i * key_size : (i + 1) * key_size],
                    values[i * value_size : (i + 1) * value_size],
                )

    def delete_batch(self, keys: list[bytes]) -> int:
        """Remove `keys`; return how many were there."""
        deleted, position = 0, 0
        while position < len(keys):
            rest = keys[position:]
            count = ct.c_uint32(len(rest))
            status = libbpf.map_delete_batch(self.fd, b"".join(rest), ct.byref(count), None)
            deleted += count.value
            if status == 0:
                break
            errno = libbpf.last_errno()
            if errno != _ENOENT:
                raise self._error("delete batch", errno)
            position += count.value + 1  # the kernel stops at the first key that is gone
        return deleted

    def close(self) -> None:
        """Close the descriptor. Idempotent."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def _error(self, operation: str, errno: int) -> MapError:
        return MapError(self.spec.name, operation, errno, libbpf.reason(errno))


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


class PolicyMap:
    """`cilium_policy_v2_NNNNN`: one endpoint's allowed and denied traffic."""

    def __init__(self, raw: RawMap, path: Path) -> None:
        """Wrap `raw`, pinned at `path`."""
        self.raw = raw
        self.path = path

    def upsert(self, key: PolicyKey, entry: PolicyEntry) -> None:
        """Write the decision under `key`. Idempotent."""
        self.raw.update(key.pack(), entry.pack(key))

    def delete(self, key: PolicyKey) -> bool:
        """Remove `key`; False where it was not there."""
        return self.raw.delete(key.pack())

    def items(self) -> dict[PolicyKey, PolicyEntry]:
        """Return every entry."""
        return {PolicyKey.unpack(key): PolicyEntry.unpack(value) for key, value in self.raw.items()}

    def remove(self) -> None:
        """Unpin the map; programs that use it keep it until they go. Idempotent."""
        self.path.unlink(missing_ok=True)
        self.raw.close()


class ConntrackMaps:
    """`cilium_ct4_global` (TCP) and `cilium_ct_any4_global` (the rest)."""

    def __init__(self, tcp: RawMap, other: RawMap) -> None:
        """Wrap both."""
        self.tcp = tcp
        self.other = other

    def items(self) -> Iterator[tuple[CtKey, CtEntry]]:
        """Yield every tracked connection, TCP first."""
        for raw in (self.tcp, self.other):
            for key, value in raw.items():
                yield CtKey.unpack(key), CtEntry.unpack(value)

    def get(self, key: CtKey) -> CtEntry | None:
        """Return the entry under `key`."""
        value = self._map_of(key).lookup(key.pack())
        return None if value is None else CtEntry.unpack(value)

    def delete(self, key: CtKey) -> bool:
        """Forget the connection; its next packet is judged as new."""
        return self._map_of(key).delete(key.pack())

    def forget_addresses(self, addresses: frozenset[IPv4Address]) -> int:
        """Remove every connection from or to one of `addresses`; at most 2 ms per 4,096 entries."""
        packed = {address.packed for address in addresses}
        deleted = 0
        for raw in (self.tcp, self.other):
            size = raw.spec.key_size
            gone = []
            for count, keys, _ in raw.batches():
                if any(address in keys for address in packed):  # a byte search: most batches end here
                    each = (keys[i * size : (i + 1) * size] for i in range(count))
                    gone += [key for key in each if key[0:4] in packed or key[4:8] in packed]
            if gone:
                deleted += raw.delete_batch(gone)
        return deleted

    def flush(self) -> int:
        """Forget every connection; return how many there were."""
        return sum(raw.delete_batch([key for key, _ in raw.items()]) for raw in (self.tcp, self.other))

    def gc(self, now_s: int) -> GcCount:
        """Remove entries whose lifetime ended before `now_s` (seconds of CLOCK_MONOTONIC).

        About 1 ms per 4,096 entries. An entry that a packet renews between reading and deleting is lost
        once and made again by the next packet.
        """
        seen = deleted = 0
        for raw in (self.tcp, self.other):
            for count, keys, values in list(raw.batches()):
                seen += count
                words = memoryview(values).cast("I")
                lifetimes = words[CtEntry.LIFETIME_OFFSET // 4 :: CtEntry.FORMAT.size // 4].tolist()
                size = raw.spec.key_size
                expired = [
                    keys[i * size : (i + 1) * size] for i, life in enumerate(lifetimes) if life < now_s
                ]
                if expired:
                    deleted += raw.delete_batch(expired)
        return GcCount(seen, deleted)

    def _map_of(self, key: CtKey) -> RawMap:
        return self.tcp if key.protocol == 6 else self.other


class MetricsMap:
    """`cilium_metrics`: packets and bytes by drop reason (0: forwarded), direction and source line."""

    def __init__(self, raw: RawMap) -> None:
        """Wrap `raw`."""
        self.raw = raw

    def items(self) -> dict[MetricsKey, MetricsValue]:
        """Return the counters, summed over CPUs."""
        return {
            MetricsKey.unpack(key): MetricsValue(sum(v[0] for v in per_cpu), sum(v[1] for v in per_cpu))
            for key, per_cpu in tables.per_cpu_hash(self.raw.spec, self.raw.fd).items()
        }


class RuntimeConfigMap:
    """`cilium_runtime_config`: switches that running programs read."""

    def __init__(self, raw: RawMap) -> None:
        """Wrap `raw`."""
        self._array = tables.NumberArray(raw.spec, raw.fd)

    def get(self, index: int) -> int:
        """Return the value at a `RuntimeConfig` index."""
        return self._array.get(index)

    def set(self, index: int, value: int) -> None:
        """Write the value at a `RuntimeConfig` index."""
        self._array.set(index, value)

    def items(self) -> dict[RuntimeConfig, int]:
        """Return the values of the known indices."""
        return {index: self._array.get(index) for index in RuntimeConfig}


class DatapathMaps:
    """Every map of one node. Made by `ensure_maps` (the agent) or `open_maps` (the CLI)."""

    def __init__(self, globals_dir: Path, maps: dict[str, RawMap], create: bool) -> None:
        """Take ownership of the descriptors in `maps`, by name."""
        self.globals_dir = globals_dir
        self._maps = maps
        self._create = create
        self._policies: dict[int, PolicyMap] = {}
        self.ipcache = IpcacheMap(maps["cilium_ipcache"])
        self.lxc = EndpointMap(maps["cilium_lxc"])
        self.tunnel = TunnelMap(maps["cilium_tunnel_map"])
        self.ct = ConntrackMaps(maps["cilium_ct4_global"], maps["cilium_ct_any4_global"])
        self.metrics = MetricsMap(maps["cilium_metrics"])
        self.runtime_config = RuntimeConfigMap(maps["cilium_runtime_config"])
        self.call_policy = _program_array(maps["cilium_call_policy"])
        self._revisions = tables.NumberArray(
            maps["palomar_policy_revision"].spec, maps["palomar_policy_revision"].fd
        )

    def raw(self, name: str) -> RawMap:
        """Return a shared map by its pin name; KeyError for an unknown one."""
        return self._maps[name]

    def policy(self, endpoint_id: int) -> PolicyMap:
        """Return the endpoint's policy map; the owner of the node creates it, empty, where it is missing.

        An empty policy map denies everything. `MapMissingError` for a reader.
        """
        known = self._policies.get(endpoint_id)
        if known is not None and known.raw.fd >= 0 and known.path.exists():
            return known
        if known is not None:
            known.raw.close()
        path = self.globals_dir / policy_map_name(endpoint_id)
        spec = replaced(POLICY_SPEC, name=path.name)
        fd = _open_checked(spec, path, self._create)
        self._policies[endpoint_id] = PolicyMap(RawMap(spec, fd), path)
        return self._policies[endpoint_id]

    def remove_policy(self, endpoint_id: int) -> None:
        """Unpin the endpoint's policy map. Idempotent."""
        known = self._policies.pop(endpoint_id, None)
        if known is not None:
            known.remove()
        (self.globals_dir / policy_map_name(endpoint_id)).unlink(missing_ok=True)

    def policy_endpoint_ids(self) -> list[int]:
        """Return the endpoints that have a pinned policy map, in order."""
        prefix = POLICY_SPEC.name + "_"
        names = (path.name for path in self.globals_dir.glob(prefix + "*"))
        return sorted(int(n.removeprefix(prefix)) for n in names if n.removeprefix(prefix).isdigit())

    def bump_policy_revision(self, endpoint_id: int) -> int:
        """Make every live connection of the endpoint be judged anew; call it after the map changed."""
        revision = (self._revisions.get(endpoint_id) + 1) & 0xFFFFFFFF
        self._revisions.set(endpoint_id, revision)
        return revision

    def policy_revision(self, endpoint_id: int) -> int:
        """Return the endpoint's policy revision."""
        return self._revisions.get(endpoint_id)

    def event_stats(self) -> list[EventStats]:
        """Return what the programs tried to emit, one row per possible CPU."""
        raw = self._maps["palomar_event_stats"]
        rows = tables.per_cpu_array(raw.spec, raw.fd)
        return [EventStats(cpu, row[0], row[1], row[2]) for cpu, row in enumerate(rows)]

    def close(self) -> None:
        """Close every descriptor; pins stay. Idempotent."""
        for policy in self._policies.values():
            policy.raw.close()
        self._policies.clear()
        for raw in self._maps.values():
            raw.close()


def specs(ct_tcp_max: int = 131072, ct_any_max: int = 65536) -> tuple[MapSpec, ...]:
    """Return the shared maps with the configured sizes."""
    sizes = {
        "cilium_ct4_global": ct_tcp_max,
        "cilium_ct_any4_global": ct_any_max,
        "cilium_events": libbpf.possible_cpus(),
        "cilium_signals": libbpf.possible_cpus(),
    }
    return tuple(replaced(spec, max_entries=sizes.get(spec.name, spec.max_entries)) for spec in GLOBAL_MAPS)


def ensure_maps(globals_dir: Path, wanted: tuple[MapSpec, ...]) -> DatapathMaps:
    """Open the pinned maps and create the missing ones.

    Raises `MapMismatchError` naming every attribute of every map that differs, before anything is created.
    """
    globals_dir.mkdir(parents=True, exist_ok=True)
    descriptors: dict[str, int] = {}
    try:
        differences: list[MapDifference] = []
        for spec in wanted:
            path = globals_dir / spec.name
            if path.exists():
                descriptors[spec.name] = open_pinned(path)
                differences += compare(spec, path, descriptors[spec.name])
        if differences:
            raise MapMismatchError(tuple(differences))
        for spec in wanted:
            if spec.name not in descriptors:
                descriptors[spec.name] = create_pinned(spec, globals_dir / spec.name)
    except BaseException:
        for fd in descriptors.values():
            os.close(fd)
        raise
    raw = {spec.name: RawMap(spec, descriptors[spec.name]) for spec in wanted}
    return DatapathMaps(globals_dir, raw, create=True)


def open_maps(bpf_root: Path) -> DatapathMaps:
    """Open a node's pinned maps to look at them; sizes are taken as they are.

    `MapMissingError` where no agent ever ran with this root, `MapMismatchError` for another build's layout.
    """
    globals_dir = bpf_root / "tc" / "globals"
    raw: dict[str, RawMap] = {}
    try:
        for spec in GLOBAL_MAPS:
            path = globals_dir / spec.name
            fd = open_pinned(path)
            found = replaced(spec, max_entries=map_info(fd).max_entries)
            raw[spec.name] = RawMap(found, fd)
            differences = tuple(compare(found, path, fd))
            if differences:
                raise MapMismatchError(differences)
    except BaseException:
        for opened in raw.values():
            opened.close()
        raise
    return DatapathMaps(globals_dir, raw, create=False)


def compare(spec: MapSpec, path: Path, fd: int) -> Iterator[MapDifference]:
    """Yield every attribute in which the map behind `fd` is not `spec`."""
    pinned = map_info(fd)
    rows = (
        ("type", libbpf.type_name(spec.type), libbpf.type_name(pinned.type)),
        ("key size", str(spec.key_size), str(pinned.key_size)),
        ("value size", str(spec.value_size), str(pinned.value_size)),
        ("max entries", str(spec.max_entries), str(pinned.max_entries)),
        ("flags", hex(spec.flags), hex(pinned.flags)),
    )
    for attribute, needed, found in rows:
        if needed != found:
            yield MapDifference(path, attribute, needed, found)


def create_pinned(spec: MapSpec, path: Path) -> int:
    """Create a map and pin it at `path`; return its descriptor.

    Without BTF on purpose: bpftool then prints keys and values as the bytes the seeds show.
    """
    name = spec.name.encode()[:15]
    fd = int(
        libbpf.map_create(
            spec.type,
            name,
            spec.key_size,
            spec.value_size,
            spec.max_entries,
            ct.byref(libbpf.MapCreateOpts(ct.sizeof(libbpf.MapCreateOpts), map_flags=spec.flags)),
        )
    )
    if fd < 0:
        errno = libbpf.last_errno()
        raise MapError(spec.name, "create", errno, libbpf.reason(errno))
    try:
        pin(fd, path)
    except MapError:
        os.close(fd)
        raise
    return fd


def _open_checked(spec: MapSpec, path: Path, create: bool) -> int:
    try:
        fd = open_pinned(path)
    except MapMissingError:
        if not create:
            raise
        return create_pinned(spec, path)
    differences = tuple(compare(spec, path, fd))
    if differences:
        os.close(fd)
        raise MapMismatchError(differences)
    return fd


def _program_array(raw: RawMap) -> tables.ProgramArray:
    assert raw.spec.type is MapType.PROG_ARRAY
    return tables.ProgramArray(raw.spec, raw.fd)
