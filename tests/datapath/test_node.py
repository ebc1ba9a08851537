"""A node's datapath starts, restarts under traffic, refuses what does not fit, and leaves nothing behind."""

import json
import os
from collections.abc import Callable
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

import pytest

from datapath.abi.mapspecs import MapSpec, MapType
from datapath.endpoint import EndpointSpec
from datapath.errors import (
    DeviceExistsError,
    DeviceMissingError,
    MapMismatchError,
    NamespaceMissingError,
    ObjectError,
)
from datapath.node import NodeDatapath
from datapath.pins import create_pinned
from palomar.errors import InvalidInputError
from tests.kit.netns import command, exec_in, ping
from tests.kit.stream import Stream
from tests.kit.topology import Node, Topology
from tests.kit.wait import eventually

pytestmark = [pytest.mark.root, pytest.mark.bpf]


def links(node: Node) -> set[str]:
    shown = json.loads(command("ip", "-j", "-n", Path(node.netns).name, "link", "show"))
    return {link["ifname"] for link in shown}


def pins(node: Node) -> set[str]:
    folder = node.config.globals_dir
    return {path.name for path in folder.iterdir()} if folder.is_dir() else set()


def test_start_makes_the_nodes_devices_and_routes(topology: Topology) -> None:
    """cilium_host with the router address, cilium_net, cilium_vxlan, the cluster's route; twice is once."""
    node = topology.add_node()
    name = Path(node.netns).name
    before = (links(node), pins(node), command("ip", "-n", name, "route"))
    assert before[0] >= {"cilium_host", "cilium_net", "cilium_vxlan", "eth0"}
    assert "10.0.0.0/8 dev cilium_host proto static scope link src 10.1.0.1 mtu 1450" in before[2]
    shown = json.loads(command("ip", "-j", "-d", "-n", name, "link", "show", "cilium_vxlan"))[0]
    assert shown["linkinfo"]["info_data"]["port"] == 8472
    assert shown["mtu"] == 1450
    node.call(node.datapath.start)
    assert (links(node), pins(node), command("ip", "-n", name, "route")) == before


def test_pod_side_is_configured(topology: Topology) -> None:
    """/32, a link-scope gateway answered by our ARP responder, MTU, no IPv6, loopback up."""
    node = topology.add_node()
    pod = topology.add_pod(node, 4001)
    routes = exec_in(pod.netns, "ip", "route").stdout.splitlines()
    assert [route.strip() for route in routes] == [
        "default via 10.1.0.1 dev eth0 proto static",
        "10.1.0.1 dev eth0 proto static scope link",
    ]
    shown = exec_in(pod.netns, "ip", "addr", "show", "eth0").stdout
    assert "inet 10.1.0.10/32" in shown
    assert "mtu 1450" in shown
    assert "inet6" not in shown
    assert pod.device.mac.hex(":") in shown
    assert ping(pod.netns, node.config.router_ipv4)
    assert pod.device.host_mac.hex(":") in exec_in(pod.netns, "ip", "neigh", "show", "10.1.0.1").stdout
    assert "UP" in exec_in(pod.netns, "ip", "link", "show", "lo").stdout


def test_nothing_passes_before_the_programs_are_attached(topology: Topology) -> None:
    """Between `connect` and `load` the host's side is down."""
    node = topology.add_node()
    other = topology.add_pod(node, 4001)
    path = topology.factory.create("x")
    spec = EndpointSpec(9, 4002, IPv4Address("10.1.0.99"), path, "lxc0000000aaaa")
    device = node.call(lambda: node.datapath.connect(spec))
    assert "state DOWN" in command("ip", "-n", Path(node.netns).name, "link", "show", device.ifname)
    assert not ping(path, other.ip)
    assert not ping(path, node.ipv4)


