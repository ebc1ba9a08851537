"""Devices, addresses, routes and sysctls: made once, adopted, refused with their names."""

from collections.abc import Callable
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from pathlib import Path

import pytest

from datapath import netns
from datapath.errors import DeviceExistsError, DeviceMissingError, NetlinkError
from datapath.link import Netlink, mac_bytes, mac_text, quiet, random_mac, write_sysctl
from tests.kit.netns import NetnsFactory, exec_in

pytestmark = pytest.mark.root

Inside = Callable[[Callable[[Netlink], None]], str]


@pytest.fixture
def inside(netns_factory: NetnsFactory) -> Inside:
    """Run a function with a netlink socket in an empty namespace; return the namespace."""
    path = netns_factory.create("a")

    def call(fn: Callable[[Netlink], None]) -> str:
        def body() -> None:
            with Netlink() as netlink:
                fn(netlink)

        netns.run(path, body)
        return path

    return call


def test_macs() -> None:
    """Local, unicast, different; text and bytes agree."""
    first, second = random_mac(), random_mac()
    assert first != second
    assert first[0] & 3 == 2
    assert mac_bytes(mac_text(first)) == first


def test_veth_pair(inside: Inside) -> None:
    """MACs and MTU as wished, not up; a second pair of a name is refused with the name taken."""
    mac, peer_mac = random_mac(), random_mac()

    def body(netlink: Netlink) -> None:
        made = netlink.add_veth("one", mac, "two", peer_mac, 1400)
        assert (made.kind, made.mac, made.mtu, made.up, made.alias) == ("veth", mac, 1400, False, "")
        two = netlink.require("two", "")
        assert (two.mac, two.mtu) == (peer_mac, 1400)
        with pytest.raises(DeviceExistsError, match="device one already exists"):
            netlink.add_veth("one", mac, "three", peer_mac, 1400)
        with pytest.raises(DeviceExistsError, match="device two already exists"):
            netlink.add_veth("four", mac, "two", peer_mac, 1400)
        assert {link.ifname for link in netlink.links()} >= {"one", "two"}
        assert netlink.delete("one")
        assert not netlink.delete("one")
        assert netlink.link("two") is None
        with pytest.raises(DeviceMissingError, match="do this"):
            netlink.require("two", "do this")

    inside(body)


def test_vxlan_is_adopted_or_remade(inside: Inside) -> None:
    """The same port keeps the device; another port, or another kind under the name, makes a new one."""

    def body(netlink: Netlink) -> None:
        netlink.add_veth("vx", random_mac(), "two", random_mac(), 1500)
        first = netlink.add_vxlan("vx", 8472, 1450)
        assert (first.kind, first.vxlan_port) == ("vxlan", 8472)
        assert netlink.add_vxlan("vx", 8472, 1400).ifindex == first.ifindex
        assert netlink.require("vx", "").mtu == 1400
        assert netlink.add_vxlan("vx", 8473, 1450).ifindex != first.ifindex

    path = inside(body)
    assert "external" in exec_in(path, "ip", "-d", "link", "show", "vx").stdout


def test_addresses_and_routes(inside: Inside) -> None:
    """One address at a time; routes are replaced; who holds an address is found."""
    own = IPv4Address("10.9.0.1")

    def body(netlink: Netlink) -> None:
        device = netlink.add_veth("one", random_mac(), "two", random_mac(), 1500)
        netlink.set(device.ifindex, state="up", ifalias="mine")
        assert netlink.require("one", "").alias == "mine"
        for address in ("10.9.0.2", "10.9.0.1", "10.9.0.1"):
            netlink.set_address(device.ifindex, IPv4Interface(f"{address}/32"))
        assert netlink.addresses(device.ifindex) == [IPv4Interface("10.9.0.1/32")]
        found = netlink.device_of(own)
        assert found is not None
        assert found.ifname == "one"
        assert netlink.device_of(IPv4Address("10.9.0.2")) is None
        for mtu in (1400, 1300):
            netlink.replace_route(IPv4Network("10.0.0.0/8"), device.ifindex, source=own, mtu=mtu)
        netlink.replace_route(IPv4Network("10.9.0.9/32"), device.ifindex)
        netlink.replace_route(IPv4Network("0.0.0.0/0"), device.ifindex, gateway=IPv4Address("10.9.0.9"))
        with pytest.raises(NetlinkError, match=r"route 192\.0\.2\.0/24 over device 4242"):
            netlink.replace_route(IPv4Network("192.0.2.0/24"), 4242)

    path = inside(body)
    routes = [line.strip() for line in exec_in(path, "ip", "route").stdout.splitlines()]
    assert "10.0.0.0/8 dev one proto static scope link src 10.9.0.1 linkdown mtu 1300" in routes
    assert "default via 10.9.0.9 dev one proto static linkdown" in routes
    assert len([line for line in routes if line.startswith("10.0.0.0/8")]) == 1


def test_sysctls_are_of_the_namespace(inside: Inside, netns_factory: NetnsFactory) -> None:
    """What is written inside stays inside; an unknown name is named."""

    def body(netlink: Netlink) -> None:
        write_sysctl("net/ipv4/ip_forward", "1")
        netlink.add_veth("one", random_mac(), "two", random_mac(), 1500)
        quiet("one")
        assert Path("/proc/sys/net/ipv6/conf/one/disable_ipv6").read_text().strip() == "1"
        with pytest.raises(NetlinkError, match="net/ipv4/nonsense"):
            write_sysctl("net/ipv4/nonsense", "1")

    inside(body)
    other = netns_factory.create("b")
    assert exec_in(other, "cat", "/proc/sys/net/ipv4/ip_forward").stdout.strip() == "0"
