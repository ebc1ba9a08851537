"""Counting by columns against a slow, obvious model: each row's flow message, counted by Hubble's words."""

from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hubble.flowbuilder import FlowBuilder
from hubble.flowendpoint import FlowEndpoint
from hubble.metrics import contexts
from hubble.metrics.registry import FlowMetricsRegistry
from hubble.metrics.series import SeriesCounter
from hubble.metrics.spec import MetricSpec, parse
from hubble.observingnode import ObservingNode
from hubble.storefile import HOT_COLUMNS
from palomar_pb.flow import flow_pb2
from palomar_pb.flow.flow_pb2 import Flow
from tests.kit.flows import CLIENT, DNS, SERVER, FakeNames, MemoryRows, record, rows

WORLD = FlowEndpoint(identity=2, labels=("reserved:world",))
NODE = FlowEndpoint(identity=7, labels=("reserved:remote-node", "reserved:kube-apiserver"), pod="lonely")
APP = FlowEndpoint(identity=300, namespace="demo", labels=("k8s:app=x", "k8s:app.kubernetes.io/name=y"))
ENDPOINTS = {1: CLIENT, 2: SERVER, 3: DNS, 4: WORLD, 5: NODE, 6: APP}


def names() -> FakeNames:
    return FakeNames(endpoints=dict(ENDPOINTS))


class BlockOfRows:
    """Rows as a block of the store."""

    def __init__(self, block: MemoryRows) -> None:
        self.records = block.records
        self.columns = {name: np.ascontiguousarray(block.records[name]) for name in HOT_COLUMNS}

    def column(self, name: str) -> np.ndarray:
        return self.records[name]


# --- the model: one flow message at a time -------------------------------------------------------

PASSED = (flow_pb2.FORWARDED, flow_pb2.REDIRECTED)
TYPES = {1: "Drop", 3: "Capture", 4: "Trace", 5: "PolicyVerdict", 129: "L7"}


def protocol_of(flow: Flow) -> str:
    kind = flow.l4.WhichOneof("protocol")
    return kind if kind in ("TCP", "UDP", "ICMPv4", "ICMPv6", "SCTP") else "Unknown L4"


def identifier(name: str, endpoint: flow_pb2.Endpoint, ip: str) -> str:
    def scoped(text: str) -> str:
        return f"{endpoint.namespace}/{text}" if endpoint.namespace and text else text

    workload = endpoint.workloads[0].name if endpoint.workloads else ""
    reserved = [label for label in endpoint.labels if label.startswith("reserved:")]
    apps = [
        label[len(prefix) :]
        for prefix in ("k8s:app.kubernetes.io/name=", "k8s:k8s-app=", "k8s:app=")
        for label in endpoint.labels
        if label.startswith(prefix)
    ]
    return {
        "identity": ",".join(endpoint.labels),
        "namespace": endpoint.namespace,
        "pod": scoped(endpoint.pod_name),
        "pod-name": endpoint.pod_name,
        "dns": "",
        "ip": ip,
        "reserved-identity": "reserved:kube-apiserver"
        if "reserved:kube-apiserver" in reserved
        else next(iter(reserved), ""),
        "workload": scoped(workload),
        "workload-name": workload,
        "workload_kind": endpoint.workloads[0].kind if endpoint.workloads else "",
        "app": next(iter(apps), ""),
    }[name]


OF_LABEL = {"pod": "pod-name", "workload": "workload-name"}


def context_labels(spec: MetricSpec, flow: Flow) -> tuple[str, ...]:
    values = []
    sides = {"source": (flow.source, flow.IP.source), "destination": (flow.destination, flow.IP.destination)}
    for label in spec.contexts.labels:
        if label == "traffic_direction":
            word = flow_pb2.TrafficDirection.Name(flow.traffic_direction).lower()
            values.append("unknown" if word.endswith("unknown") else word)
        else:
            side, _, what = label.partition("_")
            values.append(identifier(OF_LABEL.get(what, what), *sides[side]))
    for side, context in (("source", spec.contexts.source), ("destination", spec.contexts.destination)):
        if not context.is_used:
            continue
        wanted = context.default
        if flow.traffic_direction == flow_pb2.EGRESS and context.egress:
            wanted = context.egress
        if flow.traffic_direction == flow_pb2.INGRESS and context.ingress:
            wanted = context.ingress
        found = [identifier(name, *sides[side]) for name in wanted]
        values.append(next(filter(None, found), ""))
    return tuple(values)