def test_restart_adopts_everything(topology: Topology) -> None:
    """A new process finds devices, maps with their contents and keeps connections; traffic never stops."""
    node = topology.add_node()
    one, two = topology.add_pod(node, 4001), topology.add_pod(node, 4002)
    with Stream(one, two) as stream:
        eventually(lambda: len(stream.received) > 50)
        for _ in range(5):
            node.datapath.stop()
            node.datapath = NodeDatapath(node.config)
            node.call(node.datapath.start)
            assert node.call(node.datapath.list_endpoint_devices) == [one.device, two.device]
            for pod in (one, two):
                found = node.call(lambda pod=pod: node.datapath.device_of(pod.device.ifname))
                assert found == pod.device
                node.call(lambda pod=pod: node.datapath.load(pod.spec, pod.device))
        count = len(stream.received)
        eventually(lambda: len(stream.received) > count + 50)
    assert stream.lost == set()
    assert node.datapath.maps.ipcache.lookup(one.spec.ipv4) is not None
    assert node.call(lambda: node.datapath.device_of("eth0")) is None
    assert node.call(lambda: node.datapath.device_of("absent")) is None


def missing_namespace(topology: Topology, node: Node) -> EndpointSpec:
    return EndpointSpec(9, 4002, IPv4Address("10.1.0.99"), "/run/netns/absent", "lxc0000000aaaa")


def host_name_taken(topology: Topology, node: Node) -> EndpointSpec:
    path = topology.factory.create("x")
    return EndpointSpec(9, 4002, IPv4Address("10.1.0.99"), path, node.pods[0].spec.host_ifname)


def pod_name_taken(topology: Topology, node: Node) -> EndpointSpec:
    pod = node.pods[0]
    return EndpointSpec(9, 4002, IPv4Address("10.1.0.99"), pod.netns, "lxc0000000aaaa")


def impossible_id(topology: Topology, node: Node) -> EndpointSpec:
    path = topology.factory.create("x")
    return EndpointSpec(65536, 4002, IPv4Address("10.1.0.99"), path, "lxc0000000aaaa")


@pytest.mark.parametrize(
    ("make", "kind", "words"),
    [
        (missing_namespace, NamespaceMissingError, "/run/netns/absent"),
        (host_name_taken, DeviceExistsError, "already exists in the node's namespace"),
        (pod_name_taken, DeviceExistsError, "eth0 already exists in the endpoint's namespace"),
        (impossible_id, InvalidInputError, "65536 is not in 1..65535"),
    ],
)
def test_failed_connect_leaves_nothing(
    topology: Topology,
    make: Callable[[Topology, Node], EndpointSpec],
    kind: type[Exception],
    words: str,
) -> None:
    """Whatever went wrong is named, and devices and pins are as before."""
    node = topology.add_node()
    topology.add_pod(node, 4001)
    before = (links(node), pins(node))
    spec = make(topology, node)
    with pytest.raises(kind, match=words):
        node.call(lambda: node.datapath.connect(spec))
    assert (links(node), pins(node)) == before


def test_half_made_device_of_a_dead_process_is_replaced(topology: Topology) -> None:
    """A pair that was made but not yet marked as ours does not block its name for ever."""
    node = topology.add_node()
    name = Path(node.netns).name
    command("ip", "-n", name, "link", "add", "lxc0000000aaaa", "type", "veth", "peer", "half")
    path = topology.factory.create("x")
    spec = EndpointSpec(9, 4002, IPv4Address("10.1.0.99"), path, "lxc0000000aaaa")
    device = node.call(lambda: node.datapath.connect(spec))
    assert node.call(lambda: node.datapath.device_of("lxc0000000aaaa")) == device
    assert "half" not in links(node)


def test_disconnect_forgets_the_endpoint(topology: Topology) -> None:
    """Devices, pins, addresses and connections go; a second time is no error; others still talk."""
    node = topology.add_node()
    one, two = topology.add_pod(node, 4001), topology.add_pod(node, 4002)
    three = topology.add_pod(node, 4003)
    assert ping(one.netns, two.ip)
    maps = node.datapath.maps
    assert any(two.spec.ipv4 in (k.saddr, k.daddr) for k, _ in maps.ct.items())
    for _ in range(2):
        node.call(lambda: node.datapath.disconnect(two.spec.endpoint_id, two.device.ifname))
    assert two.device.ifname not in links(node)
    assert not any(str(two.spec.endpoint_id) in name for name in pins(node))
    assert maps.lxc.lookup(two.spec.ipv4) is None
    assert maps.call_policy.get(two.spec.endpoint_id) is None
    assert maps.call_policy.get(one.spec.endpoint_id) is not None
    assert not any(two.spec.ipv4 in (k.saddr, k.daddr) for k, _ in maps.ct.items())
    assert exec_in(two.netns, "ip", "link", "show", "eth0").returncode != 0
    assert ping(one.netns, three.ip)


