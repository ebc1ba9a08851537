"""What many followers cost the flow server of a node: while nothing comes, and at a steady rate of flows.

Several relays and many `observe --follow` ask one process. Rows of `tests.bench.flows`; alone:
`python -m tests.bench.fanout`. CPU time of the server process, from the kernel's
books; clients and writer are in this one. A flow's delay is the wall clock at a client minus `Flow.time`,
which the writer sets when it appends.
"""

import asyncio
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import grpc
import numpy as np

from hubble.names import NamesWriter
from hubble.server import ServerConfig
from hubble.storewriter import FlowStoreWriter
from palomar.clock import SystemClock
from palomar_pb.flow.flow_pb2 import FlowFilter
from palomar_pb.observer.observer_pb2 import GetFlowsRequest
from palomar_pb.palomar.v1 import batch_pb2
from tests.bench.latency import cpu_ns
from tests.kit.flows import SYN, FakeNames, stored
from tests.kit.flowserver import write_names
from tests.kit.wait import eventually

ROOT = Path(__file__).resolve().parents[2]
METHOD = "/palomar.v1.FlowBatches/GetFlows"
CAPACITY = 1 << 17
RATE, TICK_S, FLOW_S = 2000, 0.01, 4.0
IDLE_S, SETTLE_S = 4.0, 2.0
PORTS = 20
REST_S = 0.5
"""When so long nothing has come, everything has."""
FOLLOWERS, MANY = 20, 64
EQUAL_LIMIT_US, DIFFERENT_LIMIT_US, DELAY_LIMIT_MS, IDLE_LIMIT_PERCENT = 200, 250, 100, 2


def equal(_number: int) -> GetFlowsRequest:
    """Everybody wants everything."""
    return GetFlowsRequest(follow=True)


def different(number: int) -> GetFlowsRequest:
    """Each wants one port of twenty."""
    return GetFlowsRequest(follow=True, whitelist=[FlowFilter(destination_port=[str(8000 + number)])])


@dataclass
class Follower:
    """What came to one client."""

    flows: int = 0
    messages: int = 0
    delays_ms: list[float] = field(default_factory=list)

    async def take(self, call: Any) -> None:
        """Read until the call is cancelled."""
        async for message in call:
            times = np.frombuffer(batch_pb2.FlowBatchBytes.FromString(message).times_ns, "<u8")
            self.messages += 1
            self.flows += len(times)
            self.delays_ms += ((time.time_ns() - times.astype(np.int64)) / 1e6).tolist()


@dataclass
class Node:
    """A flow server process and the store that it reads."""

    pid: int
    socket: Path
    writer: FlowStoreWriter

    async def write(self, seconds: float) -> int:
        """Append RATE flows a second, some every TICK_S as an ingest does; how many."""
        rows = np.repeat(stored(SYN), int(RATE * TICK_S))
        rows["dport"] = 8000 + np.arange(len(rows)) % PORTS
        begin, turns = time.monotonic(), int(seconds / TICK_S)
        for turn in range(turns):
            rows["sport"] = 32768 + (turn * len(rows) + np.arange(len(rows))) % 20000
            rows["time_ns"] = time.time_ns()
            self.writer.append(rows)
            await asyncio.sleep(max(0.0, begin + (turn + 1) * TICK_S - time.monotonic()))
        return turns * len(rows)


@contextmanager
def node() -> Iterator[Node]:
    """Start a flow server over an empty store."""
    with tempfile.TemporaryDirectory() as folder:
        config = ServerConfig(f"{folder}/run", f"{folder}/state", "bench", socket_group="", log_level="ERROR")
        flow_dir = config.paths.flow_dir
        writer = FlowStoreWriter.open(flow_dir, CAPACITY, SystemClock())
        names = NamesWriter.open(flow_dir)
        write_names(names, FakeNames())
        argv = [sys.executable, "-m", "hubble.server", "--config-json", config.to_json()]
        server = subprocess.Popen(argv, cwd=ROOT)
        try:
            eventually(config.paths.hubble_socket.exists, timeout_s=20)
            yield Node(server.pid, config.paths.hubble_socket, writer)
        finally:
            server.terminate()
            server.wait()
            names.close()
            writer.close()


