"""Flows: what a stored record becomes, field by field, and that the joined bytes are what protobuf makes."""

import gc
import json
import re
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from google.protobuf import json_format
from google.protobuf.field_mask_pb2 import FieldMask
from hypothesis import given, settings
from hypothesis import strategies as st

from hubble import flowuuid
from hubble.fieldmask import compile_mask, trim
from hubble.flowbuilder import CACHE_LIMIT, FlowBuilder
from hubble.flowuuid import StoreId
from hubble.observingnode import ObservingNode
from hubble.wirebytes import number, number_fields, varint
from palomar.errors import InvalidInputError
from palomar.sourcefile import SOURCE_FILES
from palomar.verdict import ObservationPoint
from palomar_pb.flow import flow_pb2
from palomar_pb.observer import observer_pb2
from palomar_pb.palomar.v1.flow_ext_pb2 import FlowExtension
from tests.kit.flows import (
    ALLOW_CLIENT,
    CLIENT,
    DENY_ALL,
    NOW_NS,
    SERVER,
    FakeNames,
    MemoryRows,
    record,
    rows,
)

NODE = ObservingNode("default/worker2", store_id=StoreId(0x123456789ABCDEF))


def build(**values: Any) -> flow_pb2.Flow:
    block = rows(record(**values), first=5)
    return flow_pb2.Flow.FromString(FlowBuilder(NODE, FakeNames()).flows(block, np.array([0]))[0])


def extension(flow: flow_pb2.Flow) -> FlowExtension:
    found = FlowExtension()
    assert flow.extensions.Unpack(found)
    return found


def test_a_builder_goes_with_its_request() -> None:
    """Megabytes of parts may hang on it: they do not wait until Python looks for garbage in cycles."""
    gc.disable()
    try:
        builder = FlowBuilder(NODE, FakeNames())
        builder.flows(rows(record(), first=5), np.array([0]))
        seen = weakref.ref(builder)
        del builder
        assert seen() is None
    finally:
        gc.enable()


def test_a_drop_is_what_a_hubble_client_prints() -> None:
    """The public sample of a drop, but for what only our datapath knows."""
    flow = build(
        type=1, subtype=133, drop_reason=133, verdict=2, direction=1, flags=4,
        packets=int.from_bytes(bytes.fromhex("b210ef6bfa0ada0c"), "little"),
        bytes=int.from_bytes(bytes.fromhex("204a86f7"), "little"),
        ifindex=0,
    )  # fmt: skip
    assert extension(flow) == FlowExtension(length=74)
    flow.ClearField("extensions")
    sample = json.loads(
        '{"time":"2026-11-21T08:00:01.123456789Z","uuid":"12345678-9abc-8def-8000-000000000005","verdict":"DROPPED",'
        '"drop_reason":133,"ethernet":{"source":"b2:10:ef:6b:fa:0a","destination":"da:0c:20:4a:86:f7"},'
        '"IP":{"source":"10.0.0.185","destination":"10.0.1.110","ipVersion":"IPv4"},'
        '"l4":{"TCP":{"source_port":40912,"destination_port":8080,"flags":{"SYN":true}}},'
        '"source":{"ID":1234,"identity":48291,"cluster_name":"default","namespace":"default",'
        '"labels":["k8s:app=client","k8s:io.kubernetes.pod.namespace=default"],'
        '"pod_name":"client-6d5f7b9c4d-abcde","workloads":[{"name":"client","kind":"Deployment"}]},'
        '"destination":{"ID":5678,"identity":53731,"cluster_name":"default","namespace":"default",'
        '"labels":["k8s:app=server","k8s:io.kubernetes.pod.namespace=default","k8s:tier=back"],'
        '"pod_name":"server-7c9d8f6b5-fghij","workloads":[{"name":"server","kind":"Deployment"}]},'
        '"Type":"L3_L4","node_name":"default/worker2","event_type":{"type":1,"sub_type":133},'
        '"traffic_direction":"INGRESS","drop_reason_desc":"POLICY_DENIED","Summary":"TCP Flags: SYN"}'
    )
    sample["time"] = json_format.MessageToDict(flow)["time"]
    assert json_format.MessageToDict(flow, preserving_proto_field_name=True) == sample
    assert flow.time.ToNanoseconds() == NOW_NS


