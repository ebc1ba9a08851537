"""A node's datapath as one component: its devices, maps and programs, and the endpoints on them.

Not policy, identities or addresses of others: the agent writes those into `maps`. Everything made here
stays in the kernel when the process ends and is adopted by the next `start`; `remove` takes it away.
Every method blocks (netlink, bpf(2)) for milliseconds: call them from a worker thread of a process that
lives in the node's network namespace.
"""

import logging
from ipaddress import IPv4Interface

from datapath import endpoint, features, masquerade, tc
from datapath.abi.addresses import EndpointFlag, EndpointInfo
from datapath.abi.mapspecs import ENDPOINT_ID_MAX, GLOBAL_MAPS, POLICY_SPEC, RuntimeConfig
from datapath.bpffs import ensure_mounted
from datapath.config import VXLAN_OVERHEAD_BYTES, DatapathConfig
from datapath.endpoint import EndpointDevice, EndpointSpec, Gateway
from datapath.errors import DeviceMissingError
from datapath.link import LinkInfo, Netlink, quiet, random_mac, write_sysctl
from datapath.maps.node import DatapathMaps, ensure_maps, specs
from datapath.programs import (
    CALLS_MAP,
    Attachment,
    LoadedObject,
    address_constant,
    mask_constant,
    remove_calls,
)
from palomar.errors import InvalidInputError

__all__ = ["EndpointDevice", "EndpointSpec", "NodeDatapath"]

logger = logging.getLogger(__name__)

HOST_DEVICE = "cilium_host"
NET_DEVICE = "cilium_net"
TUNNEL_DEVICE = "cilium_vxlan"
_SYSCTLS = (
    ("net/ipv4/ip_forward", "1"),
    # Pods' replies leave by another device than the route back to them: reverse path checks would drop them.
    ("net/ipv4/conf/all/rp_filter", "0"),
    ("net/ipv4/conf/default/rp_filter", "0"),
)