@dataclass(frozen=True, slots=True)
class Measured:
    """One case."""

    cpu_s: float
    seconds: float
    written: int
    flows: int
    """At all clients together."""
    messages: int
    p99_ms: float

    @property
    def percent(self) -> float:
        """Of a core."""
        return 100 * self.cpu_s / self.seconds

    @property
    def us_per_written(self) -> float:
        """CPU per flow that was stored, whoever it came to."""
        return self.cpu_s / self.written * 1e6

    def is_whole(self, request: Callable[[int], GetFlowsRequest]) -> bool:
        """Every client got what it asked for."""
        return self.flows == self.written * (FOLLOWERS if request is equal else 1)


async def measured(at: Node, count: int, request: Callable[[int], GetFlowsRequest], busy: bool) -> Measured:
    """`count` followers on connections of their own."""
    options = [("grpc.use_local_subchannel_pool", 1)]
    channels = [grpc.aio.insecure_channel(f"unix:{at.socket}", options=options) for _ in range(count)]
    followers = [Follower() for _ in channels]
    calls = [
        channel.unary_stream(METHOD, request_serializer=GetFlowsRequest.SerializeToString)(request(number))
        for number, channel in enumerate(channels)
    ]
    for call in calls:
        await call.initial_metadata()
    tasks = [asyncio.ensure_future(f.take(call)) for f, call in zip(followers, calls, strict=True)]
    await asyncio.sleep(SETTLE_S)
    before, begin = cpu_ns(at.pid), time.monotonic()
    written = 0
    if busy:
        written = await at.write(FLOW_S)
    else:
        await asyncio.sleep(IDLE_S)
    seconds, used = time.monotonic() - begin, (cpu_ns(at.pid) - before) / 1e9
    await asyncio.sleep(REST_S)
    for call in calls:
        call.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    for channel in channels:
        await channel.close()
    delays = [delay for follower in followers for delay in follower.delays_ms]
    percentiles = quantiles(delays, n=100, method="inclusive") if delays else [0.0] * 100
    return Measured(
        used,
        seconds,
        written,
        sum(f.flows for f in followers),
        sum(f.messages for f in followers),
        percentiles[98],
    )


def case(count: int, request: Callable[[int], GetFlowsRequest], busy: bool, repeats: int) -> list[Measured]:
    """Several measurements of one case, on one server."""
    with node() as at:
        return [asyncio.run(measured(at, count, request, busy)) for _ in range(repeats)]


def rows(repeats: int) -> list[dict[str, Any]]:
    """Rows of the benchmark page."""
    alone = case(1, equal, busy=True, repeats=repeats)
    found = []
    for what, request, limit in (
        ("of everything", equal, EQUAL_LIMIT_US),
        ("of a port each", different, DIFFERENT_LIMIT_US),
    ):
        runs = case(FOLLOWERS, request, busy=True, repeats=repeats)
        assert all(run.is_whole(request) for run in runs), runs
        ours, baseline = (median(run.us_per_written for run in them) for them in (runs, alone))
        found.append(
            {
                "what": f"CPU per flow at {RATE:,} flows/s, {FOLLOWERS} followers {what}, against one",
                "ours": ours,
                "baseline": baseline,
                "ratio": ours / baseline,
                "unit": "us CPU",
                "limit": limit,
            }
        )
        found.append(
            {
                "what": f"store to client at {RATE:,} flows/s, {FOLLOWERS} followers {what}, p99",
                "ours": median(run.p99_ms for run in runs),
                "unit": "ms",
                "limit": DELAY_LIMIT_MS,
            }
        )
    few, many = (case(count, equal, busy=False, repeats=repeats) for count in (1, MANY))
    found.append(
        {
            "what": f"flow server while nothing comes, {MANY} followers, against one",
            "ours": median(run.percent for run in many),
            "baseline": median(run.percent for run in few),
            "unit": "% of a core",
            "limit": IDLE_LIMIT_PERCENT,
        }
    )
    return found


if __name__ == "__main__":
    for entry in rows(2):
        print(json.dumps(entry), flush=True)
