"""What telemetry costs: flow metrics and log records in CPU ns per flow, and what the ingest feels of the
export.

`make bench BENCH=telemetry` or `python tests/bench/telemetry.py`. Pure parts are measured in this
process by CPU time; the last row writes flows into a store as fast as it can, with and without the telemetry
process exporting them over OTLP to a receiver process, in short slices that alternate.
"""

import asyncio
import itertools
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import IPv4Address
from operator import truediv
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "proto"))

import numpy as np
from google.protobuf.message import Message
from opentelemetry._logs import LogRecord, SeverityNumber
from opentelemetry.exporter.otlp.proto.common._log_encoder import encode_logs
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.sdk._logs import ReadableLogRecord
from opentelemetry.sdk.util.instrumentation import InstrumentationScope

from datapath.events import STORED_DTYPE
from hubble.exporter.records import RecordBuilder
from hubble.exporter.requests import Origin, RequestEncoder
from hubble.flowendpoint import FlowEndpoint, Workload
from hubble.metrics.registry import FlowMetricsRegistry
from hubble.metrics.spec import parse
from hubble.names import NamesWriter
from hubble.storefile import HOT_COLUMNS
from hubble.storewriter import FlowStoreWriter
from lab.otlp import OtlpReceiver, Received, log_entries
from palomar.clock import SystemClock
from tests.kit.flows import FakeNames, MemoryRows
from tests.kit.wait import eventually

ROOT = Path(__file__).resolve().parents[2]
BLOCK, BLOCKS, PODS, EDGES = 8192, 16, 200, 600
METRICS_LIMIT_NS = 100.0
THROUGHPUT_TARGET = 0.95
CAPACITY = 1 << 18
SLICE_S = 0.2
PAIRS = 20
"""Slices with and without export in one repeat."""
SETTINGS = {
    "all, without contexts": "flow drop tcp dns icmp port-distribution flows-to-world policy",
    "flow by pod, drop by namespace, the rest plain": (
        "flow:sourceContext=pod|identity;destinationContext=pod|identity "
        "drop:labelsContext=source_namespace,destination_namespace tcp dns icmp port-distribution policy"
    ),
    "all by workload": " ".join(
        f"{name}:sourceContext=workload|reserved-identity;destinationContext=workload|reserved-identity"
        for name in ("flow", "drop", "tcp", "icmp", "port-distribution", "flows-to-world", "policy")
    ),
}
RECEIVE = "--receive"
ORIGIN = Origin("bench", "default", "palomar bench")


class Block:
    """Rows as the store hands them out."""

    def __init__(self, records: np.ndarray) -> None:
        self.records = records
        self.columns = {name: np.ascontiguousarray(records[name]) for name in HOT_COLUMNS}

    def column(self, name: str) -> np.ndarray:
        return self.records[name]


def cast() -> FakeNames:
    """200 pods of 40 workloads in 5 namespaces, and the world."""
    endpoints = {
        n: FlowEndpoint(
            n,
            1000 + n,
            "default",
            f"ns-{n % 5}",
            f"web-{n}",
            (f"k8s:app=web-{n % 40}", "k8s:io.kubernetes.pod.namespace=ns"),
            (Workload(f"web-{n % 40}", "Deployment"),),
        )
        for n in range(1, PODS + 1)
    }
    endpoints[PODS + 1] = FlowEndpoint(identity=2, labels=("reserved:world",))
    return FakeNames(endpoints=endpoints)


