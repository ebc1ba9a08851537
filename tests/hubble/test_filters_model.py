"""Filters give the same answer as a slow, obvious model: one built flow at a time, no numpy, no tables."""

import fnmatch
from collections.abc import Callable
from ipaddress import ip_address, ip_network
from typing import Any

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hubble.filterfields.predicates import View
from hubble.filters import compile_filters
from hubble.flowbuilder import FlowBuilder
from palomar_pb.flow import flow_pb2
from palomar_pb.flow.flow_pb2 import EventTypeFilter, FlowFilter, NetworkInterface, TCPFlags, Workload
from tests.hubble.filternode import FIRST, NODE, uuid_at
from tests.kit.flows import CLIENT, SERVER, FakeNames, rows


def labels_of(endpoint: flow_pb2.Endpoint) -> list[tuple[str, str, str]]:
    found = []
    for text in endpoint.labels:
        source, _, rest = text.partition(":")
        key, _, value = rest.partition("=")
        found.append((source, key, value))
    return found


def model_selector(selector: str, endpoint: flow_pb2.Endpoint) -> bool:
    def one(term: str) -> bool:
        source = "any"

        def named(name: str) -> list[str]:
            wanted, _, key = name.rpartition(":")
            return [v for s, k, v in labels_of(endpoint) if k == key and wanted in ("", source, s)]

        if term.startswith("!"):
            return not named(term[1:])
        if " notin " in term:
            name, _, values = term.partition(" notin ")
            return not any(v in values.strip("()").split("|") for v in named(name))
        if " in " in term:
            name, _, values = term.partition(" in ")
            return any(v in values.strip("()").split("|") for v in named(name))
        if "!=" in term:
            name, _, value = term.partition("!=")
            return value not in named(name)
        if "=" in term:
            name, _, value = term.partition("=")
            return value in named(name)
        return bool(named(term))

    return all(one(term) for term in selector.split(","))


def model_pod(wanted: str, endpoint: flow_pb2.Endpoint) -> bool:
    namespace, slash, prefix = wanted.rpartition("/")
    if not slash:
        namespace = "default"
    if not endpoint.namespace and not endpoint.pod_name:
        return False
    return namespace in ("", endpoint.namespace) and endpoint.pod_name.startswith(prefix)


def model_ip(wanted: str, address: str) -> bool:
    return bool(address) and ip_address(address) in ip_network(wanted, strict=False)


def l4(flow: flow_pb2.Flow) -> str:
    return (flow.l4.WhichOneof("protocol") or "").lower()


def ports(flow: flow_pb2.Flow) -> tuple[str, str] | None:
    kind = flow.l4.WhichOneof("protocol")
    if kind not in ("TCP", "UDP", "SCTP"):
        return None
    header = getattr(flow.l4, kind)
    return str(header.source_port), str(header.destination_port)


def model_flags(wanted: TCPFlags, flow: flow_pb2.Flow) -> bool:
    if l4(flow) != "tcp":
        return False
    return all(getattr(flow.l4.TCP.flags, field.name) for field, _ in wanted.ListFields())


def model_event(wanted: EventTypeFilter, flow: flow_pb2.Flow) -> bool:
    if wanted.match_sub_type and wanted.sub_type != flow.event_type.sub_type:
        return False
    return bool(wanted.type == flow.event_type.type)


def model_workload(wanted: Workload, endpoint: flow_pb2.Endpoint) -> bool:
    return any(wanted.name in ("", w.name) and wanted.kind in ("", w.kind) for w in endpoint.workloads)


def model_interface(wanted: NetworkInterface, flow: flow_pb2.Flow) -> bool:
    if not flow.HasField("interface"):
        return False
    return wanted.index in (0, flow.interface.index) and wanted.name in ("", flow.interface.name)


def model_node(wanted: str, flow: flow_pb2.Flow) -> bool:
    cluster, name = flow.node_name.split("/")
    if "/" not in wanted:
        return fnmatch.fnmatchcase(name, wanted)
    want_cluster, want_name = wanted.split("/")
    return fnmatch.fnmatchcase(cluster, want_cluster or "default") and fnmatch.fnmatchcase(
        name, want_name or "*"
    )


