"""What the flow server costs: filtering a stored row, building a flow, streaming it to a client, to many.

`python -m tests.bench.flows` prints the rows. CPU time of this process, or where a server process is
asked, wall time of the answer; the traffic is 16 events a connection between a few hundred addresses.
"""

import asyncio
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import numpy.typing as npt

from hubble.filterfields.predicates import View
from hubble.filters import compile_filters
from hubble.flowbatch import Batch, unpack_kind
from hubble.flowbuilder import FlowBuilder
from hubble.flowendpoint import resolve
from hubble.flowmessages import endpoint_message, ip_message, kind_flow, l4_message
from hubble.names import NamesWriter
from hubble.observingnode import ObservingNode
from hubble.server import ServerConfig
from hubble.storereader import FlowStoreReader
from hubble.storewriter import FlowStoreWriter
from palomar.clock import SystemClock
from palomar_pb.flow import flow_pb2
from palomar_pb.flow.flow_pb2 import FlowFilter
from palomar_pb.observer import observer_pb2_grpc
from palomar_pb.observer.observer_pb2 import GetFlowsRequest
from palomar_pb.palomar.v1 import batch_pb2_grpc
from tests.bench import fanout
from tests.kit.flows import SYN, FakeNames, MemoryRows, stored
from tests.kit.flowserver import write_names
from tests.kit.wait import eventually

STORED_ROWS = 1 << 20
BUILT_FLOWS = 20_480
STREAMED_FLOWS = 20_000
BATCH = 512
ROOT = Path(__file__).resolve().parents[2]


