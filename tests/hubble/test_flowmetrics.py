"""Flow counters by Hubble's labels, against counting row by row."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hubble import rows as flow_rows
from hubble.flowmetrics import MAX_PORTS, FlowMetrics
from hubble.flowtext import icmp_text
from hubble.storefile import HOT_COLUMNS
from hubble.storewriter import Chunk
from palomar.drop import DropReason
from palomar.verdict import EventType, ObservationPoint, Verdict
from tests.kit.events import rows


def chunk(records: np.ndarray) -> Chunk:
    return Chunk(0, records, {name: records[name].copy() for name in HOT_COLUMNS})


def totals(*changes):
    metrics = FlowMetrics()
    metrics.count(chunk(rows(*changes)))
    return metrics.totals()


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, ("TCP", "Trace", "to-endpoint", "FORWARDED")),
        ({"subtype": 4, "protocol": 17}, ("UDP", "Trace", "to-overlay", "FORWARDED")),
        ({"type": 5, "subtype": 0, "verdict": 1}, ("TCP", "PolicyVerdict", "", "FORWARDED")),
        ({"type": 5, "verdict": 4}, ("TCP", "PolicyVerdict", "", "AUDIT")),
        ({"type": 1, "subtype": 133, "verdict": 2, "protocol": 1}, ("ICMPv4", "Drop", "", "DROPPED")),
        ({"protocol": 58}, ("ICMPv6", "Trace", "to-endpoint", "FORWARDED")),
        ({"protocol": 132}, ("SCTP", "Trace", "to-endpoint", "FORWARDED")),
        ({"protocol": 47}, ("Unknown L4", "Trace", "to-endpoint", "FORWARDED")),
        ({"type": 200, "verdict": 0}, ("Unknown flow", "Unknown", "200", "VERDICT_UNKNOWN")),
        ({"subtype": 99}, ("TCP", "Trace", "unknown", "FORWARDED")),
    ],
)
def test_flows_are_labelled_by_protocol_type_point_and_verdict(change, expected):
    assert totals(change, {"verdict": 5, "type": 5}).flows_processed.count((*expected, 1)) == 1


def test_drops_count_by_name_of_the_reason_with_the_verdict_that_caused_them():
    drop = {"type": 1, "verdict": 2, "drop_reason": 133}
    denied = {"type": 5, "verdict": 2, "drop_reason": 133}
    odd = {"type": 1, "verdict": 2, "drop_reason": 250, "protocol": 17}
    assert sorted(totals(drop, denied, odd, {}).drop) == [
        ("DROP_REASON_UNKNOWN", "UDP", 1),
        ("POLICY_DENIED", "TCP", 2),
    ]


def test_tcp_flags_count_for_packets_that_passed():
    found = totals(
        {"l4_flags": 0x02},
        {"l4_flags": 0x12},
        {"l4_flags": 0x12, "verdict": 5, "flags": 1},
        {"l4_flags": 0x11},
        {"l4_flags": 0x14},
        {"l4_flags": 0x18},
        {"l4_flags": 0x02, "verdict": 2},
        {"l4_flags": 0x02, "protocol": 17},
    )
    assert sorted(found.tcp) == [
        ("FIN", "IPv4", 1),
        ("RST", "IPv4", 1),
        ("SYN", "IPv4", 1),
        ("SYN-ACK", "IPv4", 1),
        ("SYN-ACK", "IPv6", 1),
    ]


def test_icmp_counts_by_type_and_says_ipv4_for_both_families():
    found = totals(
        {"protocol": 1, "l4_flags": 8},
        {"protocol": 58, "l4_flags": 128},
        {"protocol": 1, "l4_flags": 3, "icmp_code": 3},
        {"protocol": 6, "l4_flags": 8},
    )
    assert sorted(found.icmp) == [("DestinationUnreachable(Port)", "IPv4", 1), ("EchoRequest", "IPv4", 2)]


def test_ports_count_for_requests_that_passed():
    found = totals(
        {"dport": 80},
        {"dport": 80, "type": 5},
        {"dport": 53, "protocol": 17, "verdict": 5, "type": 5},
        {"dport": 81, "trace_reason": 2},
        {"dport": 82, "trace_reason": 5},
        {"dport": 83, "verdict": 2, "type": 1},
        {"dport": 84, "verdict": 4, "type": 5},
        {"dport": 9, "protocol": 1},
        {"dport": 85, "protocol": 47},
    )
    assert sorted(found.port_distribution) == [("ICMPv4", "0", 1), ("TCP", "80", 2), ("UDP", "53", 1)]


def test_a_port_scan_is_bounded_and_still_adds_up():
    metrics = FlowMetrics()
    records = rows({}, count=MAX_PORTS + 500)
    records["dport"] = np.arange(len(records))
    metrics.count(chunk(records))
    found = metrics.totals().port_distribution
    assert len(found) == MAX_PORTS + 1
    assert ("other", "other", 500) in found


PROTOCOL = {6: "TCP", 17: "UDP", 1: "ICMPv4", 58: "ICMPv6", 132: "SCTP"}
TYPE = {1: "Drop", 3: "Capture", 4: "Trace", 5: "PolicyVerdict"}
CHANGES = st.fixed_dictionaries(
    {
        "type": st.sampled_from([1, 3, 4, 4, 4, 5, 9]),
        "subtype": st.integers(0, 13),
        "verdict": st.integers(0, 7),
        "protocol": st.sampled_from([6, 6, 17, 1, 58, 132, 47]),
        "flags": st.integers(0, 1),
        "l4_flags": st.integers(0, 31),
        "icmp_code": st.integers(0, 3),
        "drop_reason": st.sampled_from([0, 133, 181]),
        "trace_reason": st.sampled_from([0, 1, 2, 3, 5, 0x82]),
        "dport": st.sampled_from([53, 80, 443]),
    }
)


@given(st.lists(st.lists(CHANGES, min_size=1, max_size=25), min_size=1, max_size=3))
@settings(max_examples=80, deadline=None)
def test_blocks_count_like_row_by_row(blocks):
    metrics = FlowMetrics()
    flows, drops, tcp, icmp, ports = Counter(), Counter(), Counter(), Counter(), Counter()
    for changes in blocks:
        metrics.count(chunk(rows(*changes)))
        for row in changes:
            known = row["type"] in TYPE
            protocol = PROTOCOL.get(row["protocol"], "Unknown L4")
            point = ObservationPoint(row["subtype"]).display if row["type"] == EventType.TRACE else ""
            verdict = Verdict(row["verdict"])
            word = verdict.name if verdict else "VERDICT_UNKNOWN"
            if known:
                flows[protocol, TYPE[row["type"]], point, word] += 1
            else:
                flows["Unknown flow", "Unknown", str(row["type"]), word] += 1
            reason = DropReason(row["drop_reason"])
            if verdict == Verdict.DROPPED:
                drops[reason.name if reason else "DROP_REASON_UNKNOWN", protocol] += 1
            passed = verdict in (Verdict.FORWARDED, Verdict.REDIRECTED)
            if row["protocol"] == 6 and passed:
                family = "IPv6" if row["flags"] else "IPv4"
                bits = row["l4_flags"]
                if bits & 1:
                    tcp["FIN", family] += 1
                if bits & 2:
                    tcp["SYN-ACK" if bits & 16 else "SYN", family] += 1
                if bits & 4:
                    tcp["RST", family] += 1
            if row["protocol"] in (1, 58):
                version = 4 if row["protocol"] == 1 else 6
                icmp[icmp_text(row["l4_flags"], row["icmp_code"], version), "IPv4"] += 1
            is_reply = flow_rows.reply_state(row["type"], row["trace_reason"], row["verdict"])
            if passed and is_reply is False and row["protocol"] in PROTOCOL:
                ports[protocol, "0" if row["protocol"] in (1, 58) else str(row["dport"])] += 1
    found = metrics.totals()
    assert Counter({row[:-1]: row[-1] for row in found.flows_processed}) == flows
    assert Counter({row[:-1]: row[-1] for row in found.drop}) == drops
    assert Counter({row[:-1]: row[-1] for row in found.tcp}) == tcp
    assert Counter({row[:-1]: row[-1] for row in found.icmp}) == icmp
    assert Counter({row[:-1]: row[-1] for row in found.port_distribution}) == ports
