"""FlowFilters: what each field chooses, what is refused, and the same answer as a slow, obvious model."""

import fnmatch
import re
from collections.abc import Callable, Sequence
from ipaddress import ip_address, ip_network
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hubble import flowuuid
from hubble.filterfields import COMPILERS, ObservingNode, View
from hubble.filters import compile_filters
from hubble.flowbuilder import FlowBuilder
from hubble.flowuuid import StoreId
from palomar.errors import InvalidInputError
from palomar_pb.flow import flow_pb2
from palomar_pb.flow.flow_pb2 import EventTypeFilter, FlowFilter, NetworkInterface, TCPFlags, Workload
from tests.kit.flows import CLIENT, SERVER, SYN, FakeNames, MemoryRows, record, rows

STORE = StoreId(0x123456789ABCDEF)
NODE = ObservingNode("default/worker2", ("k8s:zone=a", "k8s:disk=ssd"), STORE)
FIRST = 1000


def uuid_at(position: int) -> str:
    return flowuuid.prefix(STORE) + flowuuid.tail(position).decode()


ROWS = rows(
    record(),
    record(  # the answer
        subtype=0,
        saddr="10.0.1.110",
        daddr="10.0.0.185",
        src_identity=SERVER.identity,
        dst_identity=CLIENT.identity,
        src_ref=2,
        dst_ref=1,
        sport=8080,
        dport=40912,
        l4_flags=18,
        trace_reason=2,
        direction=1,
    ),
    record(type=1, subtype=133, drop_reason=133, verdict=2, direction=1, policy_cookie=78),
    record(type=5, subtype=0, verdict=1, direction=1, match_type=2, policy_cookie=77),
    record(type=5, subtype=0, verdict=2, direction=2, drop_reason=181, policy_cookie=78),
    record(protocol=17, l4_flags=0, dport=53, dst_ref=3, dst_identity=1111, daddr="10.0.2.7", ifindex=8),
    record(protocol=1, l4_flags=8, sport=0, dport=0, dst_ref=0, dst_identity=2, daddr="203.0.113.9"),
    record(protocol=58, l4_flags=128, saddr="fd00::1", daddr="fd00::2", src_ref=0, dst_ref=0, trace_reason=5),
    record(
        type=1, subtype=166, drop_reason=166, verdict=2, saddr=b"", daddr=b"", protocol=0, sport=0, dport=0,
        l4_flags=0, src_ref=0, dst_ref=0, src_identity=0, dst_identity=0, ifindex=0, direction=0,
    ),
    record(dst_ref=0, dst_identity=0x01000001, daddr="198.51.100.7", dport=443, l4_flags=24, verdict=5),
    first=FIRST,
)  # fmt: skip
ANSWER, DROP, ALLOWED, DENIED, UDP, PING, V6, NO_IP, CIDR = range(1, 10)


def chosen(*whitelist: FlowFilter, blacklist: Sequence[FlowFilter] = ()) -> list[int]:
    matcher = compile_filters(whitelist, blacklist, NODE)
    return np.flatnonzero(matcher.mask(View(ROWS, FakeNames()))).tolist()


TCP_ROWS = [0, ANSWER, DROP, ALLOWED, DENIED, CIDR]
ALL = list(range(len(ROWS)))