def own_labels(  # noqa: C901  # one case per metric, each as short as its rule
    spec: MetricSpec, flow: Flow
) -> Iterator[tuple[tuple[str, ...], tuple[str, ...]]]:
    """Labels before and after the contexts' for everything the flow counts as."""
    protocol, verdict = protocol_of(flow), flow_pb2.Verdict.Name(flow.verdict)
    event, tcp = flow.event_type, flow.l4.TCP
    port = str(tcp.destination_port or flow.l4.UDP.destination_port or flow.l4.SCTP.destination_port)
    is_l4 = protocol != "Unknown L4"
    match spec.name:
        case "flow":
            kind = TYPES.get(event.type, "Unknown")
            subtype = str(event.type) if kind == "Unknown" else ""
            if kind == "Trace":
                point = flow_pb2.TraceObservationPoint.Name(flow.trace_observation_point)
                known = event.sub_type <= 13
                subtype = point.lower().replace("_", "-") if known else "unknown"
            yield (protocol if kind != "Unknown" else "Unknown flow", kind, subtype, verdict), ()
        case "drop":
            if flow.verdict == flow_pb2.DROPPED:
                yield (), (flow_pb2.DropReason.Name(flow.drop_reason_desc), protocol)
        case "tcp":
            if flow.verdict in PASSED and protocol == "TCP":
                family = flow_pb2.IPVersion.Name(flow.IP.ipVersion)
                if tcp.flags.FIN:
                    yield ("FIN", family), ()
                if tcp.flags.SYN:
                    yield ("SYN-ACK" if tcp.flags.ACK else "SYN", family), ()
                if tcp.flags.RST:
                    yield ("RST", family), ()
        case "icmp":
            if protocol in ("ICMPv4", "ICMPv6"):
                yield ("IPv4", flow.Summary.split(" ", 1)[1]), ()
        case "port-distribution":
            is_request = flow.HasField("is_reply") and not flow.is_reply.value
            if flow.verdict in PASSED and is_request and is_l4:
                yield (protocol, port), ()
        case "flows-to-world":
            denied = flow.drop_reason_desc == flow_pb2.POLICY_DENIED or "any-drop" in spec.options
            first = tcp.flags.SYN and not tcp.flags.ACK
            if (
                "reserved:world" in flow.destination.labels
                and is_l4
                and not flow.is_reply.value
                and (flow.verdict != flow_pb2.DROPPED or denied)
                and ("syn-only" not in spec.options or protocol != "TCP" or first)
            ):
                yield (protocol, verdict, port) if "port" in spec.options else (protocol, verdict), ()
        case "policy":
            if event.type == 5 and flow.source.identity != 1:
                direction = {1: "ingress", 2: "egress"}.get(flow.traffic_direction, "unknown")
                match = ["none", "l3-only", "l3-l4", "l4-only", "all", "l3-proto", "proto-only"]
                yield (direction, match[flow.policy_match_type], verdict.lower()), ()


def expected(spec: MetricSpec, flows: list[Flow]) -> Counter[tuple[str, ...]]:
    counts: Counter[tuple[str, ...]] = Counter()
    for flow in flows:
        for before, after in own_labels(spec, flow):
            counts[*before, *context_labels(spec, flow), *after] += 1
    return counts


def flows_of(block: MemoryRows) -> list[Flow]:
    builder = FlowBuilder(ObservingNode("default/n"), names())
    return [Flow.FromString(data) for data in builder.flows(block, np.arange(len(block)))]