def test_mismatched_map_is_refused_whole(topology: Topology) -> None:
    """Another layout under our name stops the start with every attribute named; devices are not touched."""
    node = topology.add_node(start=False)
    folder = node.config.globals_dir
    folder.mkdir(parents=True)
    wrong = MapSpec("cilium_ct4_global", MapType.LRU_HASH, 14, 56, 1000)
    os.close(create_pinned(wrong, folder / "cilium_ct4_global"))
    with pytest.raises(MapMismatchError) as caught:
        node.call(node.datapath.start)
    assert {d.attribute for d in caught.value.differences} == {"value size", "max entries"}
    assert str(folder / "cilium_ct4_global") in str(caught.value)
    assert pins(node) == {"cilium_ct4_global"}
    assert "cilium_host" not in links(node)


def test_missing_underlay_and_objects_are_named(topology: Topology, tmp_path: Path) -> None:
    """A wrong device, an address nobody holds, and objects that were never built."""
    node = topology.add_node(start=False)
    cases = [
        (replace(node.config, device="absent0"), DeviceMissingError, "absent0"),
        (replace(node.config, node_ipv4=IPv4Address("192.0.2.9")), DeviceMissingError, "node-ipv4"),
        (replace(node.config, object_dir=tmp_path), ObjectError, "run `make bpf`"),
    ]
    for config, kind, words in cases:
        datapath = NodeDatapath(config)
        with pytest.raises(kind, match=words):
            node.call(datapath.start)
        datapath.stop()


def test_changed_settings_are_applied_at_start(topology: Topology) -> None:
    """Another tunnel port makes a new device; masquerade off removes the table; the router moves."""
    node = topology.add_node()
    node.datapath.stop()
    changed = replace(
        node.config, tunnel_port=8473, masquerade=False, router_ipv4=IPv4Address("10.1.0.2"), mtu=1400
    )
    node.datapath = NodeDatapath(changed)
    node.call(node.datapath.start)
    name = Path(node.netns).name
    shown = json.loads(command("ip", "-j", "-d", "-n", name, "link", "show", "cilium_vxlan"))[0]
    assert (shown["linkinfo"]["info_data"]["port"], shown["mtu"]) == (8473, 1400)
    assert exec_in(node.netns, "nft", "list", "ruleset").stdout == ""
    assert command("ip", "-n", name, "-4", "-br", "addr", "show", "cilium_host").split()[2:] == [
        "10.1.0.2/32"
    ]
    hosts = {k.ipv4 for k, v in node.datapath.maps.lxc.items() if v.flags}
    assert hosts == {IPv4Address("10.1.0.2"), node.ipv4}


def test_remove_leaves_nothing(topology: Topology) -> None:
    """After `remove` the namespace and the pin root are as before `start`."""
    node = topology.add_node(start=False)
    before = (links(node), node.config.bpf_root.exists())
    node.call(node.datapath.start)
    topology.add_pod(node, 4001)
    for _ in range(2):
        node.call(node.datapath.remove)
    assert (links(node), node.config.bpf_root.exists()) == before
    assert exec_in(node.netns, "nft", "list", "ruleset").stdout == ""
    with pytest.raises(RuntimeError, match="not started"):
        _ = node.datapath.maps


def test_two_nodes_of_one_machine_keep_apart(topology: Topology) -> None:
    """Each node sees its own maps only."""
    first, second = topology.add_node(), topology.add_node()
    first.datapath.maps.ipcache.upsert(IPv4Network("192.0.2.0/24"), 99)
    found = second.datapath.maps.ipcache.lookup(IPv4Address("192.0.2.1"))
    assert found is None
