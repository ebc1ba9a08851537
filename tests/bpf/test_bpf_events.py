"""Events as such: aggregation, sequence numbers, what is counted when nothing can be said."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from datapath import progtest
from datapath.abi.counters import EventStats
from datapath.loader import BpfObject
from palomar.verdict import ObservationPoint
from tests.kit.bpfnode import OBJECTS, TC_ACT_OK, BpfNode
from tests.kit.packets import POD_ONE, WORLD, Packet, between

pytestmark = pytest.mark.bpf

NONE, LOW, MEDIUM, MAXIMUM = range(4)
AGGREGATION, INTERVAL_NS, EVENTS_OFF = 16, 17, 18
OUT, IN = "out", "in"


def total(node: BpfNode) -> EventStats:
    """The counters of all CPUs."""
    rows = node.maps.event_stats()
    return EventStats(
        -1, sum(r.emitted for r in rows), sum(r.failed for r in rows), sum(r.suppressed for r in rows)
    )


def step(node: BpfNode, direction: str, flags: str) -> list[str]:
    """Run one packet of a connection to the world and name the trace points that spoke."""
    if direction == OUT:
        outcome = node.send(POD_ONE, between(POD_ONE, WORLD).tcp(40000, 80, flags))
    else:
        back = between(WORLD, POD_ONE).macs(POD_ONE.gateway_mac, POD_ONE.mac)
        outcome = node.receive(POD_ONE, back.tcp(80, 40000, flags))
    return [ObservationPoint(int(event["subtype"])).display for event in outcome.traces]


CONVERSATION = [
    (OUT, "S"),
    (IN, "SA"),
    (OUT, "A"),
    (OUT, "PA"),
    (IN, "A"),
    (OUT, "PA"),
    (IN, "PA"),
    (OUT, "A"),
    (OUT, "FA"),
    (IN, "FA"),
    (OUT, "A"),
]
SPEAKS = {
    NONE: [1] * 11,
    LOW: [1] * 11,
    #       S SA A PA A PA PA A FA FA A
    MEDIUM: [1, 1, 1, 1, 0, 0, 1, 0, 1, 1, 0],
    MAXIMUM: [1, 1, 0, 0, 0, 0, 0, 0, 1, 1, 0],
}


@pytest.mark.parametrize("level", SPEAKS)
def test_level_decides_which_packets_of_a_connection_are_told(node: BpfNode, level: int) -> None:
    """Medium: first packets and new TCP flags; maximum: of the flags SYN, FIN and RST only."""
    node.maps.runtime_config.set(AGGREGATION, level)
    told = []
    for direction, flags in CONVERSATION:
        points = step(node, direction, flags)
        told.append(int(any(point.startswith("to-") for point in points)))
        assert ("from-endpoint" in points) == (level == NONE and direction == OUT)
    assert told == SPEAKS[level]


def test_reset_is_always_told(node: BpfNode) -> None:
    """A close is never lost to aggregation."""
    node.maps.runtime_config.set(AGGREGATION, MAXIMUM)
    step(node, OUT, "S")
    step(node, IN, "SA")
    assert step(node, IN, "R") == ["to-endpoint"]


def test_living_flow_is_told_once_per_interval(node: BpfNode) -> None:
    """With its counters so far; the interval is configurable, in whole seconds."""
    node.maps.runtime_config.set(AGGREGATION, MEDIUM)
    node.maps.runtime_config.set(INTERVAL_NS, 1_000_000_000)
    packet = between(POD_ONE, WORLD).udp(5000, 53)
    assert len(node.send(POD_ONE, packet).traces) == 1
    deadline = time.monotonic() + 5
    sent = 1
    told: list[Any] = []
    while len(told) < 2 and time.monotonic() < deadline:
        told += node.send(POD_ONE, packet).traces
        sent += 1
    assert len(told) == 2
    assert told[-1]["packets"] == sent
    assert told[-1]["bytes"] == sent * len(packet.bytes())
    assert 900_000_000 < int(told[1]["time_ns"]) - int(told[0]["time_ns"]) < 2_500_000_000


def test_what_aggregation_holds_back_is_counted(node: BpfNode) -> None:
    """One from- and one to- point of the second packet."""
    node.maps.runtime_config.set(AGGREGATION, MEDIUM)
    packet = between(POD_ONE, WORLD).udp(5000, 53)
    node.send(POD_ONE, packet)
    before = total(node)
    node.send(POD_ONE, packet)
    after = total(node)
    assert (after.emitted - before.emitted, after.suppressed - before.suppressed) == (0, 2)


def test_drops_and_verdicts_are_told_at_every_level(node: BpfNode) -> None:
    """Aggregation is about traces only."""
    node.maps.runtime_config.set(AGGREGATION, MAXIMUM)
    node.clear_policy(POD_ONE)
    for _ in range(3):
        outcome = node.send(POD_ONE, between(POD_ONE, WORLD).udp(5000, 53))
        assert len(outcome.verdicts) == 1
        assert outcome.drop["drop_reason"] == 133


def test_events_switched_off_count_as_suppressed(node: BpfNode) -> None:
    """The packet goes its way; nothing spends a sequence number."""
    node.maps.runtime_config.set(EVENTS_OFF, 1)
    before = total(node)
    outcome = node.send(POD_ONE, between(POD_ONE, WORLD).udp(5000, 53))
    after = total(node)
    assert (outcome.action, outcome.events) == (TC_ACT_OK, [])
    assert (after.emitted - before.emitted, after.suppressed - before.suppressed) == (0, 3)


def test_sequence_numbers_have_no_holes(node: BpfNode) -> None:
    """Per CPU: each event has the number that the counter had before it."""
    before = {row.cpu: row.emitted for row in node.maps.event_stats()}
    events = []
    for port in range(50):
        events += node.send(POD_ONE, between(POD_ONE, WORLD).udp(6000 + port, 53)).events
    after = {row.cpu: row.emitted for row in node.maps.event_stats()}
    expected = sorted(number for cpu, start in before.items() for number in range(start, after[cpu]))
    assert sorted(int(event["seq"]) for event in events) == expected
    assert len(events) == 150


def test_event_nobody_takes_is_counted_as_failed(node: BpfNode) -> None:
    """It has spent its number: the reader sees the hole."""
    before = total(node)
    node.rings.detach()
    try:
        assert node.send(POD_ONE, between(POD_ONE, WORLD).udp(5000, 53)).events == []
    finally:
        node.rings.attach()
    after = total(node)
    assert (after.emitted - before.emitted, after.failed - before.failed) == (3, 3)


def test_full_ring_counts_as_failed_and_the_kernel_says_lost(node: BpfNode, bench: BpfObject) -> None:
    """emitted = read + failed over a flood that nobody drains."""
    node.rings.drain()
    before, lost = total(node), node.rings.lost
    run_bench(bench, 3000)
    read = len(node.rings.drain())
    run_bench(bench, 1)
    read += len(node.rings.drain())
    after = total(node)
    emitted, failed = after.emitted - before.emitted, after.failed - before.failed
    assert emitted == 3001
    assert failed == emitted - read > 0
    assert node.rings.lost - lost <= failed


@pytest.fixture
def bench(node: BpfNode) -> Iterator[BpfObject]:
    """bench_emit.o over the node's maps."""
    loaded = open_bench(node, {})
    yield loaded
    loaded.close()