def counted(text: str, block: MemoryRows, split: int = 0) -> dict[str, Counter[tuple[str, ...]]]:
    registry = FlowMetricsRegistry(parse(text), names())
    for part in (block.records[:split], block.records[split:]):
        registry.count(BlockOfRows(MemoryRows(part)), 0)
    return {family.name: Counter(dict(family.totals)) for family in registry.totals()}


FAMILIES = {
    "flow": "hubble_flows_processed_total",
    "drop": "hubble_drop_total",
    "tcp": "hubble_tcp_flags_total",
    "icmp": "hubble_icmp_total",
    "port-distribution": "hubble_port_distribution_total",
    "flows-to-world": "hubble_flows_to_world_total",
    "policy": "hubble_policy_verdicts_total",
}
SETTINGS = (
    "",
    "sourceContext=pod|identity;destinationContext=pod|identity",
    "labelsContext=source_namespace,destination_namespace,traffic_direction",
    "sourceContext=reserved-identity|workload;destinationContext=dns|app|ip",
    "sourceEgressContext=pod;destinationIngressContext=namespace;sourceContext=workload-name",
    "labelsContext=source_ip,source_workload_kind,destination_ip,destination_app;sourceContext=pod-name|ip",
    "destinationContext=workload|reserved-identity;labelsContext=source_pod,source_workload,destination_pod",
)

RECORDS = st.fixed_dictionaries(
    {
        "type": st.sampled_from([1, 4, 4, 4, 5, 11]),
        "subtype": st.sampled_from([0, 3, 4, 10]),
        "verdict": st.sampled_from([0, 1, 1, 2, 4, 5]),
        "drop_reason": st.sampled_from([0, 133, 181, 166]),
        "protocol": st.sampled_from([1, 6, 6, 17, 58, 132, 99]),
        "l4_flags": st.sampled_from([0, 1, 2, 4, 8, 16, 17, 18, 20]),
        "icmp_code": st.sampled_from([0, 3]),
        "trace_reason": st.sampled_from([0, 1, 2, 3, 4, 5]),
        "direction": st.sampled_from([0, 1, 2]),
        "match_type": st.sampled_from(range(7)),
        "dport": st.sampled_from([0, 53, 80, 443]),
        "sport": st.just(0),
        "saddr": st.sampled_from(["10.0.0.1", "10.0.0.2", "fd00::1"]),
        "daddr": st.sampled_from(["10.0.1.1", "93.184.216.34"]),
        "src_ref": st.sampled_from([0, 1, 2, 3, 5, 6]),
        "dst_ref": st.sampled_from([0, 1, 2, 4, 4, 6]),
        "src_identity": st.sampled_from([1, 48291, 53731, 0x01000001]),
        "dst_identity": st.sampled_from([2, 48291, 53731]),
    }
)


def consistent(values: dict[str, Any]) -> dict[str, Any]:
    """What a datapath could say: ICMP has no ports; both addresses are of one version."""
    made = record(**values)
    if made["saddr"].startswith("fd"):
        made["daddr"] = "fd00::2"
    if made["protocol"] in (1, 58):
        made["protocol"] = 58 if made["saddr"].startswith("fd") else 1
        made["dport"] = 0
    if made["type"] != 5:
        made["match_type"] = 0
    return made


@pytest.mark.parametrize("setting", SETTINGS)
@settings(max_examples=40, deadline=None)
@given(data=st.lists(RECORDS, min_size=1, max_size=40), split=st.integers(0, 40))
def test_counts_are_the_models(setting: str, data: list[dict[str, Any]], split: int) -> None:
    """Every metric, every kind of context, over one block or two."""
    block = rows(*map(consistent, data))
    flows = flows_of(block)
    text = " ".join(f"{name}:{setting}" if setting else name for name in FAMILIES)
    got = counted(text, block, split)
    for spec in parse(text):
        assert got[FAMILIES[spec.name]] == expected(spec, flows), spec.name


BITS = (
    {"numbertable.DIRECT_BITS": 4},
    {"numbertable.DIRECT_BITS": 4, "rowcontexts.DIRECT_BITS": 0},
    {"group.NARROW_BITS": 8},
    {"rowcontexts.DIRECT_BITS": 0, "rowcontexts.NARROW_BITS": 0, "group.NARROW_BITS": 8},
)
"""Keys hashed; contexts not numbered; series keys as they are, of all blocks or of some."""


