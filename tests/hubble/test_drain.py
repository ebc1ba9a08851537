"""emitted = stored + lost, through samples, losses, inversions, wraps, nonsense, restarts and kills."""

import logging
import shutil
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hubble import drain as drain_module
from hubble.binder import Binder
from hubble.drain import Drain
from hubble.flowendpoint import FlowEndpoint
from hubble.names import NamesReader, NamesWriter
from hubble.storereader import FlowStoreReader
from hubble.storewriter import FlowStoreWriter
from tests.kit.events import POD_ONE, FakeClock, FakeCounters, FakeRing, event, sample

CPUS = 2
CAPACITY = 256
SOURCE = 7


@dataclass
class Kernel:
    """Plays the programs of all CPUs; knows what was emitted and what a ring took."""

    counters: FakeCounters = field(default_factory=lambda: FakeCounters(CPUS))
    rings: list[FakeRing] = field(default_factory=list)
    emitted: list[int] = field(default_factory=lambda: [0] * CPUS)
    interrupted: list[list[bytes]] = field(default_factory=lambda: [[] for _ in range(CPUS)])
    time_ns: int = 0

    def number(self, cpu: int, version: int = 1) -> bytes:
        """A program takes its number."""
        self.time_ns += 1
        data = event(seq=self.emitted[cpu], time_ns=self.time_ns, version=version)
        self.emitted[cpu] += 1
        self.counters.values[cpu, 0] = self.emitted[cpu]
        return data

    def write(self, cpu: int, data: bytes) -> None:
        """And writes its record, or fails to."""
        if not self.rings or not self.rings[cpu].write(sample(data)):
            self.counters.values[cpu, 1] += 1

    def emit(self, cpu: int, count: int, version: int = 1) -> None:
        for _ in range(count):
            self.write(cpu, self.number(cpu, version))

    def interrupt(self, cpu: int) -> None:
        """A program has its number but is interrupted before it writes."""
        self.interrupted[cpu].append(self.number(cpu))

    def resume(self, cpu: int) -> None:
        while self.interrupted[cpu]:
            self.write(cpu, self.interrupted[cpu].pop())


class Node:
    """The ingest of a node over several lives."""

    def __init__(self, folder: Path, ring_bytes: int = 4096) -> None:
        self.folder = folder
        self.ring_bytes = ring_bytes
        self.clock = FakeClock()
        self.kernel = Kernel()
        self.lives = 0
        self.stored: Counter[tuple[int, int]] = Counter()
        self.begin()

    def begin(self) -> None:
        self.store = FlowStoreWriter.open(self.folder, CAPACITY, self.clock)
        assert self.store.set_aside == 0
        self.store.begin_source(SOURCE, CPUS)
        self.names = NamesWriter.open(self.folder, self.store.used_refs())
        self.kernel.rings = [FakeRing(cpu, self.ring_bytes) for cpu in range(CPUS)]
        self.drain = Drain(
            self.kernel.rings,
            self.kernel.counters,
            self.store,
            self.names,
            Binder(self.names.intern),
            self.clock,
        )

    def turn(self) -> None:
        self.clock.now_ns += 5_000_000
        before = self.store.head
        self.drain.turn()
        self.check()
        new = FlowStoreReader.open(self.folder).read(before, CAPACITY)[0]
        for cpu, seq in zip(new.column("cpu").tolist(), new.column("seq").tolist(), strict=True):
            self.stored[cpu, seq] += 1

    def check(self) -> None:
        """At any time: what is reported adds up, is never ahead of the kernel, and is in the file."""
        accounts = self.store.accounting()
        for account, emitted in zip(accounts, self.kernel.emitted, strict=True):
            assert account.emitted == account.stored + account.lost <= emitted
        assert sum(account.stored for account in accounts) == self.store.head
        assert FlowStoreReader.open(self.folder).accounting() == accounts

    def end(self) -> None:
        self.names.close()
        self.store.close()
        self.kernel.rings = []

    def kill(self) -> None:
        """What kill -9 leaves is the file as it is: the next life begins on a copy of it."""
        self.lives += 1
        left = self.folder.with_name(f"life-{self.lives}")
        shutil.copytree(self.folder, left)
        self.end()
        self.folder = left
        self.begin()

    def restart(self) -> None:
        self.end()
        self.begin()


