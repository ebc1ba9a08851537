"""A node without devices: the real objects loaded for the cast, run packet by packet in the kernel.

Not the product's `NodeDatapath` (no netlink, nothing attached): programs are run by BPF_PROG_TEST_RUN, so
maps, events and the packet that comes out are real, and where a redirect leads is seen from the event's
interface. Input: packets of `tests.kit.packets`; output: `Outcome`. Maps are pinned under a folder of this
process and go with it.
"""

import os
import shutil
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from datapath import libbpf, progtest
from datapath.abi.addresses import EndpointFlag, EndpointInfo
from datapath.abi.conntrack import CtEntry, CtKey, Direction
from datapath.abi.mapspecs import GLOBAL_MAPS, MapSpec, MapType
from datapath.abi.policy import PolicyEntry, PolicyKey
from datapath.bpffs import ensure_mounted
from datapath.loader import BpfObject, u32_be
from datapath.maps.node import ensure_maps, specs
from datapath.maps.raw import RawMap
from datapath.pins import create_pinned
from datapath.tables import ProgramArray
from palomar.verdict import EventType
from tests.kit.eventreader import EventReader
from tests.kit.packets import (
    NODE_ONE,
    NODE_TWO,
    POD_ONE,
    POD_REMOTE,
    POD_TWO,
    ROUTER_ONE,
    ROUTER_TWO,
    Host,
    Packet,
)

OBJECTS = Path(__file__).resolve().parents[2] / "datapath" / "objects"
TC_ACT_OK, TC_ACT_SHOT, TC_ACT_REDIRECT = 0, 2, 7
HOST_IFINDEX, TUNNEL_IFINDEX = 1001, 1002
CALL_HANDLE_ARP, CALL_HANDLE_IPV4 = 4, 7
"""Slots of `cilium_calls` (bpf/bpf_lxc.c)."""
ALLOW_ALL_COOKIE = 9001

_CT_SIZE = 4096
_CTX = {"pkt_type": 4, "mark": 8, "ifindex": 40, "cb": 48, "gso_segs": 164}