@pytest.mark.parametrize("bits", BITS, ids=str)
def test_counts_do_not_depend_on_how_keys_are_looked_up(
    bits: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Few endpoints in the first block, more in each of the next ones: what numbers mean changes between."""
    for name, value in bits.items():
        monkeypatch.setattr(f"hubble.metrics.{name}", value)
    random = np.random.default_rng(1)
    text = " ".join(
        f"{name}:{options}sourceContext=pod|identity;destinationContext=app|ip;labelsContext=traffic_direction"
        for name, options in (
            ("flow", ""),
            ("drop", ""),
            ("port-distribution", ""),
            ("flows-to-world", "port;"),
            ("policy", ""),
        )
    )
    registry = FlowMetricsRegistry(parse(text), names())
    flows: list[Flow] = []
    for block in range(6):
        values = [
            consistent(
                {
                    "type": int(random.choice([1, 4, 5])),
                    "verdict": int(random.choice([0, 1, 2, 5])),
                    "drop_reason": int(random.choice([133, 181])),
                    "trace_reason": int(random.integers(0, 4)),
                    "direction": int(random.integers(0, 3)),
                    "dport": int(random.integers(1, 1000)),
                    "src_ref": int(random.integers(1, block + 2)),
                    "dst_ref": int(random.integers(1, block + 2)),
                    "daddr": f"10.0.1.{random.integers(1, block + 2)}",
                }
            )
            for _ in range(150)
        ]
        part = rows(*values)
        registry.count(BlockOfRows(part), block)
        flows += flows_of(part)
    got = {family.name: Counter(dict(family.totals)) for family in registry.totals()}
    for spec in parse(text):
        assert got[FAMILIES[spec.name]] == expected(spec, flows), spec.name


@pytest.mark.parametrize("options", ["any-drop", "port", "syn-only", "any-drop;port;syn-only"])
@settings(max_examples=40, deadline=None)
@given(data=st.lists(RECORDS, min_size=1, max_size=40))
def test_options_of_flows_to_world(options: str, data: list[dict[str, Any]]) -> None:
    block = rows(*map(consistent, data))
    [spec] = parse(f"flows-to-world:{options}")
    got = counted(f"flows-to-world:{options}", block)
    assert got["hubble_flows_to_world_total"] == expected(spec, flows_of(block))


def test_dns_families_are_announced_without_data() -> None:
    registry = FlowMetricsRegistry(parse("dns:query;sourceContext=pod"), names())
    registry.count(BlockOfRows(rows(record())), 0)
    families = {family.name: family for family in registry.totals()}
    assert families["hubble_dns_queries_total"].label_names == (
        "source",
        "rcode",
        "qtypes",
        "ips_returned",
        "query",
    )
    assert list(families) == [
        "hubble_dns_queries_total",
        "hubble_dns_responses_total",
        "hubble_dns_response_types_total",
    ]
    assert not any(family.totals for family in families.values())


# --- bounds ------------------------------------------------------------------------------------


def test_budget_of_series_holds_and_the_rest_is_counted() -> None:
    """A port scan makes no more series than allowed; no flow goes missing from the accounts."""
    registry = FlowMetricsRegistry(parse("port-distribution"), names(), budget=10)
    block = rows(*(record(dport=port) for port in range(1, 51)))
    registry.count(BlockOfRows(block), 0)
    registry.count(BlockOfRows(block), 0)
    [family] = registry.totals()
    assert len(family.totals) == 10
    assert sum(count for _, count in family.totals) == 20
    assert family.uncounted == 80
    assert family.refused == 80


def test_quiet_series_make_room_for_new_ones() -> None:
    counter = SeriesCounter(budget=2, idle_ns=100)
    keys = np.array([1, 2], dtype=np.uint64)
    counter.add(keys, np.array([5, 5]), now_ns=0)
    counter.add(keys[:1], np.array([1]), now_ns=90)
    counter.add(np.array([3], dtype=np.uint64), np.array([7]), now_ns=95)
    assert (counter.uncounted, counter.refused) == (7, 1)
    counter.add(np.array([3], dtype=np.uint64), np.array([7]), now_ns=60_000_000_200)
    assert counter.items() == [(3, 7)]
    assert counter.evicted == 2


def test_counts_that_wait_are_the_series_when_somebody_asks() -> None:
    """Blocks within a second of each other wait together; asking in between loses and doubles nothing."""
    registry = FlowMetricsRegistry(parse("port-distribution flow:sourceContext=pod"), names())
    for block in range(1, 8):
        registry.count(BlockOfRows(rows(record(dport=80), record(dport=block % 3 + 1))), block * 300_000_000)
        if block % 2:
            ports, flows = registry.totals()
            assert sum(count for _, count in ports.totals) == sum(count for _, count in flows.totals)
            assert dict(ports.totals)["TCP", "80"] == block
            assert dict(registry.totals()[0].totals) == dict(ports.totals)


def test_series_that_made_room_do_not_count_for_those_that_took_it() -> None:
    """A series keeps its own count when others go, and one that comes back begins anew."""
    registry = FlowMetricsRegistry(parse("port-distribution"), names(), budget=3)
    hour_ns = 3600 * 1_000_000_000

    def ports() -> dict[str, int]:
        [family] = registry.totals()
        return {values[1]: count for values, count in family.totals}

    registry.count(BlockOfRows(rows(*(record(dport=port) for port in (3, 2, 1, 1)))), 0)
    assert ports() == {"1": 2, "2": 1, "3": 1}
    registry.count(BlockOfRows(rows(record(dport=2), record(dport=2))), hour_ns)
    registry.count(BlockOfRows(rows(record(dport=5), record(dport=2), record(dport=4))), 2 * hour_ns - 1)
    assert ports() == {"2": 4, "4": 1, "5": 1}
    registry.count(BlockOfRows(rows(*(record(dport=port) for port in (5, 5, 4, 2)))), 2 * hour_ns)
    assert ports() == {"2": 5, "4": 2, "5": 3}
    registry.count(BlockOfRows(rows(record(dport=1))), 4 * hour_ns)
    assert ports() == {"1": 1}


def test_values_no_series_uses_are_forgotten_and_the_rest_stays_right(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Addresses without end as label values: memory stays bounded, kept series keep their names."""
    monkeypatch.setattr(contexts, "MAX_VALUES", 8)
    registry = FlowMetricsRegistry(
        parse("flow:sourceContext=ip;labelsContext=traffic_direction drop:sourceContext=ip"), names(), 4
    )
    for block in range(10):
        registry.count(BlockOfRows(rows(record(saddr="10.0.0.1"))), block)
        registry.count(
            BlockOfRows(rows(*(record(saddr=f"10.0.{block}.{host}") for host in range(1, 7)))), block
        )
    flow_family = registry.totals()[0]
    assert len(flow_family.totals) == 4
    by_source = {values[-1]: count for values, count in flow_family.totals}
    assert by_source.pop("10.0.0.1") == 11
    assert list(by_source.values()) == [1, 1, 1]
    assert all(source.startswith("10.0.0.") for source in by_source)
    assert {values[-2] for values, _ in flow_family.totals} == {"egress"}
    assert 11 + 3 + flow_family.uncounted == registry.flows


def test_endpoint_tables_start_again_when_they_grow_too_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hubble.metrics.sides.MAX_SIDES", 4)
    cast = FakeNames(endpoints={n: FlowEndpoint(namespace="n", pod=f"p{n}") for n in range(1, 21)})
    registry = FlowMetricsRegistry(parse("flow:sourceContext=pod"), cast)
    for _ in range(2):
        for first in range(1, 20, 5):
            part = rows(*(record(src_ref=n, src_identity=n) for n in range(first, first + 5)))
            registry.count(BlockOfRows(part), 0)
    [family] = registry.totals()
    assert {values[-1]: count for values, count in family.totals} == {f"n/p{n}": 2 for n in range(1, 21)}