@pytest.mark.parametrize("point", list(ObservationPoint))
def test_observation_points(point: ObservationPoint) -> None:
    """The datapath's number in event_type, the flow API's in trace_observation_point."""
    flow = build(subtype=int(point))
    assert flow.event_type.sub_type == point
    assert flow_pb2.TraceObservationPoint.Name(flow.trace_observation_point) == point.name


@pytest.mark.parametrize(
    ("values", "reply", "reason"),
    [
        ({"trace_reason": 0}, False, "NEW"),
        ({"trace_reason": 1}, False, "ESTABLISHED"),
        ({"trace_reason": 2}, True, "REPLY"),
        ({"trace_reason": 0x82}, True, "REPLY"),
        ({"trace_reason": 3}, False, "RELATED"),
        ({"trace_reason": 5}, None, "TRACE_REASON_UNKNOWN"),
        ({"trace_reason": 6}, None, "SRV6_ENCAP"),
        ({"trace_reason": 99}, None, "TRACE_REASON_UNKNOWN"),
        ({"type": 5, "verdict": 1}, False, "TRACE_REASON_UNKNOWN"),
        ({"type": 5, "verdict": 5}, False, "TRACE_REASON_UNKNOWN"),
        ({"type": 5, "verdict": 4}, False, "TRACE_REASON_UNKNOWN"),
        ({"type": 5, "verdict": 2, "trace_reason": 2}, None, "TRACE_REASON_UNKNOWN"),
        ({"type": 1, "verdict": 2, "trace_reason": 2}, None, "TRACE_REASON_UNKNOWN"),
    ],
)
def test_reply_is_said_only_where_it_is_known(
    values: dict[str, int], reply: bool | None, reason: str
) -> None:
    """Drops, denials and unknown trace reasons leave it unset."""
    flow = build(**values)
    assert (flow.is_reply.value if flow.HasField("is_reply") else None) is reply
    assert flow.reply is bool(reply)
    assert flow_pb2.TraceReason.Name(flow.trace_reason) == reason


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"l4_flags": 2}, "TCP Flags: SYN"),
        ({"l4_flags": 18}, "TCP Flags: SYN, ACK"),
        ({"l4_flags": 24}, "TCP Flags: ACK, PSH"),
        ({"l4_flags": 17}, "TCP Flags: ACK, FIN"),
        ({"l4_flags": 20}, "TCP Flags: ACK, RST"),
        ({"l4_flags": 0}, "TCP"),
        ({"protocol": 17, "l4_flags": 0}, "UDP"),
        ({"protocol": 132, "l4_flags": 0}, "SCTP"),
        ({"protocol": 1, "l4_flags": 8}, "ICMPv4 EchoRequest"),
        ({"protocol": 1, "l4_flags": 0}, "ICMPv4 EchoReply"),
        ({"protocol": 1, "l4_flags": 3, "icmp_code": 3}, "ICMPv4 DestinationUnreachable(Port)"),
        ({"protocol": 1, "l4_flags": 8, "icmp_code": 7}, "ICMPv4 EchoRequest(Code: 7)"),
        ({"protocol": 1, "l4_flags": 200, "icmp_code": 1}, "ICMPv4 200(1)"),
        (
            {"protocol": 58, "l4_flags": 135, "saddr": "fd00::1", "daddr": "fd00::2"},
            "ICMPv6 NeighborSolicitation",
        ),
        ({"protocol": 89}, "IPv4"),
    ],
)
def test_summary(values: dict[str, Any], text: str) -> None:
    """The line that people read in parentheses."""
    assert build(**values).Summary == text


@pytest.mark.parametrize(
    ("protocol", "expected"),
    [
        (
            6,
            flow_pb2.Layer4(
                TCP=flow_pb2.TCP(source_port=40912, destination_port=8080, flags=flow_pb2.TCPFlags(SYN=True))
            ),
        ),
        (17, flow_pb2.Layer4(UDP=flow_pb2.UDP(source_port=40912, destination_port=8080))),
        (132, flow_pb2.Layer4(SCTP=flow_pb2.SCTP(source_port=40912, destination_port=8080))),
        (1, flow_pb2.Layer4(ICMPv4=flow_pb2.ICMPv4(type=2, code=1))),
        (58, flow_pb2.Layer4(ICMPv6=flow_pb2.ICMPv6(type=2, code=1))),
        (2, flow_pb2.Layer4(IGMP=flow_pb2.IGMP())),
        (112, flow_pb2.Layer4(VRRP=flow_pb2.VRRP())),
        (89, flow_pb2.Layer4()),
    ],
)
def test_transport(protocol: int, expected: flow_pb2.Layer4) -> None:
    """One message per protocol of the flow API; none for others."""
    flow = build(protocol=protocol, icmp_code=1)
    assert flow.l4 == expected
    assert flow.HasField("l4") is (protocol != 89)