@pytest.mark.parametrize(
    ("item", "expected"),
    [
        (FlowFilter(), ALL),
        (FlowFilter(source_ip=["10.0.1.110"]), [ANSWER]),
        (FlowFilter(source_ip=["10.0.1.110", "fd00::/16"]), [ANSWER, V6]),
        (FlowFilter(destination_ip=["198.51.100.0/24", "203.0.113.0/29"]), [CIDR]),
        (FlowFilter(destination_ip=["::/0"]), [V6]),
        (FlowFilter(source_ip=["0.0.0.0/0"]), [i for i in ALL if i not in (V6, NO_IP)]),
        (FlowFilter(source_pod=["server"]), [ANSWER]),
        (FlowFilter(source_pod=["default/ser", "/nothing"]), [ANSWER]),
        (FlowFilter(destination_pod=["kube-system/"]), [UDP]),
        (FlowFilter(destination_pod=["/coredns"]), [UDP]),
        (FlowFilter(destination_pod=["coredns"]), []),
        (FlowFilter(destination_label=["k8s:app=server"]), [0, DROP, ALLOWED, DENIED]),
        (FlowFilter(destination_label=["app=server"]), [0, DROP, ALLOWED, DENIED, UDP]),
        (FlowFilter(destination_label=["container:app"]), [UDP]),
        (FlowFilter(destination_label=["app in (client, x),!tier"]), [ANSWER]),
        (FlowFilter(destination_label=["reserved:world"]), [PING, CIDR]),
        (FlowFilter(destination_label=["cidr:198.51.100.0/24"]), [CIDR]),
        (FlowFilter(source_label=["app notin (client)"]), [ANSWER, V6, NO_IP]),
        (FlowFilter(destination_workload=[Workload(name="dns")]), [UDP]),
        (FlowFilter(destination_workload=[Workload(kind="DaemonSet", name="coredns")]), []),
        (FlowFilter(destination_workload=[Workload(kind="Deployment", name="coredns")]), [UDP]),
        (FlowFilter(source_cluster_name=["def*"], destination_cluster_name=["o*er"]), [UDP]),
        (FlowFilter(source_identity=[SERVER.identity, 0]), [ANSWER, NO_IP]),
        (FlowFilter(destination_identity=[2]), [PING]),
        (FlowFilter(source_port=["8080"]), [ANSWER]),
        (FlowFilter(destination_port=["53", "443"]), [UDP, CIDR]),
        (FlowFilter(destination_port=["0"]), []),
        (FlowFilter(protocol=["UDP", "icmp"]), [UDP, PING, V6]),
        (FlowFilter(protocol=["icmpv4"]), [PING]),
        (FlowFilter(protocol=["http"]), []),
        (FlowFilter(verdict=[flow_pb2.DROPPED, flow_pb2.REDIRECTED]), [DROP, DENIED, NO_IP, CIDR]),
        (FlowFilter(drop_reason_desc=[flow_pb2.POLICY_DENY]), [DENIED]),
        (FlowFilter(event_type=[EventTypeFilter(type=5)]), [ALLOWED, DENIED]),
        (FlowFilter(event_type=[EventTypeFilter(type=4, match_sub_type=True, sub_type=0)]), [ANSWER]),
        (FlowFilter(event_type=[EventTypeFilter(type=129), EventTypeFilter(type=-1)]), []),
        (FlowFilter(tcp_flags=[TCPFlags(SYN=True, ACK=True)]), [ANSWER]),
        (FlowFilter(tcp_flags=[TCPFlags(PSH=True), TCPFlags(NS=True)]), [CIDR]),
        (FlowFilter(tcp_flags=[TCPFlags()]), TCP_ROWS),
        (FlowFilter(reply=[True]), [ANSWER]),
        (FlowFilter(reply=[False]), [0, ALLOWED, UDP, PING, CIDR]),
        (FlowFilter(reply=[False, True]), [0, ANSWER, ALLOWED, UDP, PING, CIDR]),
        (FlowFilter(traffic_direction=[flow_pb2.INGRESS]), [ANSWER, DROP, ALLOWED]),
        (FlowFilter(ip_version=[flow_pb2.IPv6, flow_pb2.IP_NOT_USED]), [V6, NO_IP]),
        (FlowFilter(interface=[NetworkInterface(name="cilium_vxlan")]), [UDP]),
        (FlowFilter(interface=[NetworkInterface(index=8), NetworkInterface(index=9)]), [UDP]),
        (FlowFilter(interface=[NetworkInterface(index=8, name="eth0")]), []),
        (FlowFilter(uuid=[uuid_at(FIRST + 4), uuid_at(FIRST + 400)]), [DENIED]),
        (FlowFilter(uuid=["00000000-0000-0000-0000-000000000003"]), []),
        (FlowFilter(node_name=["worker*"]), ALL),
        (FlowFilter(node_name=["default/"]), ALL),
        (FlowFilter(node_name=["/worker2"]), ALL),
        (FlowFilter(node_name=["other/worker2", "worker"]), []),
        (FlowFilter(node_labels=["zone=a,disk in (ssd)"]), ALL),
        (FlowFilter(node_labels=["zone=b"]), []),
        (FlowFilter(encrypted=[False]), ALL),
        (FlowFilter(encrypted=[True]), []),
        (FlowFilter(source_fqdn=["*.example.com"]), []),
        (FlowFilter(destination_service=["default/web"]), []),
        (FlowFilter(source_ip_xlated=["10.0.0.0/8"]), []),
        (FlowFilter(http_status_code=["404"], http_method=["GET"]), []),
        (FlowFilter(dns_query=["a+"]), []),
        (FlowFilter(trace_id=["00f"], ip_trace_id=[3]), []),
        (FlowFilter(verdict=[flow_pb2.DROPPED], traffic_direction=[flow_pb2.EGRESS]), [DENIED]),
    ],
    ids=lambda value: re.sub(r"\s+", " ", str(value))[:60] if isinstance(value, FlowFilter) else "",
)
def test_a_filter_chooses(item: FlowFilter, expected: list[int]) -> None:
    """Each field alone, and fields together."""
    assert chosen(item) == expected