def open_bench(node: BpfNode, constants: dict[str, int | bytes]) -> BpfObject:
    """Load bench_emit.o with constants."""
    loaded = BpfObject(Path(OBJECTS / "bench_emit.o"))
    for name in loaded.map_names:
        loaded.set_pin(name, node.globals_dir / name)
    loaded.set_constants(constants)
    loaded.load()
    return loaded


def run_bench(bench: BpfObject, repeat: int) -> Packet:
    """Run the event source `repeat` times."""
    packet = between(POD_ONE, WORLD).udp(1, 2)
    progtest.run(bench.program_fd("bench_emit"), packet.bytes(), None, repeat)
    return packet


def test_event_source_of_the_benchmarks_sends_what_it_is_told(node: BpfNode) -> None:
    """`bench_events` per run, identities and ports over 2^`bench_vary` values."""
    source = int.from_bytes(POD_ONE.ipv4.packed, "little")
    bench = open_bench(node, {"bench_events": 100, "bench_vary": 3, "bench_src_ipv4": source})
    try:
        run_bench(bench, 2)
    finally:
        bench.close()
    events = node.rings.drain()
    assert len(events) == 200
    assert {bytes(event["saddr"][:4]) for event in events} == {POD_ONE.ipv4.packed}
    assert len({int(event["src_identity"]) for event in events}) == 8
    assert {int(event["sport"]) for event in events} == set(range(1024, 1032))