MODEL: dict[str, Callable[[Any, flow_pb2.Flow], bool]] = {
    "source_ip": lambda v, f: model_ip(v, f.IP.source),
    "destination_ip": lambda v, f: model_ip(v, f.IP.destination),
    "source_pod": lambda v, f: model_pod(v, f.source),
    "destination_pod": lambda v, f: model_pod(v, f.destination),
    "source_label": lambda v, f: model_selector(v, f.source),
    "destination_label": lambda v, f: model_selector(v, f.destination),
    "source_workload": lambda v, f: model_workload(v, f.source),
    "destination_workload": lambda v, f: model_workload(v, f.destination),
    "source_cluster_name": lambda v, f: fnmatch.fnmatchcase(f.source.cluster_name, v),
    "destination_cluster_name": lambda v, f: fnmatch.fnmatchcase(f.destination.cluster_name, v),
    "source_identity": lambda v, f: f.source.identity == v,
    "destination_identity": lambda v, f: f.destination.identity == v,
    "source_port": lambda v, f: (ports(f) or ("", ""))[0] == v,
    "destination_port": lambda v, f: (ports(f) or ("", ""))[1] == v,
    "protocol": lambda v, f: l4(f) == v.lower() or (v == "icmp" and l4(f) in ("icmpv4", "icmpv6")),
    "verdict": lambda v, f: f.verdict == v,
    "drop_reason_desc": lambda v, f: f.drop_reason_desc == v,
    "event_type": model_event,
    "tcp_flags": model_flags,
    "reply": lambda v, f: f.HasField("is_reply") and f.is_reply.value == v,
    "traffic_direction": lambda v, f: f.traffic_direction == v,
    "ip_version": lambda v, f: f.IP.ipVersion == v,
    "interface": model_interface,
    "uuid": lambda v, f: f.uuid == v,
    "node_name": model_node,
    "encrypted": lambda v, f: f.IP.encrypted == v,
}


def model_matches(item: FlowFilter, flow: flow_pb2.Flow) -> bool:
    return all(any(MODEL[field.name](value, flow) for value in values) for field, values in item.ListFields())


def some(values: st.SearchStrategy[Any]) -> st.SearchStrategy[list[Any]]:
    return st.lists(values, min_size=1, max_size=2)


IPS = st.sampled_from(
    ["10.0.0.185", "10.0.1.0/24", "10.0.1.110", "fd00::/64", "0.0.0.0/0", "::/0", "203.0.113.9/31"]
)
PODS = st.sampled_from(
    ["server", "client-6", "kube-system/", "/core", "default/c", "other/", "kube-system/x", "/"]
)
SELECTORS = st.sampled_from(
    ["app=server", "k8s:app=client", "app!=server", "tier", "!tier", "app in (server|client)",
     "k8s:app notin (server)", "reserved:world", "tier=back,app=server", "k8s-app=kube-dns", "container:app",
     "cidr:198.51.100.0/24"]
)  # fmt: skip
WORKLOADS = st.builds(
    Workload,
    name=st.sampled_from(["", "server", "dns"]),
    kind=st.sampled_from(["", "Deployment", "DaemonSet"]),
)
CLUSTERS = st.sampled_from(["default", "def*", "*", "o*r"])
IDENTITIES = st.sampled_from([0, 2, 1111, CLIENT.identity, SERVER.identity, 0x01000001])
PORTS = st.sampled_from(["53", "80", "8080", "40912", "0"])

FIELDS: dict[str, st.SearchStrategy[list[Any]]] = {
    "source_ip": some(IPS),
    "destination_ip": some(IPS),
    "source_pod": some(PODS),
    "destination_pod": some(PODS),
    "source_label": some(SELECTORS),
    "destination_label": some(SELECTORS),
    "source_workload": some(WORKLOADS),
    "destination_workload": some(WORKLOADS),
    "source_cluster_name": some(CLUSTERS),
    "destination_cluster_name": some(CLUSTERS),
    "source_identity": some(IDENTITIES),
    "destination_identity": some(IDENTITIES),
    "source_port": some(PORTS),
    "destination_port": some(PORTS),
    "protocol": some(
        st.sampled_from(["tcp", "UDP", "icmp", "icmpv4", "icmpv6", "sctp", "igmp", "vrrp", "dns"])
    ),
    "verdict": some(st.sampled_from([1, 2, 4, 5])),
    "drop_reason_desc": some(st.sampled_from([0, 133, 181, 166])),
    "event_type": some(
        st.builds(
            EventTypeFilter,
            type=st.sampled_from([1, 4, 5]),
            match_sub_type=st.booleans(),
            sub_type=st.sampled_from([0, 3, 4, 133]),
        )
    ),
    "tcp_flags": some(st.builds(TCPFlags, SYN=st.booleans(), ACK=st.booleans(), NS=st.booleans())),
    "reply": some(st.booleans()),
    "traffic_direction": some(st.sampled_from([0, 1, 2])),
    "ip_version": some(st.sampled_from([0, 1, 2])),
    "interface": some(
        st.builds(NetworkInterface, index=st.sampled_from([7, 8]), name=st.sampled_from(["", "cilium_vxlan"]))
    ),
    "uuid": some(st.builds(uuid_at, st.integers(FIRST, FIRST + 8))),
    "node_name": some(st.sampled_from(["worker*", "default/", "/worker2", "x/worker2", "*/*2"])),
    "encrypted": some(st.booleans()),
}