def test_lists_are_or_and_the_blacklist_wins() -> None:
    """One filter of the whitelist is enough, one of the blacklist too much."""
    icmp, tcp = FlowFilter(protocol=["icmp"]), FlowFilter(protocol=["tcp"])
    assert chosen(icmp, tcp) == sorted([*TCP_ROWS, PING, V6])
    assert chosen(icmp, tcp, blacklist=[FlowFilter(verdict=[flow_pb2.DROPPED])]) == [
        0, ANSWER, ALLOWED, PING, V6, CIDR,
    ]  # fmt: skip
    assert chosen(blacklist=[tcp, icmp]) == [UDP, NO_IP]


@pytest.mark.parametrize(
    ("item", "path", "word"),
    [
        (FlowFilter(source_ip=["10.0.0.1", "10.0.0.1/33"]), "source_ip[1]", "CIDR"),
        (FlowFilter(destination_ip=["example.com"]), "destination_ip[0]", "CIDR"),
        (FlowFilter(source_ip_xlated=["x"]), "source_ip_xlated[0]", "CIDR"),
        (FlowFilter(source_port=["65536"]), "source_port[0]", "65535"),
        (FlowFilter(destination_port=["http"]), "destination_port[0]", "port"),
        (FlowFilter(destination_port=["-1"]), "destination_port[0]", "port"),
        (FlowFilter(source_port=[""]), "source_port[0]", "port"),
        (FlowFilter(source_port=["٣"]), "source_port[0]", "port"),
        (FlowFilter(protocol=["tcp", "quic"]), "protocol[1]", "quic"),
        (FlowFilter(source_pod=[""]), "source_pod[0]", "pod"),
        (FlowFilter(destination_pod=["/"]), "destination_pod[0]", "pod"),
        (FlowFilter(destination_pod=["a/b/c"]), "destination_pod[0]", "pod"),
        (FlowFilter(source_service=[""]), "source_service[0]", "namespace"),
        (FlowFilter(source_label=["a in b"]), "source_label[0]", "selector"),
        (FlowFilter(destination_label=["app=x,"]), "destination_label[0]", "selector"),
        (FlowFilter(node_labels=["=x"]), "node_labels[0]", "selector"),
        (FlowFilter(node_name=["a/b/c"]), "node_name[0]", "name"),
        (FlowFilter(node_name=["w[0]"]), "node_name[0]", "w[0]"),
        (FlowFilter(node_name=[""]), "node_name[0]", "name"),
        (FlowFilter(source_cluster_name=["?"]), "source_cluster_name[0]", "name"),
        (FlowFilter(source_fqdn=["exa mple"]), "source_fqdn[0]", "name"),
        (FlowFilter(uuid=["not-a-uuid"]), "uuid[0]", "UUID"),
        (FlowFilter(interface=[NetworkInterface()]), "interface[0]", "index"),
        (FlowFilter(http_path=["("]), "http_path[0]", "regular expression"),
        (FlowFilter(http_url=["a", "*"]), "http_url[1]", "regular expression"),
        (FlowFilter(dns_query=["["]), "dns_query[0]", "regular expression"),
        (FlowFilter(http_status_code=["600"]), "http_status_code[0]", "status"),
        (FlowFilter(http_status_code=["40"]), "http_status_code[0]", "status"),
        (FlowFilter(http_method=[""]), "http_method[0]", "empty"),
        (FlowFilter(http_header=[flow_pb2.HTTPHeader(value="x")]), "http_header[0]", "key"),
        (FlowFilter(trace_id=[""]), "trace_id[0]", "empty"),
        (
            FlowFilter(experimental=FlowFilter.Experimental(cel_expression=["true"])),
            "experimental.cel_expression",
            "not supported",
        ),
        (FlowFilter.FromString(b"\xf8\x07\x01"), "", "fields [127]"),
    ],
    ids=lambda value: re.sub(r"\s+", " ", str(value))[:40],
)
def test_nonsense_is_refused_and_named(item: FlowFilter, path: str, word: str) -> None:
    """The error says where: list, index, field, value."""
    with pytest.raises(InvalidInputError) as caught:
        compile_filters([], [FlowFilter(), item], NODE)
    assert caught.value.path == ".".join(part for part in ("blacklist[1]", path) if part)
    assert word in caught.value.reason