STEPS = st.one_of(
    st.tuples(st.just("emit"), st.integers(0, CPUS - 1), st.integers(1, 40)),
    st.tuples(st.just("odd"), st.integers(0, CPUS - 1), st.integers(1, 3)),
    st.tuples(st.sampled_from(["interrupt", "resume"]), st.integers(0, CPUS - 1), st.just(1)),
    st.tuples(st.sampled_from(["turn", "turn", "restart", "kill"]), st.just(0), st.just(0)),
)


@given(st.lists(STEPS, max_size=25))
@settings(max_examples=60, deadline=None)
def test_emitted_is_stored_and_lost_through_anything(tmp_path_factory, steps):
    node = Node(tmp_path_factory.mktemp("node") / "life-0")
    kernel = node.kernel
    for step, cpu, count in steps:
        match step:
            case "emit":
                kernel.emit(cpu, count)
            case "odd":
                kernel.emit(cpu, count, version=2)
            case "interrupt":
                kernel.interrupt(cpu)
            case "resume":
                kernel.resume(cpu)
            case "turn":
                node.turn()
            case "restart":
                node.restart()
            case "kill":
                node.kill()
    for cpu in range(CPUS):
        kernel.resume(cpu)
    node.turn()
    node.turn()
    # The slow, obvious model: count what was seen in the store, number by number.
    for account, emitted in zip(node.store.accounting(), kernel.emitted, strict=True):
        seen = {seq for cpu, seq in node.stored if cpu == account.cpu}
        assert account.stored == len(seen)
        assert account.lost == emitted - len(seen)
        assert account.emitted == emitted
        assert account.lost >= account.malformed
    assert set(node.stored.values()) <= {1}
    node.end()
    shutil.rmtree(node.folder.parent)


@pytest.fixture
def node(tmp_path):
    made = Node(tmp_path / "life-0")
    yield made
    made.end()


def test_killed_between_rows_and_commit_the_rows_are_lost_and_counted_so(node, monkeypatch):
    node.kernel.emit(0, 10)
    node.turn()
    node.kernel.emit(0, 7)

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(node.store, "commit", killed)
    with pytest.raises(KeyboardInterrupt):
        node.drain.turn()
    monkeypatch.undo()
    node.kill()
    node.turn()
    node.kernel.emit(0, 3)
    node.turn()
    node.turn()
    account = node.store.accounting()[0]
    assert (account.emitted, account.stored, account.lost) == (20, 13, 7)


def test_killed_in_the_middle_of_a_large_batch_the_parts_stored_count(tmp_path, monkeypatch):
    node = Node(tmp_path / "life-0", 1 << 15)
    node.kernel.emit(0, 200)
    commit = node.store.commit
    calls = []

    def second_kills(*arguments: object) -> None:
        if calls:
            raise KeyboardInterrupt
        calls.append(commit(*arguments))

    monkeypatch.setattr(node.store, "commit", second_kills)
    with pytest.raises(KeyboardInterrupt):
        node.drain.turn()
    node.kill()
    assert node.store.accounting()[0].stored == node.store.head == CAPACITY // 2
    node.turn()
    node.turn()
    account = node.store.accounting()[0]
    assert (account.emitted, account.stored, account.lost) == (200, 128, 72)
    node.end()


def test_a_batch_larger_than_half_the_store_is_stored_in_parts(tmp_path):
    node = Node(tmp_path / "life-0", 1 << 16)
    node.kernel.emit(0, 400)
    node.kernel.emit(1, 100)
    node.turn()
    node.turn()
    assert node.store.head == 500
    assert [account.stored for account in node.store.accounting()] == [400, 100]
    reader = FlowStoreReader.open(node.folder)
    block, _ = reader.read(0, 500)
    assert (len(block), int(block.records["seq"][-1])) == (CAPACITY, 99)
    assert node.drain.metrics.totals().flows_processed == [("TCP", "Trace", "to-endpoint", "FORWARDED", 500)]
    node.end()


