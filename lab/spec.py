"""What a lab consists of: pure values, derived from its name and node count.

Not in here: how it is built (`lab.network`, `lab.cluster`) or what the demo runs (`lab.demoapp`).
Every address lives in namespaces of the lab's own, so all labs use the same ones.
"""

import re
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

from palomar.errors import InvalidInputError
from palomar.paths import NodePaths

LABS_DIR = Path("/run/palomar-lab")
BPFFS = Path("/sys/fs/bpf")
UNDERLAY = IPv4Network("172.30.0.0/24")
CLUSTER_CIDR = IPv4Network("10.0.0.0/8")
WORLD_NETWORK = IPv4Network("198.51.100.0/24")
"""TEST-NET-2 (RFC 5737): what stands for the world."""
WORLD_ADDRESS = IPv4Address("198.51.100.10")
MAX_NODES = 32
ETCD_PORT = 2379


@dataclass(frozen=True, slots=True)
class NodeSpec:
    """One node: a network namespace with an agent in it."""

    lab: str
    index: int
    """From 1."""

    @property
    def name(self) -> str:
        """`node-1`."""
        return f"node-{self.index}"

    @property
    def namespace(self) -> str:
        """Name of its network namespace."""
        return f"{self.lab}.{self.name}"

    @property
    def address(self) -> IPv4Address:
        """Its address on the underlay."""
        return UNDERLAY[10 + self.index]

    @property
    def pod_cidr(self) -> IPv4Network:
        """The /24 its pods live in."""
        return IPv4Network(f"10.{self.index}.0.0/24")

    @property
    def paths(self) -> NodePaths:
        """Sockets, state and pins of its agent."""
        root = LABS_DIR / self.lab / self.name
        return NodePaths(
            run_dir=root / "run",
            state_dir=root / "state",
            bpf_root=BPFFS / f"palomar-lab-{self.lab}" / self.name,
        )


@dataclass(frozen=True, slots=True)
class PodSpec:
    """One pod: a network namespace on a node, and the labels of its endpoint."""

    name: str
    namespace: str
    node: str
    labels: tuple[str, ...]
    workload: str = ""

    def netns(self, lab: str) -> str:
        """Name of its network namespace."""
        return f"{lab}.{self.namespace}.{self.name}"


@dataclass(frozen=True, slots=True)
class LabSpec:
    """A whole lab."""

    name: str
    nodes: tuple[NodeSpec, ...]

    @classmethod
    def build(cls, name: str, nodes: int) -> "LabSpec":
        """Check `name` (1-20 of a-z 0-9 -) and `nodes` (1-32); raise InvalidInputError."""
        if not re.fullmatch(r"[a-z0-9][a-z0-9-]{0,19}", name):
            raise InvalidInputError(f"lab name {name!r}: use 1 to 20 characters of a-z, 0-9 and -")
        if not 1 <= nodes <= MAX_NODES:
            raise InvalidInputError(f"{nodes} nodes: a lab has 1 to {MAX_NODES}")
        return cls(name, tuple(NodeSpec(name, index) for index in range(1, nodes + 1)))

    @property
    def directory(self) -> Path:
        """Everything of the lab that is a file."""
        return LABS_DIR / self.name

    @property
    def policy_dir(self) -> Path:
        """Watched by every agent of the lab."""
        return self.directory / "policies"

    @property
    def bpf_root(self) -> Path:
        """Parent of the nodes' pins."""
        return BPFFS / f"palomar-lab-{self.name}"

    @property
    def underlay_namespace(self) -> str:
        """Where the bridge and etcd are."""
        return f"{self.name}.underlay"

    @property
    def world_namespace(self) -> str:
        """A host outside the cluster."""
        return f"{self.name}.world"

    @property
    def etcd_address(self) -> IPv4Address:
        """The bridge's own address."""
        return UNDERLAY[1]

    @property
    def world_underlay_address(self) -> IPv4Address:
        """Next hop of the nodes towards the world."""
        return UNDERLAY[200]

    def node(self, name: str) -> NodeSpec:
        """Look a node up by name; raise InvalidInputError naming those that exist."""
        for node in self.nodes:
            if node.name == name:
                return node
        known = ", ".join(node.name for node in self.nodes)
        raise InvalidInputError(f"lab {self.name} has no node {name!r}: it has {known}")
