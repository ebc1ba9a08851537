"""Nodes in namespaces around an underlay bridge, each with a real `NodeDatapath`, and pods on them.

Stands in for the agent: writes ipcache, tunnel and policy entries by hand. One process plays every node, so
each call enters the node's namespace in a thread.
"""

import itertools
from collections.abc import Callable
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import TypeVar

from datapath.abi.policy import PolicyEntry, PolicyKey
from datapath.config import DatapathConfig
from datapath.endpoint import EndpointDevice, EndpointSpec
from datapath.node import NodeDatapath
from tests.kit.netns import NetnsFactory, command, run_in

T = TypeVar("T")

CLUSTER_CIDR = IPv4Network("10.0.0.0/8")
ALLOW_ALL_COOKIE = 7


@dataclass
class Pod:
    """An endpoint with its namespace."""

    spec: EndpointSpec
    device: EndpointDevice
    netns: str

    @property
    def ip(self) -> str:
        return str(self.spec.ipv4)


@dataclass
class Node:
    """A node namespace with its datapath."""

    number: int
    netns: str
    ipv4: IPv4Address
    config: DatapathConfig
    datapath: NodeDatapath
    pods: list[Pod] = field(default_factory=list)

    def call(self, fn: Callable[[], T]) -> T:
        """Call `fn` inside the node's namespace."""
        return run_in(self.netns, fn)


class Topology:
    """An underlay bridge and what hangs on it."""

    def __init__(self, factory: NetnsFactory, bpf_root: Path) -> None:
        self.factory = factory
        self.bpf_root = bpf_root
        self.nodes: list[Node] = []
        self._ids = itertools.count(100)
        self._underlay = factory.create("u")
        self._bridge("link", "add", "br0", "type", "bridge")
        self._bridge("link", "set", "br0", "up")

    def _bridge(self, *argv: str) -> None:
        command("ip", "-n", Path(self._underlay).name, *argv)

    def plug(self, name: str, address: str) -> str:
        """Make a namespace whose eth0 hangs on the bridge; return its path."""
        path = self.factory.create(name)
        inside = Path(path).name
        self._bridge("link", "add", name, "type", "veth", "peer", "eth0", "netns", inside)
        self._bridge("link", "set", name, "master", "br0", "up")
        command("ip", "-n", inside, "addr", "add", f"{address}/24", "dev", "eth0")
        command("ip", "-n", inside, "link", "set", "eth0", "up")
        return path

    def add_node(self, start: bool = True, **overrides: object) -> Node:
        """Make a node at 172.30.0.<n> with pods in 10.<n>.0.0/24; start its datapath."""
        number = len(self.nodes) + 1
        ipv4 = IPv4Address(f"172.30.0.{number}")
        path = self.plug(f"n{number}", str(ipv4))
        config = DatapathConfig(
            bpf_root=self.bpf_root / f"node{number}",
            node_name=f"node{number}",
            node_ipv4=ipv4,
            router_ipv4=IPv4Address(f"10.{number}.0.1"),
            pod_cidr=IPv4Network(f"10.{number}.0.0/24"),
            cluster_cidr=CLUSTER_CIDR,
            **overrides,  # type: ignore[arg-type]  # checked by the dataclass
        )
        node = Node(number, path, ipv4, config, NodeDatapath(config))
        self.nodes.append(node)
        if start:
            node.call(node.datapath.start)
            self.announce()
        return node

    def announce(self) -> None:
        """Write every node's and pod's ipcache entries, and the tunnel map, on every node."""
        for node in self.nodes:
            maps = node.datapath.maps
            maps.ipcache.upsert(IPv4Network(node.config.router_ipv4), 1)
            for other in self.nodes:
                own = other is node
                maps.ipcache.upsert(IPv4Network(other.ipv4), 1 if own else 6)
                if not own:
                    maps.tunnel.upsert(other.config.pod_cidr, other.ipv4)
                for pod in other.pods:
                    maps.ipcache.upsert(IPv4Network(pod.spec.ipv4), pod.spec.identity, other.ipv4)

    def add_pod(self, node: Node, identity: int, allow: bool = True) -> Pod:
        """Connect and load an endpoint in a new namespace; `allow` writes allow-all both ways."""
        endpoint_id = next(self._ids)
        path = self.factory.create(f"p{endpoint_id}")
        spec = EndpointSpec(
            endpoint_id=endpoint_id,
            identity=identity,
            ipv4=IPv4Address(f"10.{node.number}.0.{len(node.pods) + 10}"),
            netns=path,
            host_ifname=f"lxc{endpoint_id:011x}",
        )
        device = node.call(lambda: node.datapath.connect(spec))
        if allow:
            allow_all(node, endpoint_id)
        node.call(lambda: node.datapath.load(spec, device))
        pod = Pod(spec, device, path)
        node.pods.append(pod)
        self.announce()
        return pod

    def close(self) -> None:
        """Take every node's datapath away."""
        for node in self.nodes:
            node.call(node.datapath.remove)


def allow_all(node: Node, endpoint_id: int) -> None:
    """Write the entries of a direction without policy: any peer, any protocol."""
    policy = node.datapath.maps.policy(endpoint_id)
    for egress in (False, True):
        policy.upsert(PolicyKey(0, egress), PolicyEntry(deny=False, cookie=ALLOW_ALL_COOKIE))
    node.datapath.maps.bump_policy_revision(endpoint_id)


def deny_all(node: Node, endpoint_id: int) -> None:
    """Take the allow-all entries away: the default is to deny."""
    policy = node.datapath.maps.policy(endpoint_id)
    for egress in (False, True):
        policy.delete(PolicyKey(0, egress))
    node.datapath.maps.bump_policy_revision(endpoint_id)