def traffic(count: int) -> npt.NDArray[np.void]:
    """`count` rows, sixteen for each connection."""
    random = np.random.default_rng(7)
    records = np.repeat(stored(SYN), count)
    connections = -(-count // 16)

    def per_connection(values: Any) -> Any:
        return np.repeat(values, 16)[:count]

    records["sport"] = per_connection(random.integers(32768, 60999, connections))
    records["saddr"][:, 3] = per_connection(random.integers(1, 255, connections))
    records["src_ref"] = per_connection(random.integers(1, 4, connections))
    records["dst_ref"] = per_connection(random.integers(0, 4, connections))
    records["type"] = random.choice([4, 4, 4, 4, 4, 5, 1], count)
    records["verdict"] = np.where(records["type"] == 1, 2, 1)
    records["drop_reason"] = np.where(records["type"] == 1, 133, 0)
    records["policy_cookie"] = np.where(records["type"] == 4, 0, 77)
    records["l4_flags"] = random.choice([2, 16, 18, 24, 17], count)
    records["packets"] = random.integers(1, 100_000, count)
    records["bytes"] = random.integers(1, 100_000_000, count)
    records["seq"] = np.arange(count)
    records["time_ns"] = time.time_ns() - (count - np.arange(count, dtype=np.uint64)) * 100_000
    return records


def cpu_s(work: Callable[[], object]) -> float:
    begin = time.process_time()
    work()
    return time.process_time() - begin


def naive_flow(batch: Batch, row: int, names: FakeNames, node: ObservingNode) -> bytes:
    """A flow by setting message fields, without any cache."""
    record = batch.column("time_ns"), batch.column("saddr"), batch.column("daddr")
    flow = kind_flow(unpack_kind(int(batch.kinds[row])), node)
    flow.time.FromNanoseconds(int(record[0][row]))
    flow.IP.CopyFrom(ip_message(4, record[1][row].tobytes(), record[2][row].tobytes()))
    numbers = [int(batch.column(n)[row]) for n in ("protocol", "sport", "dport", "l4_flags", "icmp_code")]
    flow.l4.CopyFrom(l4_message(*numbers))
    for side, target in (("src", flow.source), ("dst", flow.destination)):
        reference, identity = (
            int(batch.column(f"{side}_ref")[row]),
            int(batch.column(f"{side}_identity")[row]),
        )
        target.CopyFrom(endpoint_message(resolve(names, reference, identity)[0]))
    return flow.SerializeToString()


def build_row(repeats: int) -> dict[str, Any]:
    node, names = ObservingNode("default/bench"), FakeNames()
    rows = MemoryRows(traffic(BUILT_FLOWS))

    def ours() -> None:
        builder = FlowBuilder(node, names)
        for begin in range(0, BUILT_FLOWS, BATCH):
            builder.responses(rows, np.arange(begin, begin + BATCH))

    def naive() -> None:
        for row in range(400):
            naive_flow(Batch(rows, np.array([row])), 0, names, node)

    mine, baseline = [], []
    for _ in range(repeats):
        mine.append(cpu_s(ours) / BUILT_FLOWS * 1e6)
        baseline.append(cpu_s(naive) / 400 * 1e6)
    return row("build one flow", mine, "us CPU", limit=7, baseline=baseline)


def row(
    what: str,
    ours: list[float],
    unit: str,
    *,
    limit: float | None = None,
    baseline: list[float] | None = None,
) -> dict[str, Any]:
    """A line of the table: medians."""
    result: dict[str, Any] = {"what": what, "ours": statistics.median(ours), "unit": unit}
    if baseline is not None:
        result["baseline"] = statistics.median(baseline)
        result["ratio"] = result["ours"] / result["baseline"]
    if limit is not None:
        result["limit"] = limit
    return result


FILTERS = {
    "verdict": (FlowFilter(verdict=[flow_pb2.DROPPED]), 4),
    "namespace": (FlowFilter(source_pod=["kube-system/"]), 8),
    "label": (FlowFilter(destination_label=["app in (server, client)"]), 15),
    "CIDR": (FlowFilter(source_ip=["10.0.0.0/25"]), 250),
}


def filter_rows(reader: FlowStoreReader, repeats: int) -> list[dict[str, Any]]:
    """Reading hot columns and asking one filter, over the whole store."""
    found = []
    for name, (item, limit) in FILTERS.items():
        matcher = compile_filters([item], [], ObservingNode("default/bench"))

        def scan(matcher: Any = matcher) -> None:
            position = reader.oldest
            while position < reader.head:
                block, _ = reader.read(position, 65536)
                matcher.mask(View(block, FakeNames()))
                position += len(block)

        costs = [cpu_s(scan) / STORED_ROWS * 1e9 for _ in range(repeats)]
        found.append(row(f"filter one stored row by {name}", costs, "ns CPU", limit=limit))
    return found


async def streamed_s(call: Any, count: Callable[[Any], int]) -> float:
    """Seconds until the stream has ended; it must have brought what was asked for."""
    begin = time.perf_counter()
    got = 0
    async for message in call:
        got += count(message)
    if got < STREAMED_FLOWS:
        raise AssertionError(f"{got} flows of {STREAMED_FLOWS}")
    return time.perf_counter() - begin


async def stream_rows(socket: Path, repeats: int) -> list[dict[str, Any]]:
    async with grpc.aio.insecure_channel(f"unix:{socket}") as channel:
        observer, batches = observer_pb2_grpc.ObserverStub(channel), batch_pb2_grpc.FlowBatchesStub(channel)
        request = GetFlowsRequest(number=STREAMED_FLOWS)
        single, batched, last = [], [], []
        for _ in range(repeats):
            single.append(await streamed_s(observer.GetFlows(request), lambda _: 1) / STREAMED_FLOWS * 1e6)
            batched.append(
                await streamed_s(batches.GetFlows(request), lambda m: len(m.responses)) / STREAMED_FLOWS * 1e6
            )
            begin = time.perf_counter()
            wanted = GetFlowsRequest(number=20, whitelist=[FlowFilter(source_port=["1"])])
            async for _ in observer.GetFlows(wanted):
                raise AssertionError("no flow has that port")
            last.append((time.perf_counter() - begin) * 1e3)
    return [
        row("stream one flow, batches against one a message", batched, "us", baseline=single, limit=20),
        row("a filter that matches none of 1 M flows", last, "ms", limit=100),
    ]


def run(repeats: int) -> list[dict[str, Any]]:
    """Every row of this part."""
    rows = [build_row(repeats)]
    with tempfile.TemporaryDirectory() as folder:
        config = ServerConfig(f"{folder}/run", f"{folder}/state", "bench", socket_group="", log_level="ERROR")
        flow_dir = config.paths.flow_dir
        writer = FlowStoreWriter.open(flow_dir, STORED_ROWS, SystemClock())
        names = NamesWriter.open(flow_dir)
        write_names(names, FakeNames())
        writer.append(traffic(STORED_ROWS))
        rows += filter_rows(FlowStoreReader.open(flow_dir), repeats)
        argv = [sys.executable, "-m", "hubble.server", "--config-json", config.to_json()]
        server = subprocess.Popen(argv, cwd=ROOT)
        try:
            eventually(config.paths.hubble_socket.exists, timeout_s=20)
            rows += asyncio.run(stream_rows(config.paths.hubble_socket, repeats))
        finally:
            server.terminate()
            server.wait()
            names.close()
            writer.close()
    return rows + fanout.rows(repeats)


if __name__ == "__main__":
    for line in run(3):
        print(line)
