"""The fake datapath and the kernel's behave alike where the endpoint manager looks."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Any

import pytest

from agent.endpoint.datapath import EndpointDatapath, FakeEndpointDatapath
from agent.endpoint.namespaces import KernelNamespaces
from datapath.config import DatapathConfig
from datapath.endpoint import EndpointSpec
from datapath.errors import DeviceExistsError, NamespaceMissingError
from datapath.node import NodeDatapath
from tests.kit.netns import NetnsFactory, command, run_in
from tests.kit.wait import eventually


@dataclass
class Case:
    """A datapath, how to call it, and two namespaces."""

    datapath: EndpointDatapath
    call: Callable[[Callable[[], Any]], Any]
    namespaces: tuple[str, str]
    destroy: Callable[[str], None]

    def spec(self, endpoint_id: int = 1, name: str = "lxc00000000001") -> EndpointSpec:
        ipv4 = IPv4Address("10.1.0.0") + 1 + endpoint_id
        return EndpointSpec(endpoint_id, 300, ipv4, self.namespaces[0], name)


@pytest.fixture(params=["fake", pytest.param("kernel", marks=[pytest.mark.root, pytest.mark.bpf])])
def case(request: pytest.FixtureRequest) -> Iterator[Case]:
    if request.param == "fake":
        names = {"/run/netns/a", "/run/netns/b"}
        fake = FakeEndpointDatapath(names)
        yield Case(fake, lambda fn: fn(), ("/run/netns/a", "/run/netns/b"), fake.destroy_namespace)
        return
    factory: NetnsFactory = request.getfixturevalue("netns_factory")
    root: Path = request.getfixturevalue("bpf_root")
    node = factory.create("n")
    inside = Path(node).name
    command("ip", "-n", inside, "link", "add", "eth0", "type", "veth", "peer", "name", "far0")
    command("ip", "-n", inside, "addr", "add", "172.31.77.1/24", "dev", "eth0")
    command("ip", "-n", inside, "link", "set", "eth0", "up")
    config = DatapathConfig(
        bpf_root=root,
        node_name="one",
        node_ipv4=IPv4Address("172.31.77.1"),
        router_ipv4=IPv4Address("10.1.0.1"),
        pod_cidr=IPv4Network("10.1.0.0/24"),
        cluster_cidr=IPv4Network("10.0.0.0/8"),
        ct_tcp_max=1024,
        ct_any_max=1024,
    )
    datapath = NodeDatapath(config)
    run_in(node, datapath.start)
    try:
        yield Case(
            datapath,
            lambda fn: run_in(node, fn),
            (factory.create("a"), factory.create("b")),
            factory.delete,
        )
    finally:
        run_in(node, datapath.remove)


def test_an_endpoint_is_connected_loaded_found_and_disconnected(case: Case) -> None:
    spec = case.spec()
    device = case.call(lambda: case.datapath.connect(spec))
    assert (device.ifname, len(device.mac), len(device.host_mac)) == (spec.host_ifname, 6, 6)
    case.call(lambda: case.datapath.load(spec, device))
    case.call(lambda: case.datapath.load(spec, device))
    assert case.call(lambda: case.datapath.device_of(spec.host_ifname)) == device
    assert case.call(case.datapath.list_endpoint_devices) == [device]
    for _ in range(2):
        case.call(lambda: case.datapath.disconnect(spec.endpoint_id, spec.host_ifname))
        assert case.call(lambda: case.datapath.device_of(spec.host_ifname)) is None
    assert case.call(case.datapath.list_endpoint_devices) == []


def test_a_missing_namespace_leaves_nothing(case: Case) -> None:
    spec = replace(case.spec(), netns="/run/netns/plt-nowhere")
    with pytest.raises(NamespaceMissingError, match="plt-nowhere"):
        case.call(lambda: case.datapath.connect(spec))
    assert case.call(case.datapath.list_endpoint_devices) == []


def test_a_device_that_exists_on_either_side_is_refused_and_nothing_is_left(case: Case) -> None:
    first = case.spec()
    device = case.call(lambda: case.datapath.connect(first))
    inside = replace(case.spec(2), host_ifname="lxc00000000002")
    outside = replace(case.spec(3), netns=case.namespaces[1])
    for spec in (inside, outside):
        with pytest.raises(DeviceExistsError):
            case.call(lambda spec=spec: case.datapath.connect(spec))
    assert case.call(case.datapath.list_endpoint_devices) == [device]


def test_a_namespace_that_vanishes_takes_the_device_along(case: Case) -> None:
    spec = case.spec()
    device = case.call(lambda: case.datapath.connect(spec))
    case.call(lambda: case.datapath.load(spec, device))
    case.destroy(spec.netns)
    eventually(lambda: case.call(lambda: case.datapath.device_of(spec.host_ifname)) is None)
    case.call(lambda: case.datapath.disconnect(spec.endpoint_id, spec.host_ifname))
    assert case.call(case.datapath.list_endpoint_devices) == []


@pytest.mark.root
def test_namespaces_are_told_apart_by_what_they_are(netns_factory: NetnsFactory, tmp_path: Path) -> None:
    table = KernelNamespaces()
    first, second = netns_factory.create("a"), netns_factory.create("b")
    link = tmp_path / "link"
    link.symlink_to(first)
    assert table.identify(first) == table.identify(str(link))
    assert table.identify(first) != table.identify(second)
    assert table.own() not in (table.identify(first), table.identify(second))
    (tmp_path / "plain").write_text("")
    for path in (str(tmp_path / "plain"), "/run/netns/plt-nowhere"):
        with pytest.raises(NamespaceMissingError):
            table.identify(path)
