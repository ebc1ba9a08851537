"""Samples become rows: whole, ordered by time, in wall clock, with names and CPU."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datapath.samples import find_samples
from hubble.binder import Binder
from hubble.intake import SLICE_ROWS, Batch, CpuRuns
from hubble.storewriter import FlowStoreWriter
from tests.kit.events import FakeClock, event, rows, sample

OFFSET_NS = 1_700_000_000_000_000_000


def runs(events: list[bytes], start: int = 0) -> list[np.ndarray]:
    """Runs as a ring holds them, beginning at byte `start`."""
    data = b"".join(sample(data) for data in events)
    ring = np.zeros(1 << 16, dtype=np.uint8)
    at = (start + np.arange(len(data))) % len(ring)
    ring[at] = np.frombuffer(data, dtype=np.uint8)
    return find_samples(ring.view(np.uint64), start, start + len(data)).runs


@pytest.fixture
def store(tmp_path):
    writer = FlowStoreWriter.open(tmp_path, 3 * SLICE_ROWS, FakeClock())
    yield writer
    writer.close()


def stored(store: FlowStoreWriter, batch: Batch) -> np.ndarray:
    binder = Binder(lambda endpoint, ip: endpoint.identity)
    first = 0
    for chunk in store.reserve(len(batch)):
        batch.fill(first, chunk, OFFSET_NS, binder)
        first += len(chunk)
        for name, column in chunk.columns.items():
            assert (column == chunk.records[name]).all(), name
    store.commit(len(batch))
    return np.concatenate([chunk.records for chunk in store.written(store.head - len(batch), len(batch))])


def test_a_row_is_its_event_with_wall_time_names_and_cpu(store):
    fields = {"seq": 7, "rtt_us": 350, "line": 99}
    row = stored(store, Batch([CpuRuns(3, runs([event(**fields, time_ns=500)]))]))[0]
    expected = rows(fields | {"time_ns": OFFSET_NS + 500, "cpu": 3})[0]
    expected["src_ref"], expected["dst_ref"] = expected["src_identity"], expected["dst_identity"]
    assert row.tobytes() == expected.tobytes()


EVENTS = st.lists(st.tuples(st.integers(0, 40), st.integers(0, 3)), max_size=60)


@given(st.lists(EVENTS, min_size=1, max_size=3), st.integers(0, 1 << 12))
@settings(max_examples=100, deadline=None)
def test_rows_of_all_cpus_come_in_order_of_time_and_ties_in_order_of_cpus(tmp_path_factory, cpus, start):
    parts, model, seq = [], [], 0
    for cpu, events in enumerate(cpus):
        made = []
        for time_ns, dport in events:
            made.append(event(seq=seq, time_ns=time_ns, dport=dport, src_identity=seq + 1))
            model.append((time_ns, seq, dport, cpu))
            seq += 1
        parts.append(CpuRuns(cpu, runs(made, start * 8)))
    writer = FlowStoreWriter.open(tmp_path_factory.mktemp("store"), 2 * SLICE_ROWS, FakeClock())
    batch = Batch(parts)
    found = stored(writer, batch) if len(batch) else np.zeros(0, dtype=rows({}).dtype)
    expected = sorted(model, key=lambda row: row[0])
    assert [
        (int(row["time_ns"]) - OFFSET_NS, int(row["seq"]), int(row["dport"]), int(row["cpu"]))
        for row in found
    ] == expected
    assert found["src_ref"].tolist() == [row[1] + 1 for row in expected]
    half = len(batch) // 2
    for begin, end in ((0, half), (half, len(batch))):
        counts = batch.stored_by_cpu(begin, end) if end > begin else {}
        assert counts == {
            cpu: n for cpu in range(3) if (n := sum(row[3] == cpu for row in expected[begin:end]))
        }
    writer.close()


def test_a_batch_of_many_slices_is_whole(store):
    # Runs longer than any test ring: as views of one large buffer.
    count = SLICE_ROWS + 100
    data = np.frombuffer(b"".join(sample(event(seq=n, time_ns=n)) for n in range(count)), dtype=np.uint64)
    found = stored(store, Batch([CpuRuns(0, [data.reshape(count, 16)])]))
    assert found["seq"].tolist() == list(range(count))
    # The second one goes around the end of the store, out of order.
    turned = data.reshape(count, 16)[::-1].copy()
    found = stored(store, Batch([CpuRuns(0, [turned[:50], turned[50:]])]))
    assert found["seq"].tolist() == list(range(count))
    assert found["time_ns"].tolist() == [OFFSET_NS + n for n in range(count)]


def test_numbers_ahead_are_counted_wherever_they_stand():
    part = CpuRuns(0, runs([event(seq=n) for n in (3, 9, 4, 10, 8)]))
    assert [part.ahead(seq) for seq in (0, 4, 9, 11)] == [5, 4, 2, 0]
    assert len(part) == 5
