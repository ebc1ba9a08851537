"""Streams of many nodes come out in time order, and nobody holds the others up for long."""

from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from relay.merge import Merger

MS = 1_000_000


def released(merger: Merger[Any, Any], now_ns: int) -> list[Any]:
    """The items that go out; their times must be in order."""
    found = merger.release(now_ns)
    assert list(found.times) == sorted(found.times)
    assert len(found.times) == len(found.items)
    return found.items


def times(*values: int) -> np.ndarray:
    return np.array(values, dtype=np.int64)


def test_items_wait_until_every_live_source_has_passed_them() -> None:
    """What one node sent is held until the other has sent something newer."""
    merger: Merger[str, str] = Merger(100 * MS)
    merger.add("a", 0)
    merger.add("b", 0)
    merger.push("a", times(10, 30), ["a10", "a30"], 1)
    assert released(merger, 1) == []
    merger.push("b", times(20), ["b20"], 2)
    assert released(merger, 2) == ["a10", "b20"]
    merger.finish("b")
    assert released(merger, 3) == ["a30"]


def test_a_silent_source_delays_nothing_beyond_the_wait() -> None:
    """What is held goes out after the wait; a source that stays silent is not waited for at all."""
    merger: Merger[str, str] = Merger(100 * MS)
    merger.add("a", 0)
    merger.add("dead", 0)
    merger.push("a", times(10), ["a10"], 50 * MS)
    assert released(merger, 149 * MS) == []
    assert merger.next_deadline_ns(149 * MS) == 150 * MS
    assert released(merger, 150 * MS) == ["a10"]
    merger.push("a", times(20), ["a20"], 2000 * MS)
    assert released(merger, 2000 * MS) == ["a20"]


def test_what_has_waited_long_enough_takes_older_items_of_others_along() -> None:
    """Items that came later than it but are older go before it."""
    merger: Merger[str, str] = Merger(100 * MS)
    for name in ("a", "b", "silent"):
        merger.add(name, 0)
    merger.push("a", times(20), ["a20"], 0)
    merger.push("b", times(10, 30), ["b10", "b30"], 60 * MS)
    assert released(merger, 99 * MS) == []
    assert released(merger, 100 * MS) == ["b10", "a20"]
    assert released(merger, 160 * MS) == ["b30"]


def test_a_clock_an_hour_ahead_is_released_after_the_wait() -> None:
    """The others are not disturbed, its own items go out after the wait."""
    hour = 3_600_000 * MS
    merger: Merger[str, str] = Merger(100 * MS)
    for name in ("good", "ahead"):
        merger.add(name, 0)
    merger.push("ahead", times(hour), ["ahead"], 1)
    merger.push("good", times(5), ["good"], 2)
    assert released(merger, 2) == ["good"]
    merger.push("good", times(7), ["good7"], 100 * MS)
    assert released(merger, 100 * MS + 1) == ["good7", "ahead"]


def test_a_clock_an_hour_behind_holds_the_others_no_longer_than_the_wait() -> None:
    """It is not waited for: its items go out as they come, the others wait for each other alone."""
    hour = 3_600_000 * MS
    merger: Merger[str, str] = Merger(100 * MS)
    for name in ("good", "fine", "behind"):
        merger.add(name, 0)
    merger.push("good", times(hour), ["good"], 1 * MS)
    merger.push("fine", times(hour + 1), ["fine"], 1 * MS)
    merger.push("behind", times(1), ["behind"], 2 * MS)
    assert released(merger, 2 * MS) == ["behind", "good"]
    merger.push("behind", times(2), ["behind2"], 90 * MS)
    assert released(merger, 101 * MS) == ["behind2", "fine"]


def test_the_past_is_waited_for_as_long_as_it_is_told() -> None:
    """A node with much older flows is merged whole before the others' newer ones, however long that takes."""
    merger: Merger[str, str] = Merger(100 * MS, history=True)
    for name in ("long", "short"):
        merger.add(name, 0)
    merger.push("short", times(10**15), ["newest"], 0)
    for step in range(1, 50):
        merger.push("long", times(step), [f"old{step}"], step * 90 * MS)
        assert released(merger, step * 90 * MS) == [f"old{step}"]
    merger.finish("long")
    assert released(merger, 50 * 90 * MS) == ["newest"]


def test_the_past_waits_for_a_silent_node_no_longer_than_the_wait() -> None:
    """A node that hangs holds nobody up for good."""
    merger: Merger[str, str] = Merger(100 * MS, history=True)
    for name in ("good", "hung"):
        merger.add(name, 0)
    merger.push("good", times(1), ["good"], 0)
    assert released(merger, 99 * MS) == []
    assert not merger.is_silent("hung", 99 * MS)
    assert released(merger, 100 * MS) == ["good"]
    assert merger.is_silent("hung", 100 * MS)


def test_a_batch_out_of_order_is_put_in_order() -> None:
    """CPUs of one node are stored slightly mixed."""
    merger: Merger[str, int] = Merger(100 * MS)
    merger.add("a", 0)
    merger.push("a", times(3, 1, 2), [3, 1, 2], 0)
    merger.finish("a")
    assert released(merger, 0) == [1, 2, 3]


def test_an_idle_node_that_says_so_holds_nobody() -> None:
    """`advance` moves the watermark without an item."""
    merger: Merger[str, str] = Merger(100 * MS)
    merger.add("a", 0)
    merger.add("idle", 0)
    merger.push("a", times(10), ["a10"], 1)
    merger.advance("idle", 10, 2)
    assert released(merger, 2) == ["a10"]


@given(
    st.lists(st.lists(st.integers(0, 1000), max_size=20), min_size=1, max_size=5),
    st.integers(1, 5),
)
def test_finished_sources_merge_to_the_sorted_whole(streams: list[list[int]], chunk: int) -> None:
    """With every source finished nothing is lost, doubled or out of order."""
    merger: Merger[int, tuple[int, int]] = Merger(10**9)
    out: list[tuple[int, int]] = []
    for source, _ in enumerate(streams):
        merger.add(source, 0)
    ordered = [sorted(stream) for stream in streams]
    longest = max(len(stream) for stream in ordered)
    for start in range(0, longest, chunk):
        for source, stream in enumerate(ordered):
            part = stream[start : start + chunk]
            if not part:
                continue
            merger.push(source, times(*part), [(value, source) for value in part], 0)
            if start + chunk >= len(stream):
                merger.finish(source)
        out += released(merger, 0)
    for source, _ in enumerate(streams):
        merger.finish(source)
    out += released(merger, 0)
    assert [value for value, _ in out] == sorted(value for stream in streams for value in stream)
    assert merger.held == 0