def test_ipv6_addresses_and_packets_without_an_ip_header() -> None:
    """16 octets when the record says so; no IP part when both addresses of a drop are empty."""
    six = build(saddr="fd00::1", daddr="2001:db8::7")
    assert flow_pb2.IP(source="fd00::1", destination="2001:db8::7", ipVersion=flow_pb2.IPv6) == six.IP
    none = build(
        type=1, subtype=166, drop_reason=166, verdict=2, saddr=b"", daddr=b"", protocol=0, sport=0, dport=0
    )
    assert not none.HasField("IP")
    assert not none.HasField("l4")
    assert none.Summary == "Ethernet"


@pytest.mark.parametrize(
    ("values", "field"),
    [
        ({"direction": 2, "verdict": 1}, "egress_allowed_by"),
        ({"direction": 1, "verdict": 1}, "ingress_allowed_by"),
        ({"direction": 1, "verdict": 5}, "ingress_allowed_by"),
        ({"direction": 1, "verdict": 4}, "ingress_allowed_by"),
        ({"direction": 2, "verdict": 2, "drop_reason": 181}, "egress_denied_by"),
        ({"direction": 1, "verdict": 2, "drop_reason": 181}, "ingress_denied_by"),
        ({"direction": 1, "verdict": 2, "drop_reason": 181, "type": 1, "subtype": 181}, "ingress_denied_by"),
        ({"direction": 1, "verdict": 1, "type": 4, "trace_reason": 1}, "ingress_allowed_by"),
        ({"direction": 2, "verdict": 1, "type": 4, "trace_reason": 3}, "egress_allowed_by"),
        # A reply goes by its connection's entry: what judged the request, the other way round.
        ({"direction": 1, "verdict": 1, "type": 4, "trace_reason": 2}, "egress_allowed_by"),
        ({"direction": 2, "verdict": 1, "type": 4, "trace_reason": 0x82}, "ingress_allowed_by"),
    ],
)
def test_the_deciding_policies_are_named(values: dict[str, int], field: str) -> None:
    """In the field for the direction and the outcome, and in no other; the rule in the extension."""
    flow = build(**{"type": 5, "subtype": 0, "match_type": 2, "policy_cookie": 79, **values})
    named = {
        name: [policy.name for policy in getattr(flow, name)]
        for name in ("egress_allowed_by", "ingress_allowed_by", "egress_denied_by", "ingress_denied_by")
        if getattr(flow, name)
    }
    assert named == {field: [ALLOW_CLIENT.name, DENY_ALL.name]}
    assert getattr(flow, field)[0] == flow_pb2.Policy(
        name=ALLOW_CLIENT.name,
        namespace="default",
        kind="CiliumNetworkPolicy",
        labels=ALLOW_CLIENT.labels,
        revision=3,
    )
    assert extension(flow).policy_rule == "ingress[0].toPorts[0], ingressDeny[0]"
    assert extension(flow).policy_cookie == 79


@pytest.mark.parametrize("kind", [1, 5])
def test_a_default_deny_is_told_apart_from_a_rule_that_denies(kind: int) -> None:
    """No entry denied: who makes the endpoint deny by default stands in the extension."""
    flow = build(type=kind, subtype=133, verdict=2, drop_reason=133, direction=1, policy_cookie=78)
    assert not flow.ingress_denied_by
    assert [policy.name for policy in extension(flow).default_deny_by] == ["deny-all"]
    assert not extension(flow).policy_rule


@pytest.mark.parametrize(
    ("values", "direction"),
    [
        ({"type": 4, "trace_reason": 0}, [1, 2]),
        ({"type": 4, "trace_reason": 1}, [1, 2]),
        ({"type": 4, "trace_reason": 2}, [2, 1]),
        ({"type": 4, "trace_reason": 0x82}, [2, 1]),
        ({"type": 4, "trace_reason": 5}, [1, 2]),
        ({"type": 5, "trace_reason": 2}, [1, 2]),
        ({"type": 1, "trace_reason": 2, "verdict": 2}, [1, 2]),
    ],
)
def test_the_direction_is_the_connections(values: dict[str, int], direction: list[int]) -> None:
    """Ingress and egress of the packet become those of its connection: the opposite for a traced reply."""
    assert [build(**values, direction=packet).traffic_direction for packet in (1, 2)] == direction
    assert build(**values, direction=0).traffic_direction == flow_pb2.TRAFFIC_DIRECTION_UNKNOWN


