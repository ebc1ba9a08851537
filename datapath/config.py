"""What a node's datapath is told: one frozen value, checked where it is made.

Not the agent's configuration (files, flags): the agent builds this from it. Nothing here touches the kernel.
"""

from dataclasses import dataclass
from enum import IntEnum
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

from palomar.errors import InvalidInputError

OBJECT_DIR = Path(__file__).parent / "objects"
"""Where `make bpf` puts the ELF objects and where the wheel ships them."""

VXLAN_OVERHEAD_BYTES = 50
"""Outer IPv4 (20), UDP (8), VXLAN (8) and the inner Ethernet header (14): RFC 7348 section 5."""


class Aggregation(IntEnum):
    """How much the kernel summarises trace events (`cilium_runtime_config` index 16)."""

    NONE = 0
    LOW = 1
    MEDIUM = 2
    MAXIMUM = 3


@dataclass(frozen=True, slots=True)
class DatapathConfig:
    """A node's part of the network and the limits of its maps."""

    bpf_root: Path
    """A folder on a BPF file system that this node alone uses; maps go to `tc/globals` below it."""
    node_name: str
    node_ipv4: IPv4Address
    """The address other nodes reach this one at: the outer address of the overlay."""
    router_ipv4: IPv4Address
    """The pods' gateway, an address of `pod_cidr` that sits on `cilium_host`."""
    pod_cidr: IPv4Network
    cluster_cidr: IPv4Network
    """Every node's pods: what is inside is never masqueraded and goes through `cilium_host`."""
    device: str = ""
    """The underlay device; empty: the one that holds `node_ipv4`."""
    tunnel_port: int = 8472
    mtu: int = 0
    """Of pods' devices; 0: the underlay device's less the overlay's 50 bytes."""
    masquerade: bool = True
    aggregation: str = "medium"
    ct_tcp_max: int = 131072
    ct_any_max: int = 65536
    object_dir: Path | None = None
    """None: the objects shipped with the package."""

    def __post_init__(self) -> None:
        """Refuse what cannot work, naming the field."""
        if self.router_ipv4 not in self.pod_cidr:
            raise InvalidInputError(f"{self.router_ipv4} is not in pod-cidr {self.pod_cidr}", "router_ipv4")
        if not self.pod_cidr.subnet_of(self.cluster_cidr):
            raise InvalidInputError(
                f"{self.pod_cidr} is not inside cluster-pod-cidr {self.cluster_cidr}", "pod_cidr"
            )
        if not 0 < self.tunnel_port < 65536:
            raise InvalidInputError(f"{self.tunnel_port} is not a UDP port", "tunnel_port")
        if self.mtu and not 1280 <= self.mtu <= 65535:
            raise InvalidInputError(f"{self.mtu} is not between 1280 and 65535", "mtu")
        if self.aggregation.upper() not in Aggregation.__members__:
            raise InvalidInputError(
                f"{self.aggregation} is none of {', '.join(a.name.lower() for a in Aggregation)}",
                "aggregation",
            )
        for name in ("ct_tcp_max", "ct_any_max"):
            if getattr(self, name) < 1024:
                raise InvalidInputError(f"{getattr(self, name)} is below 1024", name)

    @property
    def globals_dir(self) -> Path:
        """Where maps are pinned, as in the field."""
        return self.bpf_root / "tc" / "globals"

    @property
    def objects(self) -> Path:
        """Where the ELF objects are."""
        return self.object_dir or OBJECT_DIR

    @property
    def aggregation_level(self) -> Aggregation:
        """The level as the kernel's number."""
        return Aggregation[self.aggregation.upper()]