def context(mark: int = 0, cb: tuple[int, ...] = (), gso_segs: int = 0) -> bytes:
    """Return a `struct __sk_buff` for a test run."""
    raw = bytearray(progtest.SKB_CONTEXT_SIZE)
    struct.pack_into("=I", raw, _CTX["mark"], mark)
    for index, value in enumerate(cb):
        struct.pack_into("=I", raw, _CTX["cb"] + 4 * index, value)
    struct.pack_into("=I", raw, _CTX["gso_segs"], gso_segs)
    return bytes(raw)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the datapath made of one packet."""

    action: int
    """TC_ACT_*."""
    packet: bytes
    ctx: bytes
    events: list[Any]
    """Rows of `EVENT_DTYPE`, oldest first."""

    def of(self, kind: EventType) -> list[Any]:
        """Return the events of one type."""
        return [event for event in self.events if event["type"] == kind]

    @property
    def traces(self) -> list[Any]:
        """Trace events."""
        return self.of(EventType.TRACE)

    @property
    def verdicts(self) -> list[Any]:
        """Policy verdict events."""
        return self.of(EventType.POLICY_VERDICT)

    @property
    def drop(self) -> Any:
        """The only drop event."""
        (event,) = self.of(EventType.DROP)
        return event

    @property
    def mark(self) -> int:
        """skb->mark afterwards."""
        return int(struct.unpack_from("=I", self.ctx, _CTX["mark"])[0])


class BpfNode:
    """NODE_ONE with POD_ONE and POD_TWO; POD_REMOTE lives behind NODE_TWO. Use as a context manager."""

    def __init__(self) -> None:
        """Make the maps and load every object."""
        self._root = Path(f"/sys/fs/bpf/plt-{os.getpid()}-bpfnode")
        ensure_mounted(self._root)
        self.globals_dir = self._root / "tc" / "globals"
        self._objects: dict[str, BpfObject] = {}
        self.maps = ensure_maps(self.globals_dir, specs(_CT_SIZE, _CT_SIZE))
        try:
            for pod in (POD_ONE, POD_TWO):
                self._load_endpoint(pod)
            self._load("host", "bpf_host.o", {"interface_ifindex": HOST_IFINDEX})
            self._load("overlay", "bpf_overlay.o", {"interface_ifindex": TUNNEL_IFINDEX})
            self.rings = EventReader(self.globals_dir / "cilium_events")
        except BaseException:
            self._release()
            raise

    def constants(self) -> dict[str, int | bytes]:
        """Return the node's constants."""
        return {
            "node_ipv4": u32_be(int(NODE_ONE.ipv4)),
            "router_ipv4": u32_be(int(ROUTER_ONE.ipv4)),
            "pod_cidr_mask": u32_be(0xFFFFFF00),
            "host_ifindex": HOST_IFINDEX,
            "cilium_host_mac": ROUTER_ONE.mac,
            "tunnel_ifindex": TUNNEL_IFINDEX,
        }

    def _load(self, name: str, file: str, constants: dict[str, int | bytes], policy_id: int = 0) -> None:
        loaded = self._prepare(file, constants, policy_id)
        self._objects[name] = loaded
        loaded.load()

    def _prepare(self, file: str, constants: dict[str, int | bytes], policy_id: int) -> BpfObject:
        loaded = BpfObject(OBJECTS / file)
        shared = {spec.name for spec in GLOBAL_MAPS}
        for map_name in loaded.map_names:
            if map_name in shared:
                loaded.set_pin(map_name, self.globals_dir / map_name)
            elif map_name == "cilium_policy_v2":
                loaded.set_pin(map_name, self.maps.policy(policy_id).path)
            if map_name in ("cilium_ct4_global", "cilium_ct_any4_global"):
                loaded.set_max_entries(map_name, _CT_SIZE)
        loaded.set_constants({**self.constants(), **constants})
        return loaded

    def _endpoint_constants(self, pod: Host) -> dict[str, int | bytes]:
        return {
            "endpoint_id": pod.endpoint_id,
            "endpoint_ipv4": u32_be(int(pod.ipv4)),
            "endpoint_mac": pod.mac,
            "host_mac": pod.gateway_mac,
            "identity": pod.identity,
            "interface_ifindex": pod.ifindex,
        }

    def _load_endpoint(self, pod: Host) -> None:
        self._load(pod.name, "bpf_lxc.o", self._endpoint_constants(pod), pod.endpoint_id)

    @contextmanager
    def endpoint_with_map(
        self, pod: Host, name: str, spec: MapSpec, content: dict[bytes, bytes]
    ) -> Iterator[BpfObject]:
        """Load the pod's object again with a map of another kind in place of the shared one `name`."""
        path = self.globals_dir / spec.name
        raw = RawMap(spec, create_pinned(spec, path))
        loaded = self._prepare("bpf_lxc.o", self._endpoint_constants(pod), pod.endpoint_id)
        try:
            for key, value in content.items():
                raw.update(key, value)
            loaded.set_pin(name, None)
            # Past the loader's comparison, which would rightly refuse it.
            if libbpf.map_reuse_fd(loaded._map(name), raw.fd) < 0:
                raise OSError(libbpf.last_errno(), "reuse")
            loaded.load()
            yield loaded
        finally:
            loaded.close()
            raw.close()
            path.unlink()

    def object(self, name: str) -> BpfObject:
        """Return the object loaded for a pod's name, `host` or `overlay`."""
        return self._objects[name]

    def reset(self) -> None:
        """Bring the maps to where tests start from: cast known, all traffic allowed, every event sent."""
        maps = self.maps
        maps.ct.flush()
        for key, _ in list(maps.lxc.items()):
            maps.lxc.remove(key)
        for ipkey, _ in list(maps.ipcache.items()):
            maps.ipcache.remove(ipkey)
        for tunnel_key, _ in list(maps.tunnel.items()):
            maps.tunnel.remove(tunnel_key)
        for pod in (POD_ONE, POD_TWO):
            maps.lxc.upsert(
                pod.ipv4, EndpointInfo(pod.ifindex, pod.endpoint_id, pod.mac, pod.gateway_mac, pod.identity)
            )
            maps.ipcache.upsert(IPv4Network(pod.ipv4), pod.identity, NODE_ONE.ipv4)
            maps.call_policy.set(pod.endpoint_id, self.object(pod.name).program_fd("handle_policy"))
            self.fill_calls(pod)
            self.clear_policy(pod)
            self.allow_all(pod)
        for address in (ROUTER_ONE.ipv4, NODE_ONE.ipv4):
            maps.lxc.upsert(
                address,
                EndpointInfo(HOST_IFINDEX, 0, ROUTER_ONE.mac, ROUTER_ONE.mac, 1, EndpointFlag.HOST),
            )
            maps.ipcache.upsert(IPv4Network(address), 1)
        maps.ipcache.upsert(IPv4Network(POD_REMOTE.ipv4), POD_REMOTE.identity, NODE_TWO.ipv4)
        maps.ipcache.upsert(IPv4Network(ROUTER_TWO.ipv4), 6, NODE_TWO.ipv4)
        maps.ipcache.upsert(IPv4Network(NODE_TWO.ipv4), 6)
        for index in (16, 17, 18, 19):
            maps.runtime_config.set(index, 0)
        self.rings.drain()

    def fill_calls(self, pod: Host) -> None:
        """Put the pod's tail programs into their slots, as loading does."""
        calls = self.calls(pod)
        for slot, program in (
            (CALL_HANDLE_ARP, "tail_handle_arp"),
            (CALL_HANDLE_IPV4, "tail_handle_ipv4"),
        ):
            calls.set(slot, self.object(pod.name).program_fd(program))

    def calls(self, pod: Host) -> ProgramArray:
        """Return the pod's tail call map."""
        spec = MapSpec("cilium_calls", MapType.PROG_ARRAY, 4, 4, 48)
        return ProgramArray(spec, self.object(pod.name).map_fd("cilium_calls"))

    def clear_policy(self, pod: Host) -> None:
        """Empty the pod's policy map: everything is denied."""
        policy = self.maps.policy(pod.endpoint_id)
        for key in policy.items():
            policy.delete(key)

    def allow_all(self, pod: Host) -> None:
        """Write what the agent writes for directions that are not enforced."""
        for egress in (False, True):
            self.policy(pod, PolicyKey(0, egress), PolicyEntry(deny=False, cookie=ALLOW_ALL_COOKIE))

    def policy(self, pod: Host, key: PolicyKey, entry: PolicyEntry) -> None:
        """Write a policy entry of the pod."""
        self.maps.policy(pod.endpoint_id).upsert(key, entry)

    def run(
        self,
        owner: str,
        program: str,
        packet: Packet | bytes,
        ctx: bytes | None = None,
    ) -> Outcome:
        """Run one packet through a program of `owner` (a pod's name, `host`, `overlay`)."""
        return self.run_fd(self.object(owner).program_fd(program), packet, ctx)

    def run_fd(self, fd: int, packet: Packet | bytes, ctx: bytes | None = None) -> Outcome:
        """Run one packet through any program."""
        raw = packet if isinstance(packet, bytes) else packet.bytes()
        self.rings.drain()
        result = progtest.run(fd, raw, ctx)
        return Outcome(result.retval, result.packet, result.ctx, self.rings.drain())

    def send(self, pod: Host, packet: Packet | bytes, ctx: bytes | None = None) -> Outcome:
        """The pod sends: cil_from_container, and for a local receiver its handle_policy."""
        return self.run(pod.name, "cil_from_container", packet, ctx)

    def receive(self, pod: Host, packet: Packet | bytes, ctx: bytes | None = None) -> Outcome:
        """The stack sends to the pod: cil_to_container."""
        return self.run(pod.name, "cil_to_container", packet, ctx)

    def ct(self, key: CtKey) -> CtEntry | None:
        """Return the conntrack entry under `key`."""
        return self.maps.ct.get(key)

    def age(self, key: CtKey, lifetime_s: int) -> None:
        """Set when an entry expires, in seconds of the monotonic clock."""
        entry = self.ct(key)
        assert entry is not None
        name = "cilium_ct4_global" if key.protocol == 6 else "cilium_ct_any4_global"
        self.maps.raw(name).update(key.pack(), replace(entry, lifetime_s=lifetime_s).pack())

    def forwarded(self, owner_file: int | None = None) -> int:
        """Return how many packets cilium_metrics counts as forwarded (by one source file)."""
        return sum(
            value.packets
            for key, value in self.maps.metrics.items().items()
            if key.reason == 0 and owner_file in (None, key.file)
        )

    def dropped(self, reason: int) -> int:
        """Return how many packets cilium_metrics counts as dropped for `reason`."""
        return sum(v.packets for k, v in self.maps.metrics.items().items() if k.reason == reason)

    def _release(self) -> None:
        for loaded in self._objects.values():
            loaded.close()
        self.maps.close()
        shutil.rmtree(self._root, ignore_errors=True)

    def __enter__(self) -> Self:
        """Return itself, reset."""
        self.reset()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Unload everything and remove the pins."""
        self.rings.close()
        self._release()


FromTunnel = Callable[..., Outcome]
"""(packet, identity, program="cil_from_overlay"): the fixture `from_tunnel` of tests/bpf."""


def ct_key(
    source: Host | IPv4Address,
    destination: Host | IPv4Address,
    sport: int,
    dport: int,
    protocol: int = 6,
    direction: Direction = Direction.OUT,
) -> CtKey:
    """Return the key of the flow that `source` opened."""
    src = source.ipv4 if isinstance(source, Host) else source
    dst = destination.ipv4 if isinstance(destination, Host) else destination
    return CtKey(dst, src, dport, sport, protocol, direction)


def monotonic_s() -> int:
    """Return the clock conntrack lives by, in seconds."""
    return time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1_000_000_000
