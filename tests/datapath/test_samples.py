"""Samples are found in any ring, whatever else is in it."""

import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datapath.events import EVENT_DTYPE, SAMPLE_STRIDE
from datapath.samples import SEQ_WORD, TIME_WORD, find_samples
from tests.kit.events import event, lost, sample

RING = 4096


def put(records: list[bytes], start: int) -> tuple[np.ndarray, int]:
    """A ring that holds `records` from byte position `start` on, and its head."""
    ring = np.zeros(RING, dtype=np.uint8)
    data = b"".join(records)
    at = (start + np.arange(len(data))) % RING
    ring[at] = np.frombuffer(data, dtype=np.uint8)
    return ring.view(np.uint64), start + len(data)


def seqs(found) -> list[int]:
    return [int(seq) for run in found.runs for seq in run[:, SEQ_WORD]]


def test_a_sample_of_ours_is_one_stride():
    assert len(sample(event())) == SAMPLE_STRIDE


def test_a_run_of_samples_is_one_view_of_the_ring():
    ring, head = put([sample(event(seq=n, time_ns=n * 10)) for n in range(20)], 0)
    found = find_samples(ring, 0, head)
    assert len(found.runs) == 1
    assert np.shares_memory(found.runs[0], ring)
    assert seqs(found) == list(range(20))
    assert found.runs[0][:, TIME_WORD].tolist() == [n * 10 for n in range(20)]
    assert (found.tail, found.malformed, found.ring_lost) == (head, 0, 0)


def test_misc_bits_of_a_header_mean_nothing():
    ring, head = put([sample(event(seq=n), misc=n) for n in range(4)], 0)
    assert seqs(find_samples(ring, 0, head)) == [0, 1, 2, 3]


def test_a_lost_record_shifts_what_follows_and_is_summed():
    records = [sample(event(seq=0)), lost(5), sample(event(seq=6)), lost(2), sample(event(seq=9))]
    ring, head = put(records, 0)
    found = find_samples(ring, 0, head)
    assert seqs(found) == [0, 6, 9]
    assert found.ring_lost == 7


def test_a_sample_that_wraps_is_whole():
    start = RING - 40
    ring, head = put([sample(event(seq=3, dport=443)), sample(event(seq=4))], start)
    found = find_samples(ring, start, head)
    assert seqs(found) == [3, 4]
    raw = found.runs[0][0].tobytes()[12:]
    assert int(np.frombuffer(raw, dtype=EVENT_DTYPE)[0]["dport"]) == 443


@pytest.mark.parametrize(
    "odd",
    [sample(event(version=2)), sample(bytes(40)), sample(bytes(200)), sample(b"")],
    ids=["version", "short", "long", "empty"],
)
def test_a_sample_of_another_kind_is_counted_and_skipped(odd):
    ring, head = put([sample(event(seq=0)), odd, sample(event(seq=2))], 8)
    found = find_samples(ring, 8, head)
    assert seqs(found) == [0, 2]
    assert found.malformed == 1
    assert found.tail == head


@pytest.mark.parametrize("header", [9 | 4 << 48, 9 | 129 << 48, 9 | 4088 << 48, 0])
def test_a_record_that_cannot_be_ends_the_drain_and_is_counted(header):
    ring, head = put([sample(event(seq=0)), struct.pack("=Q", header), bytes(16)], 0)
    found = find_samples(ring, 0, head)
    assert seqs(found) == [0]
    assert (found.malformed, found.tail) == (1, head)


def test_other_records_are_skipped():
    throttle = struct.pack("=Q", 5 | 32 << 48) + bytes(24)
    ring, head = put([throttle, sample(event(seq=1))], 0)
    found = find_samples(ring, 0, head)
    assert (seqs(found), found.malformed) == ([1], 0)


def slow(records: list[tuple[str, int]]) -> tuple[list[int], int, int]:
    """The obvious model: walk the list that the ring was made of."""
    samples = [number for kind, number in records if kind == "sample"]
    malformed = sum(kind == "odd" for kind, _ in records)
    return samples, malformed, sum(number for kind, number in records if kind == "lost")


@given(
    st.lists(
        st.tuples(st.sampled_from(["sample", "sample", "sample", "lost", "odd"]), st.integers(0, 1 << 40)),
        max_size=28,
    ),
    st.integers(0, 3 * RING // 8),
)
@settings(max_examples=300, deadline=None)
def test_any_ring_reads_like_the_list_it_was_made_of(records, start):
    make = {
        "sample": lambda number: sample(event(seq=number)),
        "lost": lost,
        "odd": lambda number: sample(event(seq=number, version=9)),
    }
    ring, head = put([make[kind](number) for kind, number in records], start * 8)
    found = find_samples(ring, start * 8, head)
    assert (seqs(found), found.malformed, found.ring_lost) == slow(records)
    assert found.tail == head


@given(st.binary(max_size=RING), st.integers(0, RING // 8))
@settings(max_examples=200, deadline=None)
def test_garbage_never_raises_and_is_always_consumed(data, start):
    ring, head = put([data[: len(data) // 8 * 8]], start * 8)
    assert find_samples(ring, start * 8, head).tail == head
