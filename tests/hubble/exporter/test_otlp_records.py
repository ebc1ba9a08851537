"""Log records decoded again: what they say, by which names, against the flow that the same row becomes."""

from typing import Any

import numpy as np
import pytest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.semconv._incubating.attributes import (
    destination_attributes,
    k8s_attributes,
    network_attributes,
    source_attributes,
)

from hubble.exporter import attributes as otel
from hubble.exporter.records import RecordBuilder
from hubble.exporter.requests import MAX_REQUEST_BYTES, Origin, RequestEncoder, fitting
from hubble.flowbuilder import FlowBuilder
from hubble.flowendpoint import FlowEndpoint
from hubble.flowuuid import StoreId
from hubble.metrics.registry import FamilyTotals
from hubble.observingnode import ObservingNode
from lab.otlp import log_entries, metric_entries
from palomar_pb.flow.flow_pb2 import DropReason, Flow, Verdict
from tests.kit.flows import NOW_NS, FakeNames, MemoryRows, record, rows
from tests.kit.telemetry import MIXED

STORE = 0x123456789ABCDEF
ORIGIN = Origin("worker2", "default", "palomar test")
OBSERVED_NS = NOW_NS + 5


def decoded(block: MemoryRows, names: FakeNames | None = None) -> list[dict[str, Any]]:
    """The records of all rows, through a request and back."""
    builder = RecordBuilder(names or FakeNames(), STORE)
    records = builder.records(block, np.arange(len(block)), OBSERVED_NS)
    request = RequestEncoder(ORIGIN).logs(records)
    return list(log_entries(ExportLogsServiceRequest.FromString(request)))


def test_a_forwarded_packet_says_who_spoke_to_whom_and_what_became_of_it() -> None:
    [entry] = decoded(rows(record(policy_cookie=77, packets=3, bytes=200, rtt_us=90), first=41))
    assert entry == {
        "signal": "logs",
        "time_ns": NOW_NS,
        "observed_ns": OBSERVED_NS,
        "severity": "INFO",
        "severity_number": 9,
        "event": "palomar.flow",
        "body": "default/client-6d5f7b9c4d-abcde:40912 -> default/server-7c9d8f6b5-fghij:8080 "
        "to-stack FORWARDED (TCP Flags: SYN)",
        "scope": "palomar.flows",
        "resource": entry["resource"],
        "attributes": {
            "palomar.flow.verdict": "FORWARDED",
            "palomar.flow.type": "Trace",
            "palomar.flow.observation_point": "to-stack",
            "palomar.flow.trace_reason": "new",
            "palomar.flow.direction": "egress",
            "palomar.flow.is_reply": False,
            "palomar.flow.uuid": entry["attributes"]["palomar.flow.uuid"],
            "palomar.flow.packets": 3,
            "palomar.flow.bytes": 200,
            "palomar.flow.rtt_us": 90,
            "palomar.packet.size": 74,
            "palomar.tcp.flags": "SYN",
            "palomar.policy.names": ["default/allow-client"],
            "palomar.policy.rule": "ingress[0].toPorts[0]",
            "network.type": "ipv4",
            "network.transport": "tcp",
            "network.io.direction": "transmit",
            "network.interface.name": "lxc0123456789a",
            "source.address": "10.0.0.185",
            "source.port": 40912,
            "source.k8s.cluster.name": "default",
            "source.k8s.namespace.name": "default",
            "source.k8s.pod.name": "client-6d5f7b9c4d-abcde",
            "source.k8s.deployment.name": "client",
            "source.palomar.identity": 48291,
            "source.palomar.labels": ["k8s:app=client", "k8s:io.kubernetes.pod.namespace=default"],
            "destination.address": "10.0.1.110",
            "destination.port": 8080,
            "destination.k8s.cluster.name": "default",
            "destination.k8s.namespace.name": "default",
            "destination.k8s.pod.name": "server-7c9d8f6b5-fghij",
            "destination.k8s.deployment.name": "server",
            "destination.palomar.identity": 53731,
            "destination.palomar.labels": [
                "k8s:app=server",
                "k8s:io.kubernetes.pod.namespace=default",
                "k8s:tier=back",
            ],
        },
    }
    resource = entry["resource"]
    assert resource["service.name"] == "palomar"
    assert resource["k8s.node.name"] == resource["host.name"] == "worker2"
    assert resource["k8s.cluster.name"] == "default"


