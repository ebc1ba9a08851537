"""FlowFilters: what each field chooses, what is refused and how it is named."""

import re
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from hubble.filterfields.compilers import COMPILERS
from hubble.filterfields.predicates import View
from hubble.filters import compile_filters
from palomar.errors import InvalidInputError
from palomar_pb.flow import flow_pb2
from palomar_pb.flow.flow_pb2 import EventTypeFilter, FlowFilter, NetworkInterface, TCPFlags, Workload
from tests.hubble.filternode import FIRST, NODE, uuid_at
from tests.kit.flows import CLIENT, SERVER, SYN, FakeNames, MemoryRows, record, rows

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
        (FlowFilter(destination_pod=["/"]), [0, ANSWER, DROP, ALLOWED, DENIED, UDP]),
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
        (
            FlowFilter(traffic_direction=[flow_pb2.INGRESS]),
            [DROP, ALLOWED],
        ),  # not the answer of a connection that left
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


@pytest.mark.parametrize(
    ("whitelist", "path", "word"),
    [
        ([FlowFilter()] * 129, "whitelist", "129 filters, at most 128"),
        ([FlowFilter(source_pod=["a"] * 501, source_label=["b"] * 500)], "whitelist", "1001 values"),
        ([FlowFilter(source_pod=["a"] * 501)] * 2, "whitelist", "1002 values"),
        ([FlowFilter(http_path=["(a+)+" * 500])], "whitelist[0].http_path[0]", "2500 characters"),
        ([FlowFilter(), FlowFilter(node_name=["n", "*" * 2049])], "whitelist[1].node_name[1]", "2049"),
    ],
    ids=["filters", "values of fields", "values of filters", "regex", "name"],
)
def test_what_would_keep_everybody_waiting_is_refused(
    whitelist: list[FlowFilter], path: str, word: str
) -> None:
    """One client's question may not stop the flow server for the others."""
    with pytest.raises(InvalidInputError) as caught:
        compile_filters(whitelist, [], NODE)
    assert caught.value.path == path
    assert word in caught.value.reason
    at_most = [FlowFilter(source_pod=["x" * 2048])] * 128
    assert not chosen(*at_most)


def test_a_name_pattern_does_not_backtrack() -> None:
    """With `.*` for each star this would not end."""
    name = ["/" + "*a" * 1000 + "b"]
    with_long_name = replace(NODE, name="default/" + "a" * 2000)
    matcher = compile_filters([FlowFilter(node_name=name)], [], with_long_name)
    assert not matcher.mask(View(ROWS, FakeNames())).any()
