"""What the event path costs: CPU nanoseconds per event from the kernel's emit to counted rows in the store.

`run(repeats)` for `make bench`; `python -m tests.bench.ingest [--json FILE]`, as root. In each repeat, in the
same run: what the kernel spends to emit an event (bench_emit through BPF_PROG_TEST_RUN, the emitting thread's
CPU time), what drain + store cost, and what drain + order + store + metrics + edges cost (all CPU time of the
draining thread). Then 200,000 events/s for 30 s, and a flood into small rings: every event stored or lost.
"""

import argparse
import json
import multiprocessing
import os
import statistics
import tempfile
import time
from dataclasses import asdict, dataclass
from ipaddress import IPv4Address
from pathlib import Path

from datapath import bpffs, progtest
from datapath.loader import BpfObject, u32_be
from datapath.perf import RING_BYTES, EventCounters, PerfRings
from hubble.binder import Binder
from hubble.drain import Drain
from hubble.flowendpoint import FlowEndpoint
from hubble.ingest import IDLE_S, pause_after
from hubble.names import NamesWriter
from hubble.storewriter import FlowStoreWriter
from palomar.clock import SystemClock

OBJECT = Path(__file__).resolve().parents[2] / "datapath" / "objects" / "bench_emit.o"
BATCH = 500
CAPACITY = 1 << 20
SECONDS, STEADY_SECONDS, FLOOD_SECONDS = 3.0, 30.0, 2.0
DRAIN_STORE_LIMIT = 0.6
ALL_LIMIT_NS = 400.0


@dataclass(frozen=True)
class Emitted:
    """What an emitter did."""

    events: int
    cpu_ns: float
    """Of the emitting thread, per event."""


@dataclass(frozen=True)
class Result:
    """One repeat at one rate."""

    offered_per_s: int
    emitters: int
    events: int
    lost: int
    unaccounted: int
    """Kernel's count minus stored minus lost, summed over CPUs without sign."""
    emit_ns: float
    drain_store_ns: float
    """Rings to rows, ordered by time where there is more than one CPU."""
    metrics_edges_ns: float
    total_ns: float
    """All CPU time of the draining thread, waiting loop included."""

    @property
    def ratio(self) -> float:
        return self.drain_store_ns / self.emit_ns


def load(root: Path, vary: int) -> BpfObject:
    emitter = BpfObject(OBJECT, root)
    emitter.set_constants(
        {
            "bench_events": BATCH,
            "bench_vary": vary,
            "bench_src_ipv4": u32_be(int(IPv4Address("10.1.0.1"))),
            "bench_dst_ipv4": u32_be(int(IPv4Address("10.1.0.2"))),
        }
    )
    emitter.load()
    return emitter


