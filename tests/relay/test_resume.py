"""A broken stream is taken up again: nothing is missed, nothing comes twice."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from palomar_pb.observer.observer_pb2 import GetFlowsRequest
from relay.resume import OVERLAP_NS, Resumption

START_NS = 1_795_248_001_000_000_000
S = 1_000_000_000


class StoredNode:
    """A node's store: rows of (time, bytes), answered as a flow server does."""

    def __init__(self) -> None:
        self.rows: list[tuple[int, bytes]] = []

    def store(self, time_ns: int) -> None:
        self.rows.append((time_ns, f"flow {len(self.rows)}".encode()))

    def answer(self, request: GetFlowsRequest, head: int) -> list[tuple[int, bytes]]:
        """What it sends: `head` is where its store ended when it was asked."""
        since = request.since.ToNanoseconds() if request.HasField("since") else None
        if since is None:
            past = (
                self.rows[:head]
                if request.first
                else self.rows[:head][-request.number :] * bool(request.number)
            )
            return past + self.rows[head:]
        return [row for row in self.rows if row[0] >= since]


def taken(resumption: Resumption, rows: list[tuple[int, bytes]], clock_ns: int = 0) -> list[bytes]:
    times = np.array([time for time, _ in rows], dtype=np.int64)
    return list(resumption.take(times, [item for _, item in rows], clock_ns)[1])


@given(
    jitters=st.lists(st.integers(0, 2 * S), min_size=1, max_size=60),
    breaks=st.lists(st.integers(0, 60), max_size=4),
    batch=st.integers(1, 7),
    past=st.integers(0, 60),
    last=st.integers(0, 5),
)
def test_a_follower_gets_every_flow_once(
    jitters: list[int], breaks: list[int], batch: int, past: int, last: int
) -> None:
    """However often it breaks; of a whole past (`last` 0) also with flows stored two seconds out of order."""
    node = StoredNode()
    for number, jitter in enumerate(jitters):
        node.store(START_NS + number * 100_000_000 - (0 if last else jitter))
    head = min(past, len(node.rows))
    request = GetFlowsRequest(follow=True, number=last, first=not last)
    wanted = [item for _, item in node.answer(request, head)]
    resumption = Resumption(request, START_NS)
    got: list[bytes] = []
    for attempt, stop in enumerate([*sorted(breaks), len(node.rows)]):
        if not got:
            resumption = Resumption(request, START_NS)
        question = resumption.request(again=attempt > 0)
        # The node sends in stored order; the stream breaks when row `stop` would be sent.
        rows = [row for row in node.answer(question, head) if node.rows.index(row) < stop]
        for begin in range(0, len(rows), batch):
            got += taken(resumption, rows[begin : begin + batch])
    assert got == wanted
    assert not resumption.gap


def test_what_is_asked_after_a_break() -> None:
    """From a little before the newest that came; `number` and `first` have been answered."""
    resumption = Resumption(GetFlowsRequest(follow=True, number=20), START_NS)
    assert resumption.request(again=False).number == 20
    assert resumption.request(again=True).number == 20  # nothing had come
    taken(resumption, [(START_NS + 60 * S, b"a")])
    request = resumption.request(again=True)
    assert (request.number, request.first, request.follow) == (0, False, True)
    assert request.since.ToNanoseconds() == START_NS + 60 * S - OVERLAP_NS


def test_a_stream_of_now_that_breaks_before_the_first_flow_misses_nothing() -> None:
    """It asks from when the client asked, by the node's clock where that was told; nothing older comes."""
    hour_off = START_NS - 3600 * S
    resumption = Resumption(GetFlowsRequest(follow=True), START_NS)
    taken(resumption, [], clock_ns=hour_off)
    request = resumption.request(again=True)
    assert request.since.ToNanoseconds() <= hour_off
    rows = [(hour_off - S, b"before"), (hour_off + S, b"meanwhile")]
    assert taken(resumption, rows) == [b"meanwhile"]


def test_a_node_that_came_late_tells_what_happened_since_the_client_asked() -> None:
    """`again` without a first stream."""
    resumption = Resumption(GetFlowsRequest(follow=True), START_NS)
    request = resumption.request(again=True)
    assert request.since.ToNanoseconds() == START_NS - OVERLAP_NS
    assert taken(resumption, [(START_NS - 1, b"old"), (START_NS, b"new")]) == [b"new"]


def test_the_clients_own_since_is_kept() -> None:
    """A resumption never asks for more than the client did."""
    request = GetFlowsRequest(follow=True)
    request.since.FromNanoseconds(START_NS)
    resumption = Resumption(request, START_NS + 1000 * S)
    taken(resumption, [(START_NS + S, b"a")])
    assert resumption.request(again=True).since.ToNanoseconds() == START_NS


def test_a_store_that_no_longer_has_the_last_flow_is_a_gap() -> None:
    """The node had more flows meanwhile than its store holds: that is said."""
    resumption = Resumption(GetFlowsRequest(follow=True, first=True), START_NS)
    taken(resumption, [(START_NS, b"a"), (START_NS + 1, b"b")])
    resumption.request(again=True)
    assert taken(resumption, [(START_NS + 9, b"z")]) == [b"z"]
    assert resumption.gap
    whole: Any = Resumption(GetFlowsRequest(follow=True, first=True), START_NS)
    taken(whole, [(START_NS, b"a"), (START_NS + 1, b"b")])
    whole.request(again=True)
    assert taken(whole, [(START_NS + 1, b"b"), (START_NS + 9, b"z")]) == [b"z"]
    assert taken(whole, [(START_NS + 10, b"zz")]) == [b"zz"]
    assert not whole.gap
    assert whole.doubles == 1


@pytest.mark.parametrize("tells_clock", [True, False])
def test_a_clock_that_was_set_back_hides_nothing_after_a_break(tells_clock: bool) -> None:
    """Flows stamped an hour ahead, then the right time: what is asked for begins before the right time."""
    resumption = Resumption(GetFlowsRequest(follow=True), START_NS)
    ahead, right = START_NS + 3600 * S, START_NS + 10 * S
    for time_ns in (ahead, right):
        clock_ns = time_ns if tells_clock else 0
        times, _ = resumption.take(np.array([time_ns], np.int64), [b"%d" % time_ns], clock_ns)
        assert len(times) == 1
    asked = resumption.request(again=True).since.ToNanoseconds()
    assert asked == right - OVERLAP_NS
    # Both come again and are known; what happened meanwhile is new.
    times, items = resumption.take(
        np.array([right, right + 1, ahead], np.int64), [b"%d" % right, b"new", b"%d" % ahead], 0
    )
    assert list(items) == [b"new"]


def test_an_idle_node_whose_clock_was_set_back_is_asked_from_then_on() -> None:
    """Told by its clock alone."""
    resumption = Resumption(GetFlowsRequest(follow=True), START_NS)
    none = np.empty(0, np.int64)
    resumption.take(none, [], START_NS + 3600 * S)
    resumption.take(none, [], START_NS)
    assert resumption.request(again=True).since.ToNanoseconds() <= START_NS - OVERLAP_NS