def test_events_between_the_look_at_the_heads_and_the_counters_hide_no_loss(node):
    node.kernel.emit(0, 40)
    node.turn()
    node.turn()
    lost = node.store.accounting()[0].lost
    assert lost > 0
    read = node.kernel.counters.read

    def reading_while_events_come():
        values = read()
        node.kernel.emit(0, 5)
        return values

    node.kernel.counters.read = reading_while_events_come
    for _ in range(4):
        node.turn()
        assert node.store.accounting()[0].lost == lost


def test_a_loss_is_logged_where_it_happened_and_at_most_ten_times_a_second(node, caplog):
    node.kernel.emit(0, 10)
    node.turn()
    node.kernel.emit(0, 100)
    node.turn()
    with caplog.at_level(logging.WARNING):
        node.turn()
    losses = FlowStoreReader.open(node.folder).losses()
    assert [(loss.cpu, loss.count, loss.position) for loss in losses] == [(0, 68, 42)]
    assert losses[0].time_ns == node.clock.wall_ns()
    assert [record.message for record in caplog.records] == ["events lost"]
    for _ in range(4):
        node.kernel.emit(0, 100)
        node.turn()
    assert len(FlowStoreReader.open(node.folder).losses()) == 1
    node.clock.now_ns += drain_module.LOSS_INTERVAL_NS
    node.turn()
    losses = FlowStoreReader.open(node.folder).losses()
    assert len(losses) == 2
    assert sum(loss.count for loss in losses) == node.store.accounting()[0].lost


def test_what_was_lost_before_a_restart_is_logged_after_it(node):
    node.kernel.emit(0, 5)
    node.turn()
    node.end()
    node.kernel.emit(0, 9)
    node.begin()
    node.turn()
    node.turn()
    assert [(loss.count, loss.position) for loss in FlowStoreReader.open(node.folder).losses()] == [(9, 5)]


def test_names_are_in_the_log_before_the_rows_that_use_them(node):
    node.drain._binder.bind(POD_ONE, FlowEndpoint(12, 4242, pod="web-1"))
    node.kernel.emit(0, 1)
    node.turn()
    row = FlowStoreReader.open(node.folder).read(0, 1)[0].records[0]
    names = NamesReader(node.folder)
    assert names.endpoint(int(row["src_ref"])) == FlowEndpoint(12, 4242, pod="web-1")
    assert names.endpoint(int(row["dst_ref"])) == FlowEndpoint(identity=5151)


def test_a_turn_without_events_writes_nothing(node):
    node.kernel.emit(0, 1)
    node.turn()
    node.turn()
    generation = node.store._commit.generation
    node.turn()
    assert node.store._commit.generation == generation


def test_stats_say_everything_once_counted(node):
    node.kernel.emit(1, 3)
    node.turn()
    node.turn()
    node.kernel.counters.values[1, 2] = 11
    node.turn()
    stats = node.drain.stats(first=True)
    assert stats["op"] == "stats"
    assert stats["cpus"][1] == {
        "cpu": 1,
        "emitted": 3,
        "stored": 3,
        "lost": 0,
        "failed": 0,
        "suppressed": 11,
        "malformed": 0,
    }
    assert stats["metrics"] == {
        "flows_processed": [("TCP", "Trace", "to-endpoint", "FORWARDED", 3)],
        "drop": [],
        "tcp": [("SYN", "IPv4", 3)],
        "icmp": [],
        "port_distribution": [("TCP", "80", 3)],
    }
    assert stats["edges"] == 1
    assert stats["store"]["head"] == 3
    assert stats["store"]["oldest_time_ns"] == 1_700_000_000_000_000_001
    assert stats["first"] is True


def test_an_empty_store_has_stats(node):
    assert node.drain.stats(first=False)["store"]["oldest_time_ns"] == 0
