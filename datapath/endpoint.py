"""One endpoint's way into the network: its veth pair, its addresses and routes, its programs.

Not its policy or identity (the agent decides) and not the node's devices (`node.py`). The pod gets its
address as /32 and a default route through the router address, which lives on another device; our ARP
responder answers for it. The host side stays down until the programs are attached, so no packet ever
passes unjudged.
"""

import os
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from typing import NamedTuple

from datapath import netns, tc
from datapath.link import LinkInfo, Netlink, disable_ipv6, mac_bytes, mac_text, quiet, random_mac
from datapath.maps.node import DatapathMaps
from datapath.programs import Attachment

OBJECT = "bpf_lxc.o"
POLICY_PROGRAM = "handle_policy"
_ALIAS_PREFIX = "palomar endpoint mac "
_DEFAULT_ROUTE = IPv4Network("0.0.0.0/0")


@dataclass(frozen=True, slots=True)
class EndpointSpec:
    """What the agent decided about an endpoint."""

    endpoint_id: int
    """1..65535, unique on the node."""
    identity: int
    ipv4: IPv4Address
    netns: str
    """Path of the network namespace, e.g. /run/netns/x or /proc/42/ns/net."""
    host_ifname: str
    """At most 15 characters, unique on the node: `lxc` and 11 hexadecimal digits."""
    container_ifname: str = "eth0"


@dataclass(frozen=True, slots=True)
class EndpointDevice:
    """The host's side of an endpoint's veth pair."""

    ifindex: int
    ifname: str
    host_mac: bytes
    """6 bytes; the gateway's address as the pod sees it."""
    mac: bytes
    """6 bytes; the pod's side."""


class Gateway(NamedTuple):
    """What the pod's routes need."""

    router_ipv4: IPv4Address
    mtu: int


def connect(spec: EndpointSpec, gateway: Gateway) -> EndpointDevice:
    """Make the veth pair, its far side configured inside the endpoint's namespace; the host side is down.

    Raises `NamespaceMissingError`, `DeviceExistsError` (either name) or `NetlinkError`; nothing is left then.
    """
    namespace = netns.open_namespace(spec.netns)
    try:
        mac, host_mac = random_mac(), random_mac()
        with Netlink() as netlink:
            _remove_half_made(netlink, spec.host_ifname)
            host = netlink.add_veth(
                spec.host_ifname, host_mac, spec.container_ifname, mac, gateway.mtu, namespace
            )
            try:
                # The pod's MAC cannot be asked from this side: the alias keeps it for the next agent.
                netlink.set(host.ifindex, ifalias=_ALIAS_PREFIX + mac_text(mac))
                quiet(host.ifname)
                netns.run_in_fd(namespace, lambda: _configure_pod_side(spec, gateway), spec.netns)
            except BaseException:
                netlink.delete(host.ifname)
                raise
    finally:
        os.close(namespace)
    return EndpointDevice(host.ifindex, host.ifname, host_mac, mac)


def _remove_half_made(netlink: Netlink, ifname: str) -> None:
    # Of a process killed between making the pair and naming its owner: down, and without our alias.
    found = netlink.link(ifname)
    if found is not None and found.kind == "veth" and not found.up and not found.alias:
        netlink.delete(ifname)


def _configure_pod_side(spec: EndpointSpec, gateway: Gateway) -> None:
    ifname = spec.container_ifname
    disable_ipv6(ifname)
    with Netlink() as netlink:
        device = netlink.require(ifname, "it went away while it was configured")
        netlink.set_address(device.ifindex, IPv4Interface((spec.ipv4, 32)))
        loopback = netlink.link("lo")
        if loopback is not None and not loopback.up:
            netlink.set(loopback.ifindex, state="up")
        netlink.set(device.ifindex, state="up")
        netlink.replace_route(IPv4Network((gateway.router_ipv4, 32)), device.ifindex)
        netlink.replace_route(_DEFAULT_ROUTE, device.ifindex, gateway=gateway.router_ipv4)


def device_of(link: LinkInfo) -> EndpointDevice | None:
    """Return the endpoint device that `link` is; None where it is none of ours."""
    if link.kind != "veth" or not link.alias.startswith(_ALIAS_PREFIX):
        return None
    return EndpointDevice(
        link.ifindex, link.ifname, link.mac, mac_bytes(link.alias.removeprefix(_ALIAS_PREFIX))
    )


def attachments(device: EndpointDevice) -> list[Attachment]:
    """Return where the endpoint's programs go: towards the pod first, so that replies find their judge."""
    return [
        Attachment(program, device.ifindex, hook, tc.filter_name(OBJECT, program))
        for program, hook in (
            ("cil_to_container", tc.Hook.EGRESS),
            ("cil_from_container", tc.Hook.INGRESS),
        )
    ]


def forget(maps: DatapathMaps, endpoint_id: int) -> None:
    """Take an endpoint out of the maps: policy program, policy map, addresses, connections. Idempotent."""
    maps.call_policy.delete(endpoint_id)
    addresses = [
        key.ipv4 for key, info in maps.lxc.items() if info.endpoint_id == endpoint_id and not info.flags
    ]
    for address in addresses:
        maps.lxc.delete(address)
    # A new owner of the address or of the id must not inherit the judgement of old connections.
    if addresses:
        maps.ct.forget_addresses(frozenset(addresses))
    maps.bump_policy_revision(endpoint_id)
    maps.remove_policy(endpoint_id)