def test_policy_match_type_belongs_to_verdicts() -> None:
    """Traces and drops have none."""
    assert build(type=5, subtype=0, match_type=2).policy_match_type == 2
    assert build(type=4, match_type=2).policy_match_type == 0


def test_an_unknown_cookie_or_reference_is_asked_again() -> None:
    """The names log may be a moment behind the store."""
    names = FakeNames()
    late, rule = names.endpoints.pop(2), names.cookies.pop(77)
    del names.interfaces[7]
    builder = FlowBuilder(NODE, names)
    block = rows(record(type=5, subtype=0, direction=1, policy_cookie=77))

    def built() -> flow_pb2.Flow:
        return flow_pb2.Flow.FromString(builder.flows(block, np.array([0]))[0])

    first = built()
    assert (first.destination.pod_name, first.destination.identity) == ("", SERVER.identity)
    assert (len(first.ingress_allowed_by), first.interface.name) == (0, "")
    names.endpoints[2], names.cookies[77], names.interfaces[7] = late, rule, "lxc1"
    second = built()
    assert second.destination.pod_name == SERVER.pod
    assert (second.ingress_allowed_by[0].name, second.interface.name) == (ALLOW_CLIENT.name, "lxc1")


def test_names_said_again_are_encoded_anew() -> None:
    """A policy changes its revision under the same cookie."""
    names = FakeNames()
    builder = FlowBuilder(NODE, names)
    block = rows(record(type=5, subtype=0, direction=1, policy_cookie=77))
    builder.flows(block, np.array([0]))
    names.cookies[77] = (DENY_ALL,)
    builder.forget_names()
    flow = flow_pb2.Flow.FromString(builder.flows(block, np.array([0]))[0])
    assert flow.ingress_allowed_by[0].name == DENY_ALL.name


def test_a_side_without_a_name_is_known_by_its_identity() -> None:
    """World, host and CIDR identities have labels though no pod."""
    assert build(dst_ref=0, dst_identity=2).destination == flow_pb2.Endpoint(
        identity=2, labels=["reserved:world"]
    )
    assert build(dst_ref=0, dst_identity=0x01000001).destination.labels[0] == "cidr:198.51.100.0/24"
    assert build(dst_ref=0, dst_identity=4711).destination == flow_pb2.Endpoint(identity=4711)
    assert build(src_identity=4711).source.pod_name == CLIENT.pod


def test_the_extension_carries_counters() -> None:
    """What the flow API has no field for; values from small to the largest."""
    values: dict[str, Any] = {
        "packets": 1, "bytes": (1 << 64) - 1, "rtt_us": 300, "cpu": 3, "seq": 1 << 40,
        "policy_cookie": 4_000_000_000, "tcp_flags_seen": 27, "length": 1514,
    }  # fmt: skip
    found = extension(build(**values, tunnel_ipv4=0xAC1E0002))
    sequence = values.pop("seq")
    assert found == FlowExtension(**values, sequence=sequence, tunnel_peer="172.30.0.2")


def test_a_drop_names_its_line() -> None:
    """File and line of the datapath, for drops alone."""
    assert build(type=1, file=104, line=212).file == flow_pb2.FileInfo(name="policy.h", line=212)
    assert build(type=1, file=77, line=1).file.name == "unknown(77)"
    assert not build(type=4, file=104, line=212).HasField("file")


def test_source_file_names_are_the_datapaths() -> None:
    """The table that C has."""
    header = Path(__file__).parents[2] / "bpf/lib/source_info.h"
    found = re.findall(r'X\((\d+), "([^"]+)"\)', header.read_text())
    assert {int(number): name for number, name in found} == SOURCE_FILES


def test_an_unknown_drop_reason_keeps_its_number() -> None:
    """159 has no name in the flow API."""
    flow = build(type=1, subtype=159, drop_reason=159, verdict=2)
    assert (flow.drop_reason, flow.drop_reason_desc) == (159, flow_pb2.DROP_REASON_UNKNOWN)