def test_every_field_of_the_api_is_compiled() -> None:
    """A field that the API gains must not be ignored."""
    names = {field.name for field in FlowFilter.DESCRIPTOR.fields}
    assert set(COMPILERS) == names - {"experimental"}


def test_a_name_that_comes_later_is_not_remembered_as_unknown() -> None:
    """The store may show a row before this process has read its name."""
    names = FakeNames()
    late = names.endpoints.pop(2)
    matcher = compile_filters([FlowFilter(destination_pod=["server"])], [], NODE)
    block = rows(SYN)
    assert not matcher.mask(View(block, names)).any()
    names.endpoints[2] = late
    assert matcher.mask(View(block, names)).all()


def test_a_table_of_answers_grows_with_the_references() -> None:
    """References are small numbers without an upper bound."""
    names = FakeNames()
    names.endpoints[100_000] = SERVER
    matcher = compile_filters([FlowFilter(destination_pod=["server"])], [], NODE)
    assert matcher.mask(View(rows(SYN), names)).tolist() == [True]
    assert matcher.mask(View(rows(record(dst_ref=100_000), record(dst_ref=99_999)), names)).tolist() == [
        True,
        False,
    ]


def test_an_empty_block_has_an_empty_mask() -> None:
    """A follower may look before anything came."""
    empty = MemoryRows(ROWS.records[:0])
    for item in (
        FlowFilter(),
        FlowFilter(source_pod=["x"]),
        FlowFilter(interface=[NetworkInterface(index=1)]),
    ):
        assert len(compile_filters([item], [item], NODE).mask(View(empty, FakeNames()))) == 0


# --- the model: one built flow at a time, no numpy, no tables -------------------------------------


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
    ["server", "client-6", "kube-system/", "/core", "default/c", "other/", "kube-system/x"]
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
