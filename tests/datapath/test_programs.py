"""Objects are replaced under traffic, and a death at any moment leaves working programs behind."""

import json
import signal
import subprocess
import sys
import time
from dataclasses import asdict

import pytest

from datapath import tc
from datapath.abi.mapspecs import calls_map_name
from datapath.endpoint import attachments
from datapath.link import Netlink
from datapath.programs import LoadedObject, spare_names
from tests.kit.netns import ping
from tests.kit.stream import Stream
from tests.kit.topology import Node, Topology
from tests.kit.wait import eventually

pytestmark = [pytest.mark.root, pytest.mark.bpf]


def pins(node: Node) -> set[str]:
    return {path.name for path in node.config.globals_dir.iterdir()}


RELOADER = """
import json, sys
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from datapath import netns
from datapath.config import DatapathConfig
from datapath.endpoint import EndpointDevice, EndpointSpec
from datapath.node import NodeDatapath
told = json.loads(sys.argv[1])
c = told["config"]
config = DatapathConfig(Path(c["bpf_root"]), c["node_name"], IPv4Address(c["node_ipv4"]),
    IPv4Address(c["router_ipv4"]), IPv4Network(c["pod_cidr"]), IPv4Network(c["cluster_cidr"]))
node = NodeDatapath(config)
def go():
    while True:
        node.start()
        for s in told["specs"]:
            spec = EndpointSpec(s["endpoint_id"], s["identity"], IPv4Address(s["ipv4"]), s["netns"],
                                s["host_ifname"])
            node.load(spec, node.device_of(spec.host_ifname))
        print("round", flush=True)
netns.run(told["netns"], go)
"""


def test_kill_at_any_point_leaves_forwarding_working(topology: Topology) -> None:
    """A process that reloads every program without end is killed six times, at six points of its work."""
    node = topology.add_node()
    one, two = topology.add_pod(node, 4001), topology.add_pod(node, 4002)
    told = json.dumps(
        {
            "config": asdict(node.config),
            "netns": node.netns,
            "specs": [asdict(one.spec), asdict(two.spec)],
        },
        default=str,
    )
    with Stream(one, two) as stream:
        for number in range(6):
            child = subprocess.Popen([sys.executable, "-c", RELOADER, told], stdout=subprocess.PIPE)
            assert child.stdout is not None
            try:
                assert child.stdout.readline() == b"round\n"
                time.sleep(0.011 * number)  # not a wait: the point of death
            finally:
                child.send_signal(signal.SIGKILL)
                child.communicate()
            count = len(stream.received)
            eventually(lambda count=count: len(stream.received) > count + 20)
    assert stream.lost == set()
    for pod in (one, two):
        node.call(lambda pod=pod: node.datapath.load(pod.spec, pod.device))
        calls = node.config.globals_dir / calls_map_name(pod.spec.endpoint_id)
        assert calls.exists()
        assert spare_names(calls) == []
    assert ping(one.netns, two.ip)


def test_death_between_attach_and_rename(topology: Topology) -> None:
    """New filters in place, their tail call map still under its spare name: traffic passes, then heals."""
    node = topology.add_node()
    one, two = topology.add_pod(node, 4001), topology.add_pod(node, 4002)
    config = node.config
    calls = config.globals_dir / calls_map_name(one.spec.endpoint_id)

    def half_reload() -> None:
        constants = {
            **node.datapath._node_constants(),
            "endpoint_id": one.spec.endpoint_id,
            "endpoint_ipv4": int.from_bytes(one.spec.ipv4.packed, "little"),
            "endpoint_mac": one.device.mac,
            "host_mac": one.device.host_mac,
            "identity": one.spec.identity,
            "interface_ifindex": one.device.ifindex,
        }
        loaded = LoadedObject(
            config.objects / "bpf_lxc.o",
            config.globals_dir,
            constants,
            {},
            one.spec.endpoint_id,
            one.spec.endpoint_id,
        )
        with Netlink() as netlink:
            for item in attachments(one.device):
                fd = loaded.object.program_fd(item.program)
                tc.attach(netlink, item.ifindex, item.hook, fd, item.filter_name)
        loaded.object.close()

    for generations in (1, 2):
        node.call(half_reload)
        assert len(spare_names(calls)) == generations
        assert ping(one.netns, two.ip)
        assert ping(two.netns, one.ip)
    node.call(lambda: node.datapath.load(one.spec, one.device))
    assert spare_names(calls) == []
    assert ping(one.netns, two.ip)


def test_unattached_object_leaves_no_pin(topology: Topology) -> None:
    """An object that was loaded but never attached takes its tail call map away."""
    node = topology.add_node()
    topology.add_pod(node, 4001)
    before = pins(node)
    with pytest.raises(RuntimeError, match="on purpose"):
        _load_and_fail(node)
    assert pins(node) == before


def _load_and_fail(node: Node) -> None:
    with LoadedObject(node.config.objects / "bpf_lxc.o", node.config.globals_dir, {}, {}, 777, None):
        raise RuntimeError("on purpose")