@pytest.mark.parametrize(
    ("reason", "direction", "word", "way"),
    [
        (0, 1, "ingress", "receive"),
        (0, 2, "egress", "transmit"),
        (2, 1, "egress", "receive"),
        (2, 2, "ingress", "transmit"),
    ],
)
def test_a_reply_has_the_direction_of_its_connection_and_its_own_way(
    reason: int, direction: int, word: str, way: str
) -> None:
    [entry] = decoded(rows(record(trace_reason=reason, direction=direction)))
    assert entry["attributes"]["palomar.flow.direction"] == word
    assert entry["attributes"]["network.io.direction"] == way


@pytest.mark.parametrize(
    ("change", "severity", "says"),
    [
        (
            {"type": 1, "subtype": 181, "verdict": 2, "drop_reason": 181, "policy_cookie": 78, "flags": 4},
            "WARN",
            {
                "palomar.flow.drop_reason": "POLICY_DENY",
                "palomar.flow.drop_reason_text": "Policy denied by denylist",
                "palomar.policy.names": ["default/deny-all"],
                "palomar.policy.rule": "ingressDeny[0]",
            },
        ),
        (
            {"type": 5, "subtype": 0, "verdict": 2, "drop_reason": 133, "policy_cookie": 78, "match_type": 0},
            "WARN",
            {"palomar.policy.default_deny_by": ["default/deny-all"], "palomar.policy.match": "none"},
        ),
        ({"type": 5, "subtype": 0, "verdict": 4, "match_type": 2}, "WARN", {"palomar.policy.match": "l3-l4"}),
        ({"verdict": 5}, "INFO", {"palomar.flow.verdict": "REDIRECTED"}),
        ({"verdict": 3}, "ERROR", {"palomar.flow.verdict": "ERROR"}),
        ({"verdict": 200, "type": 77}, "INFO", {"palomar.flow.verdict": "VERDICT_UNKNOWN"}),
        (
            {"protocol": 1, "l4_flags": 0, "icmp_code": 0, "sport": 0, "dport": 0},
            "INFO",
            {"network.transport": "icmp", "palomar.icmp.type": 0, "palomar.icmp.code": 0},
        ),
        (
            {"saddr": "fd00::1", "daddr": "fd00::2"},
            "INFO",
            {"network.type": "ipv6", "source.address": "fd00::1", "destination.address": "fd00::2"},
        ),
        ({"protocol": 99}, "INFO", {"palomar.flow.verdict": "FORWARDED"}),
        (
            {"src_ref": 3},
            "INFO",
            {"source.k8s.deployment.name": "coredns", "source.k8s.daemonset.name": "dns"},
        ),
    ],
)
def test_severity_and_reason_follow_the_verdict(
    change: dict[str, Any], severity: str, says: dict[str, Any]
) -> None:
    [entry] = decoded(rows(record(**change)))
    assert entry["severity"] == severity
    assert says.items() <= entry["attributes"].items()


def test_mac_addresses_of_a_drop_are_no_counters() -> None:
    """With flag 4 they lie over the packet and byte counters."""
    [entry] = decoded(rows(record(type=1, flags=4, packets=1 << 60, bytes=1 << 30)))
    assert not {otel.FLOW_PACKETS, otel.FLOW_BYTES} & entry["attributes"].keys()


def test_records_agree_with_the_flows_of_the_same_rows() -> None:
    """uuid, verdict, addresses, pods and drop reasons are those the flow server says."""
    block = rows(*MIXED, first=1000)
    entries = decoded(block)
    node = ObservingNode("default/worker2", store_id=StoreId(STORE))
    for entry, data in zip(
        entries, FlowBuilder(node, FakeNames()).flows(block, np.arange(len(block))), strict=True
    ):
        flow = Flow.FromString(data)
        said = entry["attributes"]
        assert said["palomar.flow.uuid"] == flow.uuid
        assert said["palomar.flow.verdict"] == Verdict.Name(flow.verdict)
        assert (said["source.address"], said["destination.address"]) == (flow.IP.source, flow.IP.destination)
        assert said.get("source.k8s.pod.name", "") == flow.source.pod_name
        assert said["destination.palomar.identity"] == flow.destination.identity
        assert said.get("destination.palomar.labels", []) == list(flow.destination.labels)
        assert said.get("palomar.flow.drop_reason", "DROP_REASON_UNKNOWN") == DropReason.Name(
            flow.drop_reason_desc
        )
        assert flow.Summary in entry["body"]
        assert entry["time_ns"] == flow.time.ToNanoseconds()