def filter_of(values: dict[str, Any]) -> FlowFilter:
    return FlowFilter(**values)


FILTERS = (
    st.lists(st.sampled_from(sorted(FIELDS)), min_size=1, max_size=2, unique=True)
    .flatmap(lambda names: st.fixed_dictionaries({name: FIELDS[name] for name in names}))
    .map(filter_of)
)


def with_destination(values: dict[str, Any]) -> dict[str, Any]:
    """A record whose addresses are both IPv4, both IPv6 or both missing."""
    other: dict[Any, Any] = {"fd00::1": "fd00::2", b"": b""}
    return {**values, "daddr": other.get(values["saddr"], "203.0.113.9")}


RECORDS: st.SearchStrategy[dict[str, Any]] = st.fixed_dictionaries(
    {
        "type": st.sampled_from([1, 4, 5]),
        "subtype": st.sampled_from([0, 3, 4, 133, 159, 166]),
        "verdict": st.sampled_from([1, 2, 4, 5]),
        "drop_reason": st.sampled_from([0, 133, 159, 166, 181]),
        "direction": st.sampled_from([0, 1, 2]),
        "trace_reason": st.sampled_from([0, 1, 2, 3, 5, 0x80, 0x82, 6]),
        "match_type": st.sampled_from([0, 2]),
        "saddr": st.sampled_from(["10.0.0.185", "10.0.1.110", "fd00::1", b""]),
        "protocol": st.sampled_from([0, 1, 2, 6, 17, 58, 112, 132]),
        "l4_flags": st.sampled_from([0, 2, 8, 16, 18, 128]),
        "sport": st.sampled_from([0, 53, 40912]),
        "dport": st.sampled_from([0, 80, 8080]),
        "src_ref": st.sampled_from([0, 1, 2, 3, 9]),
        "dst_ref": st.sampled_from([0, 1, 2, 3, 9]),
        "src_identity": IDENTITIES,
        "dst_identity": IDENTITIES,
        "ifindex": st.sampled_from([0, 7, 8, 9]),
    }
)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    records=st.lists(RECORDS.map(with_destination), min_size=1, max_size=8),
    whitelist=st.lists(FILTERS, max_size=2),
    blacklist=st.lists(FILTERS, max_size=2),
)
def test_masks_agree_with_the_model(
    records: list[dict[str, Any]], whitelist: list[FlowFilter], blacklist: list[FlowFilter]
) -> None:
    """The vectorised filters and a plain reading of the built flows say the same."""
    block, names = rows(*records, first=FIRST), FakeNames()
    built = FlowBuilder(NODE, names).flows(block, np.arange(len(block)))
    flows = [flow_pb2.Flow.FromString(data) for data in built]
    expected = [
        (not whitelist or any(model_matches(item, flow) for item in whitelist))
        and not any(model_matches(item, flow) for item in blacklist)
        for flow in flows
    ]

    def real(item: FlowFilter) -> FlowFilter:
        """The model writes sets with |, which keeps its splitting simple."""
        copy = FlowFilter()
        copy.CopyFrom(item)
        for values in (copy.source_label, copy.destination_label):
            values[:] = [value.replace("|", ", ") for value in values]
        return copy

    matcher = compile_filters([real(i) for i in whitelist], [real(i) for i in blacklist], NODE)
    assert matcher.mask(View(block, names)).tolist() == expected