def test_a_response_repeats_node_and_time() -> None:
    """Clients read them outside the flow."""
    data = FlowBuilder(NODE, FakeNames()).responses(rows(record()), np.array([0]))[0]
    response = observer_pb2.GetFlowsResponse.FromString(data)
    assert (response.node_name, response.time) == (NODE.name, response.flow.time)


def test_chosen_rows_come_in_the_order_asked() -> None:
    """And carry their own position in the uuid."""
    block = rows(*(record(sport=port) for port in (1, 2, 3)), first=100)
    flows = [
        flow_pb2.Flow.FromString(d) for d in FlowBuilder(NODE, FakeNames()).flows(block, np.array([2, 0]))
    ]
    assert [flow.l4.TCP.source_port for flow in flows] == [3, 1]
    assert [flowuuid.parse(flow.uuid) for flow in flows] == [(NODE.store_id, 102), (NODE.store_id, 100)]


def test_no_rows_are_no_flows() -> None:
    """A reader may have been overtaken by all of them."""
    nothing = np.array([], dtype=np.intp)
    assert FlowBuilder(NODE, FakeNames()).responses(rows(record()), nothing) == []


# --- field masks ----------------------------------------------------------------------------------

PATHS = [
    "time", "time.nanos", "uuid", "verdict", "IP", "IP.source", "l4", "l4.TCP.destination_port", "source",
    "source.pod_name", "destination.labels", "destination.workloads", "Type", "node_name", "is_reply",
    "is_reply.value", "event_type.sub_type", "Summary", "interface.name", "file", "ethernet.source",
    "ingress_allowed_by", "extensions", "extensions.type_url", "drop_reason_desc", "l7", "tunnel.IP.source",
]  # fmt: skip
BLOCK = rows(
    record(),
    record(type=5, subtype=0, direction=1, policy_cookie=77),
    record(type=1, subtype=133, drop_reason=133, verdict=2, flags=4, packets=77, file=104, line=9),
)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.sampled_from(PATHS), max_size=5))
def test_a_masked_flow_is_the_whole_flow_trimmed(paths: list[str]) -> None:
    """Whatever the mask, it is the same as building everything and clearing the rest."""
    mask = compile_mask(FieldMask(paths=paths))
    everything = np.arange(len(BLOCK))
    whole = [flow_pb2.Flow.FromString(d) for d in FlowBuilder(NODE, FakeNames()).flows(BLOCK, everything)]
    masked = [
        flow_pb2.Flow.FromString(d) for d in FlowBuilder(NODE, FakeNames(), mask).flows(BLOCK, everything)
    ]
    for flow in whole:
        if mask is not None:
            trim(flow, mask.tree)
    assert masked == whole


@pytest.mark.parametrize("path", ["", "nothing", "source.nothing", "verdict.x", "source.labels.x", "source."])
def test_a_mask_of_nothing_known_is_refused(path: str) -> None:
    """The error says which path."""
    with pytest.raises(InvalidInputError) as caught:
        compile_mask(FieldMask(paths=["time", path]))
    assert caught.value.path == "field_mask.paths[1]"


# --- bytes ----------------------------------------------------------------------------------------


@given(st.lists(st.tuples(st.integers(0, (1 << 64) - 1), st.integers(0, 300), st.just(0))))
def test_number_fields_are_what_varints_are(table: list[tuple[int, int, int]]) -> None:
    """Encoded by column or one by one, the bytes are the same."""
    tags = (b"\x08", b"\x80\x01", b"\x18")
    columns = [np.array([row[i] for row in table], dtype=np.uint64) for i in range(3)]
    expected = [b"".join(number(tag, value) for tag, value in zip(tags, row, strict=True)) for row in table]
    assert number_fields(list(zip(tags, columns, strict=True))) == expected


@given(st.integers(0, (1 << 64) - 1))
def test_varints_are_protobufs(value: int) -> None:
    """Read back by protobuf itself."""
    assert FlowExtension.FromString(b"\x08" + varint(value)).packets == value


def test_caches_are_bounded() -> None:
    """Addresses and ports never end; memory does."""
    builder = FlowBuilder(NODE, FakeNames())
    block = rows(record())
    block.records["sport"][0] = 0
    big = np.repeat(block.records, 70_000)
    big["sport"] = np.arange(70_000) & 0xFFFF
    big["dport"] = np.arange(70_000) >> 16
    builder.flows(MemoryRows(big), np.arange(70_000))
    assert 0 < len(builder._l4s) <= CACHE_LIMIT
