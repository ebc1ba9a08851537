"""Maps that are asked for an address: longest match, idempotent removal."""

from ipaddress import IPv4Address, IPv4Network

import pytest

from datapath.abi.addresses import EndpointInfo, IpcacheEntry
from datapath.maps.node import DatapathMaps

pytestmark = [pytest.mark.root, pytest.mark.bpf]

POD = IPv4Address("10.1.0.5")


def test_ipcache_answers_with_the_longest_match(maps: DatapathMaps) -> None:
    """A /32 wins over its /24; deleting it uncovers the /24; deleting twice is no error."""
    node = IPv4Address("172.18.0.5")
    maps.ipcache.upsert(IPv4Network("10.1.0.0/24"), 2)
    maps.ipcache.upsert(IPv4Network(POD), 4242, node)
    maps.ipcache.upsert(IPv4Network(POD), 4243, node)
    assert maps.ipcache.lookup(POD) == IpcacheEntry(4243, node)
    assert maps.ipcache.delete(IPv4Network(POD)) is True
    assert maps.ipcache.delete(IPv4Network(POD)) is False
    assert maps.ipcache.lookup(POD) == IpcacheEntry(2)
    assert maps.ipcache.lookup(IPv4Address("192.0.2.1")) is None
    assert {k.net: v.identity for k, v in maps.ipcache.items()} == {IPv4Network("10.1.0.0/24"): 2}


def test_endpoints_and_tunnels(maps: DatapathMaps) -> None:
    """Local addresses and nodes' pod CIDRs are kept and forgotten."""
    info = EndpointInfo(7, 12, b"\2\0\0\0\0\1", b"\2\0\0\0\0\2", 4242)
    maps.lxc.upsert(POD, info)
    assert maps.lxc.lookup(POD) == info
    assert [k.ipv4 for k, _ in maps.lxc.items()] == [POD]
    assert maps.lxc.delete(POD)
    assert maps.lxc.lookup(POD) is None
    maps.tunnel.upsert(IPv4Network("10.2.0.0/24"), IPv4Address("172.30.0.2"))
    assert [(str(k.prefix), str(v.node_ipv4)) for k, v in maps.tunnel.items()] == [("10.2.0.0", "172.30.0.2")]
    assert maps.tunnel.delete(IPv4Network("10.2.0.0/24"))
