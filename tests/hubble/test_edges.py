"""Service edges: requests and their replies are one edge, drops are edges of their own."""

from collections import Counter

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from hubble.edges import Edge, Edges
from hubble.storefile import HOT_COLUMNS
from palomar.verdict import EventType, TraceReason, Verdict
from tests.kit.events import rows


def columns(records: np.ndarray) -> dict[str, np.ndarray]:
    return {name: records[name].copy() for name in HOT_COLUMNS}


REQUEST = {"src_ref": 3, "dst_ref": 4, "sport": 40000, "dport": 80}
REPLY = {"src_ref": 4, "dst_ref": 3, "sport": 80, "dport": 40000, "trace_reason": TraceReason.REPLY}


def test_a_reply_counts_for_the_edge_of_its_request():
    edges = Edges()
    edges.count(columns(rows(REQUEST, REPLY, REQUEST | {"type": EventType.POLICY_VERDICT})))
    assert edges.items() == [Edge(3, 4, 80, 6, Verdict.FORWARDED, 3)]
    assert len(edges) == 1


def test_what_was_dropped_is_an_edge_of_its_own():
    edges = Edges()
    edges.count(columns(rows(REQUEST, REQUEST | {"type": EventType.DROP, "verdict": 2, "trace_reason": 5})))
    assert [(edge.verdict, edge.flows) for edge in edges.items()] == [
        (Verdict.FORWARDED, 1),
        (Verdict.DROPPED, 1),
    ]


def test_a_trace_that_may_be_a_reply_makes_no_edge():
    edges = Edges()
    edges.count(columns(rows(REQUEST | {"trace_reason": TraceReason.UNKNOWN})))
    assert edges.items() == []


def test_edges_are_bounded_and_what_has_no_room_is_counted():
    edges = Edges(limit=2)
    edges.count(columns(rows(*[REQUEST | {"dport": port} for port in (1, 2, 3, 3)])))
    edges.count(columns(rows(REQUEST | {"src_ref": 1 << 20, "dport": 1}, REQUEST | {"dport": 1})))
    assert [(edge.dport, edge.flows) for edge in edges.items()] == [(1, 2), (2, 1)]
    assert edges.overflow == 3


CHANGES = st.fixed_dictionaries(
    {
        "type": st.sampled_from([1, 4, 4, 5]),
        "trace_reason": st.sampled_from([0, 1, 2, 2, 3, 5]),
        "verdict": st.integers(0, 7),
        "protocol": st.sampled_from([6, 17, 1]),
        "src_ref": st.integers(1, 4),
        "dst_ref": st.integers(1, 4),
        "sport": st.sampled_from([80, 65535]),
        "dport": st.sampled_from([80, 443]),
    }
)


@given(st.lists(st.lists(CHANGES, min_size=1, max_size=20), min_size=1, max_size=3))
@settings(max_examples=80, deadline=None)
def test_blocks_count_like_row_by_row(blocks):
    edges, model = Edges(), Counter()
    for changes in blocks:
        edges.count(columns(rows(*changes)))
        for row in changes:
            src, dst, port = row["src_ref"], row["dst_ref"], row["dport"]
            if row["type"] == EventType.TRACE:
                if row["trace_reason"] == TraceReason.UNKNOWN:
                    continue
                if row["trace_reason"] == TraceReason.REPLY:
                    src, dst, port = dst, src, row["sport"]
            model[src, dst, port, row["protocol"], row["verdict"]] += 1
    found = {(e.src_ref, e.dst_ref, e.dport, e.protocol, int(e.verdict)): e.flows for e in edges.items()}
    assert found == dict(model)