def traffic(count: int, seed: int) -> np.ndarray:
    """Rows of 600 connections between them: mostly forwarded TCP, a twentieth dropped."""
    rng = np.random.default_rng(seed)
    edges = np.random.default_rng(1)
    source = edges.integers(1, PODS + 1, EDGES)
    destination = edges.integers(1, PODS + 2, EDGES)
    port = edges.choice([53, 80, 443, 5432, 6379, 8080], EDGES)
    edge = rng.integers(0, EDGES, count)
    rows = np.zeros(count, dtype=STORED_DTYPE)
    rows["version"] = 1
    rows["type"] = rng.choice([1, 4, 5], count, p=[0.05, 0.8, 0.15])
    rows["verdict"] = np.where(rows["type"] == 1, 2, 1)
    rows["drop_reason"] = np.where(rows["type"] == 1, 133, 0)
    rows["subtype"] = np.where(rows["type"] == 4, rng.choice([0, 3, 4], count), 0)
    rows["protocol"] = np.where(port[edge] == 53, 17, 6)
    rows["l4_flags"] = np.where(port[edge] == 53, 0, rng.choice([2, 18, 16, 24, 17], count))
    rows["trace_reason"] = rng.choice([0, 1, 2], count)
    for side, number in (("src", source[edge]), ("dst", destination[edge])):
        rows[f"{side}_ref"] = number
        rows[f"{side}_identity"] = np.where(number == PODS + 1, 2, 1000 + number)
        rows["saddr" if side == "src" else "daddr"][:, :4] = np.stack(
            [np.full(count, 10), np.zeros(count), number // 250, number % 250], axis=1
        )
    rows["direction"] = rng.integers(1, 3, count)
    rows["dport"] = port[edge]
    rows["sport"] = 32768 + rng.integers(0, 28000, count)
    rows["time_ns"] = 1_795_248_001_000_000_000 + np.arange(count)
    rows["packets"], rows["bytes"], rows["length"] = 5, 700, 74
    return rows


def cpu_ns(work: Callable[[], object], events: int) -> float:
    begin = time.thread_time_ns()
    work()
    return (time.thread_time_ns() - begin) / events


def bench_metrics(repeats: int) -> Iterator[dict[str, Any]]:
    for size in (BLOCK, 8 * BLOCK):
        blocks = [Block(traffic(size, seed)) for seed in range(BLOCKS * BLOCK // size)]
        for title, setting in SETTINGS.items():
            registry = FlowMetricsRegistry(parse(setting), cast())

            def count(registry: FlowMetricsRegistry = registry, blocks: list[Block] = blocks) -> None:
                for block in blocks:
                    registry.count(block, 0)

            count()
            ours = statistics.median(cpu_ns(count, BLOCKS * BLOCK) for _ in range(max(3, repeats)))
            yield {
                "what": f"flow metrics {title}, blocks of {size}",
                "ours": ours,
                "unit": "ns/flow",
                "limit": METRICS_LIMIT_NS,
            }


def bench_records(repeats: int) -> dict[str, Any]:
    """Our log records against the SDK's objects and encoder with the same content."""
    block = MemoryRows(traffic(BLOCK, 1))
    builder, encoder = RecordBuilder(cast(), 1), RequestEncoder(ORIGIN)
    everything = np.arange(BLOCK)

    def build() -> bytes:
        return encoder.logs(builder.records(block, everything, 1))

    few = builder.records(block, np.arange(512), 1)
    entries = list(log_entries(ExportLogsServiceRequest.FromString(encoder.logs(few))))
    scope, resource = InstrumentationScope("bench"), ORIGIN.resource

    def build_by_sdk() -> bytes:
        records = [
            ReadableLogRecord(
                LogRecord(
                    timestamp=entry["time_ns"],
                    severity_number=SeverityNumber(entry["severity_number"]),
                    severity_text=entry["severity"],
                    body=entry["body"],
                    attributes=entry["attributes"],
                    event_name=entry["event"],
                ),
                resource,
                scope,
            )
            for entry in entries
        ]
        return encode_logs(records).SerializeToString()

    build()
    ours, theirs = [], []
    for _ in range(repeats):
        ours.append(cpu_ns(build, BLOCK))
        theirs.append(cpu_ns(build_by_sdk, len(entries)))
    mine, sdk = statistics.median(ours), statistics.median(theirs)
    return {
        "what": "OTLP log record, against the SDK's (times faster)",
        "ours": mine,
        "baseline": sdk,
        "ratio": sdk / mine,
        "unit": "ns/flow",
        "target": 5,
    }


class Totals(Received):
    """How much came and nothing else: writing it down would cost four times what the export does."""

    def take(self, signal_name: str, request: Message) -> None:
        if isinstance(request, ExportLogsServiceRequest):
            self.records[signal_name] += sum(
                len(scope.log_records) for resource in request.resource_logs for scope in resource.scope_logs
            )


async def receive() -> None:
    """Be the receiver until terminated."""
    receiver = OtlpReceiver(Totals())
    await receiver.start("127.0.0.1:0", "127.0.0.1:0")
    print(json.dumps({"grpc_port": receiver.grpc_port, "http_port": receiver.http_port}), flush=True)
    await asyncio.Event().wait()


@dataclass(frozen=True, slots=True)
class Export:
    """A receiver and a telemetry process over a store."""

    telemetry: subprocess.Popen[bytes]
    receiver: subprocess.Popen[bytes]
    counts_url: str

    def received(self) -> int:
        """Log records that came."""
        with urllib.request.urlopen(self.counts_url, timeout=10) as answer:
            return int(json.load(answer)["logs"])

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """Neither of the two runs in here."""
        for process in (self.telemetry, self.receiver):
            process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            for process in (self.receiver, self.telemetry):
                process.send_signal(signal.SIGCONT)


@contextmanager
def exporting(state_dir: Path) -> Iterator[Export]:
    """Start both; return when the first flows have arrived."""
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'proto'}"}
    receiver = subprocess.Popen(
        ["nice", "-n", "19", sys.executable, "-m", "tests.bench.telemetry", RECEIVE],
        stdout=subprocess.PIPE,
        env=environment,
    )
    assert receiver.stdout is not None
    ports = json.loads(receiver.stdout.readline())
    settings = {
        "state_dir": str(state_dir),
        "node_name": "bench",
        "metrics": SETTINGS["flow by pod, drop by namespace, the rest plain"],
        "metrics_listen": "",
        # As far behind as the whole store, it would find nearly every row overwritten and have nothing to do.
        "otlp": {"endpoint": f"http://127.0.0.1:{ports['grpc_port']}", "catch_up_flows": CAPACITY // 4},
        "log_level": "ERROR",
    }
    telemetry = subprocess.Popen(
        [sys.executable, "-m", "hubble.telemetry", "--config-json", json.dumps(settings)], env=environment
    )
    export = Export(telemetry, receiver, f"http://127.0.0.1:{ports['http_port']}/counts")
    try:
        eventually(export.received, 20)
        yield export
    finally:
        for process in (telemetry, receiver):
            process.terminate()
            process.wait(10)
        receiver.stdout.close()


def write_rate(writer: FlowStoreWriter, blocks: list[np.ndarray]) -> float:
    """CPU nanoseconds of the writer per row, at full speed for SLICE_S."""
    rows, begin = 0, time.thread_time_ns()
    end = time.monotonic() + SLICE_S
    for block in itertools.cycle(blocks):
        writer.append(block)
        rows += len(block)
        if time.monotonic() > end:
            return (time.thread_time_ns() - begin) / rows
    raise AssertionError


def bench_throughput(repeats: int) -> dict[str, Any]:
    """A writer at full speed with an exporter behind it and with the same exporter stopped.

    In short slices that alternate, and compared pair by pair: what a row costs the writer alone
    differs by more than the mark from one second to the next on a machine with neighbours.
    """
    blocks = [traffic(BLOCK, seed) for seed in range(4)]
    alone: list[float] = []
    watched: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        writer = FlowStoreWriter.open(Path(folder) / "flows", CAPACITY, SystemClock())
        names = NamesWriter.open(Path(folder) / "flows")
        for ref, endpoint in sorted(cast().endpoints.items()):
            assert names.intern(endpoint, str(IPv4Address(ref))) == ref
        names.flush()
        for _ in range(2 * len(blocks) * 8):
            writer.append(blocks[0])
        with exporting(Path(folder)) as export:
            before, begin_s = export.received(), time.monotonic()
            for pair in range(PAIRS * repeats):
                if pair % 2:
                    watched.append(write_rate(writer, blocks))
                with export.stopped():
                    alone.append(write_rate(writer, blocks))
                if not pair % 2:
                    watched.append(write_rate(writer, blocks))
            rate = (export.received() - before) / (time.monotonic() - begin_s)
        names.close()
        writer.close()
    return {
        "what": f"store writer with metrics and OTLP export ({rate:,.0f} flows/s) beside it, against alone",
        "ours": statistics.median(watched),
        "baseline": statistics.median(alone),
        "ratio": statistics.median(map(truediv, alone, watched)),
        "unit": "CPU ns/flow",
        "target": THROUGHPUT_TARGET,
    }


def run(repeats: int) -> list[dict[str, Any]]:
    """All rows."""
    return [*bench_metrics(repeats), bench_records(repeats), bench_throughput(repeats)]


if __name__ == "__main__":
    if sys.argv[1:] == [RECEIVE]:
        asyncio.run(receive())
    for row in run(3):
        print(json.dumps(row))
