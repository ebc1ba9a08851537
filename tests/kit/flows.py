"""Stored records and names by hand: the same cast for every test of the flow server."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Any

import numpy as np
import numpy.typing as npt

from datapath.events import STORED_DTYPE
from hubble.flowendpoint import FlowEndpoint, Workload
from hubble.names import PolicyName, PolicyRule

NOW_NS = 1_795_248_001_123_456_789
"""2026-11-21, give or take a day."""

CLIENT = FlowEndpoint(
    endpoint_id=1234,
    identity=48291,
    cluster="default",
    namespace="default",
    pod="client-6d5f7b9c4d-abcde",
    labels=("k8s:app=client", "k8s:io.kubernetes.pod.namespace=default"),
    workloads=(Workload("client", "Deployment"),),
)
SERVER = FlowEndpoint(
    endpoint_id=5678,
    identity=53731,
    cluster="default",
    namespace="default",
    pod="server-7c9d8f6b5-fghij",
    labels=("k8s:app=server", "k8s:io.kubernetes.pod.namespace=default", "k8s:tier=back"),
    workloads=(Workload("server", "Deployment"),),
)
DNS = FlowEndpoint(
    endpoint_id=0,
    identity=1111,
    cluster="other",
    namespace="kube-system",
    pod="coredns-565d847f94-xyz12",
    labels=("k8s:k8s-app=kube-dns", "container:app=server"),
    workloads=(Workload("coredns", "Deployment"), Workload("dns", "DaemonSet")),
)
ALLOW_CLIENT = PolicyName(
    name="allow-client",
    namespace="default",
    kind="CiliumNetworkPolicy",
    labels=("k8s:io.cilium.k8s.policy.name=allow-client",),
    revision=3,
    rule="ingress[0].toPorts[0]",
)
DENY_ALL = PolicyName(
    name="deny-all", namespace="default", kind="CiliumNetworkPolicy", revision=4, rule="ingressDeny[0]"
)


@dataclass
class FakeNames:
    """A names log in memory."""

    endpoints: dict[int, FlowEndpoint] = field(default_factory=lambda: {1: CLIENT, 2: SERVER, 3: DNS})
    cookies: dict[int, tuple[PolicyName, ...]] = field(
        default_factory=lambda: {77: (ALLOW_CLIENT,), 78: (DENY_ALL,), 79: (ALLOW_CLIENT, DENY_ALL)}
    )
    interfaces: dict[int, str] = field(default_factory=lambda: {7: "lxc0123456789a", 8: "cilium_vxlan"})
    labels: dict[int, tuple[str, ...]] = field(
        default_factory=lambda: {0x01000001: ("cidr:198.51.100.0/24", "reserved:world")}
    )

    def endpoint(self, ref: int) -> FlowEndpoint | None:
        return self.endpoints.get(ref)

    def identity_labels(self, identity: int) -> Sequence[str] | None:
        return self.labels.get(identity)

    def interface(self, index: int) -> str | None:
        return self.interfaces.get(index)

    def policy(self, cookie: int) -> PolicyRule | None:
        found = self.cookies.get(cookie)
        return None if found is None else PolicyRule(cookie, found)


@dataclass(frozen=True)
class MemoryRows:
    """Rows that lie in one array."""

    records: npt.NDArray[np.void]
    first: int = 0

    def __len__(self) -> int:
        return len(self.records)

    def column(self, name: str) -> npt.NDArray[Any]:
        return self.records[name]


SYN: Mapping[str, Any] = {
    "version": 1,
    "type": 4,
    "subtype": 3,
    "time_ns": NOW_NS,
    "saddr": "10.0.0.185",
    "daddr": "10.0.1.110",
    "src_identity": CLIENT.identity,
    "dst_identity": SERVER.identity,
    "src_ref": 1,
    "dst_ref": 2,
    "endpoint_id": CLIENT.endpoint_id,
    "sport": 40912,
    "dport": 8080,
    "protocol": 6,
    "l4_flags": 2,
    "direction": 2,
    "verdict": 1,
    "ifindex": 7,
    "length": 74,
}
"""A forwarded SYN from CLIENT to SERVER, seen on its way to the stack."""


def record(**values: Any) -> dict[str, Any]:
    """SYN with some fields changed; addresses as text."""
    return {**SYN, **values}


def stored(*records: Mapping[str, Any]) -> npt.NDArray[np.void]:
    """Records as the store keeps them."""
    array = np.zeros(len(records), dtype=STORED_DTYPE)
    for row, values in enumerate(records):
        for name, value in values.items():
            if name in ("saddr", "daddr"):
                packed = ip_address(value).packed if isinstance(value, str) else value
                array[name][row, : len(packed)] = np.frombuffer(packed, dtype=np.uint8)
                if len(packed) > 4 and isinstance(value, str):
                    array["flags"][row] |= 1
            elif name == "flags":
                array["flags"][row] |= value
            else:
                array[name][row] = value
    return array


def rows(*records: Mapping[str, Any], first: int = 0) -> MemoryRows:
    """Records as a block."""
    return MemoryRows(stored(*records), first)