def emit(root: str, cpu: int, vary: int, per_s: int, seconds: float, start, results) -> None:
    """Child process: send events at a rate from one CPU."""
    os.sched_setaffinity(0, {cpu})
    emitter = load(Path(root), vary)
    program = emitter.program_fd("bench_emit")
    packet = bytes(64)
    start.wait()
    sent, spent = 0, 0
    begin = time.monotonic()
    while (now := time.monotonic() - begin) < seconds:
        due = int(now * per_s) - sent if per_s else 20 * BATCH
        if due < BATCH:
            time.sleep(0.0005)
            continue
        before = time.thread_time_ns()
        progtest.run(program, packet, repeat=due // BATCH)
        spent += time.thread_time_ns() - before
        sent += due // BATCH * BATCH
    results.put(Emitted(sent, spent / max(sent, 1)))


class TimedDrain(Drain):
    """A drain that knows how long it counted."""

    counting_ns = 0

    def _count_blocks(self, least: int) -> None:
        before = time.thread_time_ns()
        super()._count_blocks(least)
        self.counting_ns += time.thread_time_ns() - before


def measure(per_s: int, cpus: list[int], seconds: float, vary: int, ring_bytes: int = RING_BYTES) -> Result:
    root = Path(f"/sys/fs/bpf/plt-{os.getpid()}-bench")
    bpffs.ensure_mounted(root)
    clock = SystemClock()
    context = multiprocessing.get_context("spawn")
    start, results = context.Event(), context.Queue()
    try:
        pins = load(root, vary)
        counters = EventCounters(root / "palomar_event_stats")
        with (
            tempfile.TemporaryDirectory() as folder,
            PerfRings.open(root / "cilium_events", ring_bytes) as rings,
        ):
            store = FlowStoreWriter.open(Path(folder), CAPACITY, clock)
            store.begin_source(counters.source_id(), counters.cpus)
            names = NamesWriter.open(Path(folder))
            binder = Binder(names.intern)
            for host in range(1, 200):
                binder.bind(IPv4Address(f"10.1.0.{host}"), FlowEndpoint(host, 1000 + host, pod=f"pod-{host}"))
            # Rows of the first lap pay for fresh pages of the file; a running node has them.
            warm(store)
            drain = TimedDrain(rings.rings, counters, store, names, binder, clock)
            children = [
                context.Process(
                    target=emit, args=(str(root), cpu, vary, per_s // len(cpus), seconds, start, results)
                )
                for cpu in cpus
            ]
            for child in children:
                child.start()
            time.sleep(2.0)
            start.set()
            head = store.head
            begin = time.thread_time_ns()
            while any(child.is_alive() for child in children) and results.qsize() < len(children):
                pause_s = pause_after(drain.turn())
                rings.epoll.poll(IDLE_S) if pause_s is None else time.sleep(pause_s)
            drain.turn()
            drain.turn()
            drain.count_rest()
            spent = time.thread_time_ns() - begin
            emitted = [results.get(timeout=10) for _ in children]
            for child in children:
                child.join()
            accounts = store.accounting()
            kernel = counters.read().tolist()
            unaccounted = sum(
                abs(tried - account.stored - account.lost)
                for account, (tried, _, _) in zip(accounts, kernel, strict=True)
            )
            rows = store.head - head
            lost = sum(account.lost for account in accounts)
            names.close()
            store.close()
            pins.close()
        return Result(
            offered_per_s=per_s,
            emitters=len(cpus),
            events=rows,
            lost=lost,
            unaccounted=unaccounted,
            emit_ns=statistics.mean(item.cpu_ns for item in emitted),
            drain_store_ns=(spent - drain.counting_ns) / rows,
            metrics_edges_ns=drain.counting_ns / rows,
            total_ns=spent / rows,
        )
    finally:
        bpffs.remove_tree(root)


def warm(store: FlowStoreWriter) -> None:
    for chunk in store.reserve(store.max_batch) + store.reserve(store.max_batch):
        chunk.records[:] = chunk.records[0]
        chunk.fill_columns()
    store.commit(store.max_batch)
    for chunk in store.reserve(store.max_batch):
        chunk.records[:] = chunk.records[0]
        chunk.fill_columns()
    store.commit(store.max_batch)


def show(title: str, result: Result) -> None:
    print(
        f"{title:<28} emit {result.emit_ns:5.1f}  drain+store {result.drain_store_ns:5.1f}"
        f" (x{result.ratio:.2f})  metrics+edges {result.metrics_edges_ns:5.1f}"
        f"  all {result.total_ns:5.1f} ns/event  {result.events} stored, {result.lost} lost"
    )


def collect(repeats: int) -> dict[str, list[Result]]:
    """Run everything, printing as it goes."""
    cpus = sorted(os.sched_getaffinity(0))[:2]
    results: dict[str, list[Result]] = {"single": [], "ordered": [], "steady": [], "flood": []}

    def add(kind: str, title: str, result: Result) -> None:
        show(title, result)
        results[kind].append(result)

    for _ in range(repeats):
        add("single", "1 M/s from one CPU", measure(1_000_000, cpus[:1], SECONDS, 4))
        add("ordered", f"1 M/s from {len(cpus)} CPUs", measure(1_000_000, cpus, SECONDS, 4))
    add("steady", "200 k/s", measure(200_000, cpus, STEADY_SECONDS, 4))
    add("flood", "flood into 256 KiB rings", measure(0, cpus, FLOOD_SECONDS, 8, ring_bytes=1 << 18))
    return results


def rows_of(results: dict[str, list[Result]]) -> list[dict[str, object]]:
    """One row a figure, as `tests.bench.main` prints them."""
    single, ordered = results["single"], results["ordered"]
    steady, flood = results["steady"][0], results["flood"][0]
    return [
        {
            "what": "drain + store, against the kernel's emit, 1 M events/s",
            "ours": statistics.median(result.drain_store_ns for result in single),
            "baseline": statistics.median(result.emit_ns for result in single),
            "unit": "ns CPU/event",
            "ratio": statistics.median(result.ratio for result in single),
            "limit": DRAIN_STORE_LIMIT,
            "limit_of": "ratio",
        },
        {
            "what": "metrics + edges, 1 M events/s",
            "ours": statistics.median(result.metrics_edges_ns for result in ordered),
            "unit": "ns CPU/event",
        },
        {
            "what": "drain + order + store + metrics + edges, 1 M events/s from all CPUs",
            "ours": statistics.median(result.total_ns for result in ordered),
            "unit": "ns CPU/event",
            "limit": ALL_LIMIT_NS,
        },
        {
            "what": f"lost at 200 k events/s for {STEADY_SECONDS:.0f} s",
            "ours": steady.lost,
            "unit": "events",
            "limit": 0,
        },
        {
            "what": f"neither stored nor lost, of {flood.events + flood.lost:,} in a flood with losses",
            "ours": flood.unaccounted,
            "unit": "events",
            "limit": 0,
        },
    ]


def run(repeats: int) -> list[dict[str, object]]:
    """Measure everything; one row a figure."""
    return rows_of(collect(repeats))


def main() -> None:
    """Print the figures, and write them with all single results as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    results = collect(arguments.repeats)
    rows = rows_of(results)
    for row in rows:
        print(json.dumps(row))
    if arguments.json:
        every = {kind: [asdict(result) for result in found] for kind, found in results.items()}
        arguments.json.write_text(json.dumps({"rows": rows, "results": every}, indent=1) + "\n")


if __name__ == "__main__":
    main()