class NodeDatapath:
    """The datapath of the node whose network namespace the process lives in."""

    def __init__(self, config: DatapathConfig) -> None:
        """Keep the configuration; nothing is touched before `start`."""
        self.config = config
        self._maps: DatapathMaps | None = None
        self._host: LinkInfo | None = None
        self._tunnel: LinkInfo | None = None
        self._device: LinkInfo | None = None

    @property
    def maps(self) -> DatapathMaps:
        """The node's pinned maps, from `start` to `stop`."""
        if self._maps is None:
            raise RuntimeError("the datapath is not started")
        return self._maps

    @property
    def mtu(self) -> int:
        """Of pods' devices, from `start` on."""
        if self.config.mtu:
            return self.config.mtu
        assert self._device is not None
        return self._device.mtu - VXLAN_OVERHEAD_BYTES

    def start(self) -> None:
        """Bring devices, maps and programs to what the configuration says, adopting what is there.

        Idempotent; forwarding goes on meanwhile. Raises `FeatureMissingError`, `BpffsError`,
        `MapMismatchError`, `DeviceMissingError`, `ObjectError`.
        """
        features.require()
        ensure_mounted(self.config.bpf_root)
        if self._maps is None:
            self._maps = ensure_maps(
                self.config.globals_dir, specs(self.config.ct_tcp_max, self.config.ct_any_max)
            )
        self.maps.runtime_config.set(RuntimeConfig.AGGREGATION, self.config.aggregation_level)
        for name, value in _SYSCTLS:
            write_sysctl(name, value)
        with Netlink() as netlink:
            self._device = self._underlay(netlink)
            self._host = self._host_device(netlink)
            self._tunnel = netlink.add_vxlan(TUNNEL_DEVICE, self.config.tunnel_port, self.mtu)
            quiet(TUNNEL_DEVICE)
            self._load_node_programs(netlink, self._host, self._tunnel)
            netlink.set(self._tunnel.ifindex, state="up")
            self._write_host_entries(self._host)
            netlink.replace_route(
                self.config.cluster_cidr, self._host.ifindex, source=self.config.router_ipv4, mtu=self.mtu
            )
        if self.config.masquerade:
            masquerade.install(self.config.pod_cidr, self.config.cluster_cidr)
        else:
            masquerade.remove()
        logger.info("datapath started", extra={"node": self.config.node_name, "mtu": self.mtu})

    def _underlay(self, netlink: Netlink) -> LinkInfo:
        if self.config.device:
            return netlink.require(self.config.device, "set `device` to the underlay's device")
        found = netlink.device_of(self.config.node_ipv4)
        if found is None:
            raise DeviceMissingError(
                f"holding {self.config.node_ipv4}", "set `node-ipv4` to an address of this node"
            )
        return found

    def _host_device(self, netlink: Netlink) -> LinkInfo:
        host = netlink.link(HOST_DEVICE)
        if host is None or host.kind != "veth" or netlink.link(NET_DEVICE) is None:
            netlink.delete(HOST_DEVICE)
            host = netlink.add_veth(HOST_DEVICE, random_mac(), NET_DEVICE, random_mac(), self.mtu)
        net = netlink.require(NET_DEVICE, "it went away while it was made")
        for device in (host, net):
            quiet(device.ifname)
            # Without ARP the host sends towards pods at once; the programs write the real MACs.
            netlink.set(device.ifindex, mtu=self.mtu, arp=False, state="up")
        netlink.set_address(host.ifindex, IPv4Interface((self.config.router_ipv4, 32)), scope=253)
        return host

    def _load_node_programs(self, netlink: Netlink, host: LinkInfo, tunnel: LinkInfo) -> None:
        net = netlink.require(NET_DEVICE, "it went away while programs were loaded")
        hooks = (("cil_to_overlay", tc.Hook.EGRESS), ("cil_from_overlay", tc.Hook.INGRESS))
        self._load(netlink, "bpf_overlay.o", "bpf_overlay.o", f"overlay_{tunnel.ifindex:05d}", tunnel, hooks)
        hooks = (("cil_to_host", tc.Hook.INGRESS), ("cil_from_host", tc.Hook.EGRESS))
        self._load(netlink, "bpf_host.o", "bpf_host.o", f"netdev_{host.ifindex:05d}", host, hooks)
        shown = f"bpf_host_{NET_DEVICE}.o"
        self._load(netlink, "bpf_host.o", shown, f"netdev_{net.ifindex:05d}", net, hooks[:1])

    def _load(
        self,
        netlink: Netlink,
        name: str,
        shown_name: str,
        calls_owner: str,
        device: LinkInfo,
        hooks: tuple[tuple[str, tc.Hook], ...],
    ) -> None:
        with LoadedObject(
            self.config.objects / name,
            self.config.globals_dir,
            {**self._node_constants(), "interface_ifindex": device.ifindex},
            self._map_sizes(),
            calls_owner,
        ) as loaded:
            loaded.attach(
                netlink,
                [
                    Attachment(program, device.ifindex, hook, tc.filter_name(shown_name, program))
                    for program, hook in hooks
                ],
            )

    def _node_constants(self) -> dict[str, int | bytes]:
        assert self._host is not None
        assert self._tunnel is not None
        return {
            "node_ipv4": address_constant(self.config.node_ipv4),
            "router_ipv4": address_constant(self.config.router_ipv4),
            "pod_cidr_mask": mask_constant(self.config.pod_cidr.prefixlen),
            "host_ifindex": self._host.ifindex,
            "cilium_host_mac": self._host.mac,
            "tunnel_ifindex": self._tunnel.ifindex,
        }

    def _map_sizes(self) -> dict[str, int]:
        return {
            "cilium_ct4_global": self.config.ct_tcp_max,
            "cilium_ct_any4_global": self.config.ct_any_max,
        }

    def _write_host_entries(self, host: LinkInfo) -> None:
        info = EndpointInfo(host.ifindex, 0, host.mac, host.mac, identity=1, flags=EndpointFlag.HOST)
        for key, other in list(self.maps.lxc.items()):
            if other.flags & EndpointFlag.HOST and key.ipv4 not in (
                self.config.router_ipv4,
                self.config.node_ipv4,
            ):
                self.maps.lxc.delete(key.ipv4)
        self.maps.lxc.upsert(self.config.router_ipv4, info)
        self.maps.lxc.upsert(self.config.node_ipv4, info)

    def connect(self, spec: EndpointSpec) -> EndpointDevice:
        """Make the endpoint's devices; see `datapath.endpoint.connect`. Nothing passes before `load`."""
        if not 0 < spec.endpoint_id <= ENDPOINT_ID_MAX:
            raise InvalidInputError(f"{spec.endpoint_id} is not in 1..{ENDPOINT_ID_MAX}", "endpoint_id")
        return endpoint.connect(spec, Gateway(self.config.router_ipv4, self.mtu))

    def load(self, spec: EndpointSpec, device: EndpointDevice) -> None:
        """Specialise and attach the endpoint's programs, or replace them atomically by new ones.

        Also writes its `cilium_lxc` entry and brings the device up. The policy map is kept, or made empty:
        then everything is denied until the agent fills it. Raises `ObjectError`, `MapMismatchError`.
        """
        self.maps.policy(spec.endpoint_id)
        constants = {
            **self._node_constants(),
            "endpoint_id": spec.endpoint_id,
            "endpoint_ipv4": address_constant(spec.ipv4),
            "endpoint_mac": device.mac,
            "host_mac": device.host_mac,
            "identity": spec.identity,
            "interface_ifindex": device.ifindex,
        }
        with (
            LoadedObject(
                self.config.objects / endpoint.OBJECT,
                self.config.globals_dir,
                constants,
                self._map_sizes(),
                spec.endpoint_id,
                spec.endpoint_id,
            ) as loaded,
            Netlink() as netlink,
        ):
            self.maps.call_policy.set(spec.endpoint_id, loaded.object.program_fd(endpoint.POLICY_PROGRAM))
            loaded.attach(netlink, endpoint.attachments(device))
            self.maps.lxc.upsert(
                spec.ipv4,
                EndpointInfo(
                    device.ifindex, spec.endpoint_id, device.mac, device.host_mac, identity=spec.identity
                ),
            )
            netlink.set(device.ifindex, state="up")

    def disconnect(self, endpoint_id: int, ifname: str) -> None:
        """Take the endpoint's devices, programs and map entries away. Idempotent."""
        with Netlink() as netlink:
            netlink.delete(ifname)
        endpoint.forget(self.maps, endpoint_id)
        remove_calls(self.config.globals_dir, endpoint_id)

    def device_of(self, ifname: str) -> EndpointDevice | None:
        """Return the endpoint device of that name; None where there is none."""
        with Netlink() as netlink:
            link = netlink.link(ifname)
        return None if link is None else endpoint.device_of(link)

    def list_endpoint_devices(self) -> list[EndpointDevice]:
        """Return every endpoint device of the node, by interface index."""
        with Netlink() as netlink:
            devices = [endpoint.device_of(link) for link in netlink.links()]
        return sorted((d for d in devices if d is not None), key=lambda device: device.ifindex)

    def stop(self) -> None:
        """Close what this process holds open; the kernel goes on forwarding and enforcing. Idempotent."""
        if self._maps is not None:
            self._maps.close()
            self._maps = None

    def remove(self) -> None:
        """Take everything of this node out of the kernel: devices, rules, pins. Idempotent."""
        for device in self.list_endpoint_devices():
            with Netlink() as netlink:
                netlink.delete(device.ifname)
        with Netlink() as netlink:
            netlink.delete(HOST_DEVICE)
            netlink.delete(TUNNEL_DEVICE)
        masquerade.remove()
        self.stop()
        remove_pins(self.config)


def remove_pins(config: DatapathConfig) -> None:
    """Unpin every map of the node and remove the folders that are empty then. Idempotent."""
    folder = config.globals_dir
    if not folder.is_dir():
        return
    ours = {spec.name for spec in GLOBAL_MAPS}
    prefixes = (POLICY_SPEC.name + "_", CALLS_MAP + "_")
    for path in folder.iterdir():
        if path.name in ours or path.name.startswith(prefixes):
            path.unlink(missing_ok=True)
    for parent in (folder, folder.parent, config.bpf_root):
        if any(parent.iterdir()) or parent.is_mount():
            return
        parent.rmdir()
