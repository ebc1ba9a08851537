"""The kernel's own perf rings: opened, drained, overflowed, left."""

import os
from pathlib import Path

import numpy as np
import pytest

from datapath import bpffs, progtest
from datapath.errors import MapMissingError
from datapath.events import EVENT_DTYPE, SAMPLE_STRIDE
from datapath.loader import BpfObject
from datapath.perf import EventCounters, PerfRings
from datapath.samples import SEQ_WORD, TIME_WORD


def seqs(found) -> list[int]:
    return [int(seq) for run in found.runs for seq in run[:, SEQ_WORD]]


OBJECT = Path(__file__).resolve().parents[2] / "datapath" / "objects" / "bench_emit.o"
PER_RUN = 10


@pytest.fixture
def pins():
    root = Path(f"/sys/fs/bpf/plt-{os.getpid()}-perf")
    bpffs.ensure_mounted(root)
    yield root
    bpffs.remove_tree(root)


@pytest.fixture
def emit(pins):
    """A function that makes this CPU emit n events (a multiple of PER_RUN)."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    with BpfObject(OBJECT, pins) as emitter:
        emitter.set_constants({"bench_events": PER_RUN, "bench_vary": 4})
        emitter.load()
        program = emitter.program_fd("bench_emit")
        yield lambda count: progtest.run(program, bytes(64), repeat=count // PER_RUN)
    os.sched_setaffinity(0, before)


def this_cpu(rings: PerfRings):
    return next(ring for ring in rings.rings if ring.cpu == min(os.sched_getaffinity(0)))


@pytest.mark.bpf
@pytest.mark.root
def test_the_kernels_samples_have_the_stride_and_the_sequence(pins, emit):
    with PerfRings.open(pins / "cilium_events", 1 << 16) as rings:
        ring = this_cpu(rings)
        emit(100)
        found = ring.drain(ring.head())
        assert seqs(found) == list(range(100))
        assert (found.malformed, found.ring_lost) == (0, 0)
        times = np.concatenate([run[:, TIME_WORD] for run in found.runs])
        assert (np.diff(times.astype(np.int64)) >= 0).all()
        first = np.frombuffer(found.runs[0][0].tobytes()[12:], dtype=EVENT_DTYPE)[0]
        assert (int(first["version"]), int(first["type"]), int(first["protocol"])) == (1, 4, 6)
        ring.release(found)
        emit(10)
        assert seqs(ring.drain(ring.head())) == list(range(100, 110))


@pytest.mark.bpf
@pytest.mark.root
def test_over_many_laps_with_losses_what_is_missing_is_what_the_kernel_refused(pins, emit):
    counters = EventCounters(pins / "palomar_event_stats")
    cpu = min(os.sched_getaffinity(0))
    got: list[int] = []
    said = 0
    with PerfRings.open(pins / "cilium_events", 1 << 14) as rings:
        ring = this_cpu(rings)
        for count in (50, 120, 200, 130, 10, 500, 60, 10):
            emit(count)
            found = ring.drain(ring.head())
            got += seqs(found)
            said += found.ring_lost
            ring.release(found)
        emitted, failed, _ = counters.read()[cpu].tolist()
    counters.close()
    assert emitted == 1080
    assert failed > 0
    assert len(got) + failed == emitted
    assert said == failed
    assert got == sorted(set(got))


@pytest.mark.bpf
@pytest.mark.root
def test_the_epoll_wakes_at_the_watermark_and_not_before(pins, emit):
    with PerfRings.open(pins / "cilium_events", 1 << 16, watermark_bytes=20 * SAMPLE_STRIDE) as rings:
        emit(10)
        assert rings.epoll.poll(0) == []
        emit(20)
        assert [fd for fd, _ in rings.epoll.poll(0)] == [this_cpu(rings).fd]


@pytest.mark.bpf
@pytest.mark.root
def test_without_a_reader_output_fails_and_is_counted(pins, emit):
    counters = EventCounters(pins / "palomar_event_stats")
    cpu = min(os.sched_getaffinity(0))
    emit(30)
    assert counters.read()[cpu].tolist() == [30, 30, 0]
    with PerfRings.open(pins / "cilium_events", 1 << 16) as rings:
        emit(10)
        rings.detach()
        emit(20)
        assert seqs(this_cpu(rings).drain(this_cpu(rings).head())) == list(range(30, 40))
    assert counters.read()[cpu].tolist() == [60, 50, 0]
    counters.close()


@pytest.mark.bpf
@pytest.mark.root
def test_counters_made_anew_are_another_source(pins, emit):
    counters = EventCounters(pins / "palomar_event_stats")
    again = EventCounters(pins / "palomar_event_stats")
    assert counters.source_id() == again.source_id() != 0
    again.close()
    counters.close()
    bpffs.remove_tree(pins)
    bpffs.ensure_mounted(pins)
    with BpfObject(OBJECT, pins) as emitter:
        emitter.load()
        renewed = EventCounters(pins / "palomar_event_stats")
        assert renewed.source_id() != counters.source_id()
        renewed.close()


@pytest.mark.bpf
@pytest.mark.root
def test_a_missing_map_is_named(pins):
    with pytest.raises(MapMissingError, match="cilium_events"):
        PerfRings.open(pins / "cilium_events")


@pytest.mark.parametrize("size", [0, 100, 12288])
def test_a_ring_size_that_is_no_power_of_two_is_refused(size):
    with pytest.raises(ValueError, match="power of two"):
        PerfRings.open(Path("/nonexistent"), size)
