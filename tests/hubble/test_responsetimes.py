"""Times read from the ends of serialised responses are those that parsing finds."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hubble.batches import encode_batch
from hubble.responsetimes import FEW, TIME_TAG, response_times
from palomar_pb.flow import flow_pb2
from palomar_pb.observer import observer_pb2
from palomar_pb.palomar.v1 import batch_pb2

moments = st.one_of(
    st.integers(1_500_000_000 * 10**9, 2_500_000_000 * 10**9),
    st.integers(0, 9_000_000_000 * 10**9),
    st.integers(1_795_248_001, 1_795_248_100).map(lambda second: second * 10**9),
)


def response(time_ns: int, lost: bool, name: str) -> bytes:
    made = observer_pb2.GetFlowsResponse(node_name=name)
    if lost:
        made.lost_events.num_events_lost = 3
    else:
        made.flow.CopyFrom(flow_pb2.Flow(verdict=flow_pb2.DROPPED, Summary="TCP Flags: SYN"))
    made.time.FromNanoseconds(time_ns)
    return made.SerializeToString()


@settings(deadline=None)
@given(st.lists(st.tuples(moments, st.booleans(), st.text(max_size=20)), max_size=30))
def test_every_time_is_found(cases: list[tuple[int, bool, str]]) -> None:
    """Usual times, odd ones, whole seconds; flows and losses; any node name; few and many at once."""
    items = [response(*case) for case in cases]
    times = [time_ns for time_ns, _, _ in cases]
    assert response_times(items).tolist() == times
    many = FEW // max(1, len(items)) + 1
    assert response_times(items * many).tolist() == times * many


@pytest.mark.parametrize("octets", [2, 3, 4])
def test_a_time_that_ends_like_the_tag_of_times_is_read(octets: int) -> None:
    """Sixteen in a million moments do: the octets of their nanoseconds are those that announce a time."""
    nanos = TIME_TAG[1] << 7 * (octets - 1) | (TIME_TAG[0] & 0x7F) << 7 * (octets - 2)
    time_ns = 1_795_248_001 * 10**9 + nanos
    item = response(time_ns, False, "n")
    assert item.endswith(TIME_TAG)
    assert response_times([item]).tolist() == [time_ns]
    assert response_times([item] * (FEW + 1)).tolist() == [time_ns] * (FEW + 1)


def test_a_response_without_a_time_has_none() -> None:
    """0, also among others, and for no bytes at all."""
    bare = observer_pb2.GetFlowsResponse(node_name="n").SerializeToString()
    items = [bare, response(5 * 10**9, False, "n"), b""]
    assert response_times(items).tolist() == [0, 5 * 10**9, 0]
    assert response_times(items * FEW).tolist() == [0, 5 * 10**9, 0] * FEW
    assert len(response_times([])) == 0


def test_a_batch_carries_times_counters_and_clock() -> None:
    """For those who parse it and for those who pass its bytes on."""
    items = [response(1_795_248_001 * 10**9 + 7, False, "n"), response(2 * 10**9, True, "n")]
    raw = encode_batch(items, 10, 2, 99)
    parsed = batch_pb2.FlowBatch.FromString(raw)
    assert list(parsed.times_ns) == [1_795_248_001 * 10**9 + 7, 2 * 10**9]
    assert (parsed.observed, parsed.lost, parsed.clock_ns) == (10, 2, 99)
    assert parsed.responses[1].lost_events.num_events_lost == 3
    passed = batch_pb2.FlowBatchBytes.FromString(raw)
    assert list(passed.responses) == items
    assert np.frombuffer(passed.times_ns, "<u8").tolist() == list(parsed.times_ns)
    empty = batch_pb2.FlowBatch.FromString(encode_batch([], 1, 0, 5))
    assert (list(empty.times_ns), empty.clock_ns) == ([], 5)