def test_names_that_are_no_text_and_html_survive() -> None:
    """Half a surrogate pair cannot be encoded: it becomes a question mark; markup stays what it is."""
    evil = FlowEndpoint(namespace="<script>", pod="\ud800" + "x" * 1000, labels=("k8s:a=\x00\n\"'",))
    [entry] = decoded(rows(record(src_ref=9, src_identity=0)), FakeNames(endpoints={9: evil}))
    assert entry["attributes"]["source.k8s.pod.name"] == "?" + "x" * 1000
    assert entry["attributes"]["source.k8s.namespace.name"] == "<script>"
    assert entry["attributes"]["source.palomar.labels"] == ["k8s:a=\x00\n\"'"]


def test_a_name_that_was_missing_is_asked_again() -> None:
    names = FakeNames(endpoints={})
    builder = RecordBuilder(names, STORE)
    block = rows(record())

    def pod() -> Any:
        request = RequestEncoder(ORIGIN).logs(builder.records(block, np.arange(1), OBSERVED_NS))
        [entry] = log_entries(ExportLogsServiceRequest.FromString(request))
        return entry["attributes"].get("source.k8s.pod.name")

    assert pod() is None
    names.endpoints[1] = FlowEndpoint(pod="late")
    assert pod() == "late"


def test_attribute_names_are_those_of_the_conventions() -> None:
    """Every name without `palomar.` is the convention's own."""
    conventions = {
        value
        for module in (network_attributes, source_attributes, destination_attributes, k8s_attributes)
        for name, value in vars(module).items()
        if name.isupper() and isinstance(value, str)
    }
    ours = {value for name, value in vars(otel).items() if name.isupper() and isinstance(value, str)}
    ours |= set(otel.WORKLOAD_NAMES.values())
    assert len(ours) > 30
    assert {name for name in ours if not name.startswith("palomar.")} <= conventions


def test_metric_families_become_monotonic_sums() -> None:
    family = FamilyTotals("hubble_drop_total", "Drops.", ("reason", "pod"), [(("X", "a<b>"), 7)], 0, 0, 0)
    empty = FamilyTotals("hubble_icmp_total", "ICMP.", ("type",), [], 0, 0, 0)
    [(request, points)] = RequestEncoder(ORIGIN).metrics([family, empty], 100, 200)
    assert points == 1
    [entry] = metric_entries(ExportMetricsServiceRequest.FromString(request))
    assert entry["attributes"] == {"reason": "X", "pod": "a<b>"}
    assert (entry["name"], entry["value"], entry["monotonic"]) == ("hubble_drop_total", 7, True)
    assert (entry["start_ns"], entry["time_ns"]) == (100, 200)
    assert entry["resource"]["k8s.node.name"] == "worker2"


def test_many_series_make_several_requests_that_collectors_take() -> None:
    """Series with names of half a kilobyte: no request above the limit, no point twice or never."""
    series = [(("x" * 500, str(number)), number) for number in range(10_000)]
    families = [
        FamilyTotals(name, "Flows.", ("pod", "n"), series, 0, 0, 0) for name in ("a_total", "b_total")
    ]
    requests = list(RequestEncoder(ORIGIN).metrics(families, 100, 200))
    assert len(requests) > 2
    assert max(len(request) for request, _ in requests) <= MAX_REQUEST_BYTES
    entries = [
        entry
        for request, _ in requests
        for entry in metric_entries(ExportMetricsServiceRequest.FromString(request))
    ]
    assert sum(points for _, points in requests) == len(entries) == 20_000
    assert len({(entry["name"], entry["attributes"]["n"]) for entry in entries}) == 20_000
    assert list(RequestEncoder(ORIGIN).metrics([], 100, 200)) == []


@pytest.mark.parametrize(
    ("sizes", "limit", "count"), [([], 10, 0), ([100], 10, 1), ([4, 4, 4], 20, 2), ([1] * 5, 1000, 5)]
)
def test_requests_hold_what_fits_and_at_least_one(sizes: list[int], limit: int, count: int) -> None:
    assert fitting([b"x" * size for size in sizes], limit) == count
