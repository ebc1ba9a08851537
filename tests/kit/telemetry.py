"""A store to write flows into and the telemetry over it, in this process or as one of its own."""

import json
import os
import re
import sys
from asyncio import subprocess
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np

from hubble.names import NamesWriter
from hubble.storereader import FlowStoreReader
from hubble.storewriter import FlowStoreWriter
from hubble.telemetry import Telemetry
from hubble.telemetryconfig import TelemetryConfig
from palomar.clock import SystemClock
from palomar.verdict import Verdict
from tests.kit.flows import FakeNames, record, stored
from tests.kit.flowserver import write_names
from tests.kit.wait import eventually_async

CAPACITY = 4096
ROOT = Path(__file__).resolve().parents[2]
MIXED: tuple[Mapping[str, Any], ...] = (
    record(),
    record(l4_flags=16, trace_reason=1),
    record(type=5, subtype=0, match_type=2, policy_cookie=77),
    record(type=5, subtype=0, verdict=2, drop_reason=133, policy_cookie=78, direction=1),
    record(type=1, subtype=133, verdict=2, drop_reason=133, direction=1),
    record(protocol=17, dport=53, l4_flags=0, sport=5353),
    record(protocol=1, l4_flags=8, sport=0, dport=0),
    record(dst_ref=0, dst_identity=2, daddr="93.184.216.34", dport=443),
    record(verdict=4, type=5, subtype=0, match_type=4),
    record(l4_flags=18, trace_reason=2, src_ref=2, dst_ref=1, src_identity=53731, dst_identity=48291),
)
"""Every verdict and protocol there is data for."""


@dataclass
class Flows:
    """A store that a test writes."""

    state_dir: Path
    writer: FlowStoreWriter
    names: NamesWriter

    @property
    def flow_dir(self) -> Path:
        return self.state_dir / "flows"

    def write(self, *records: Mapping[str, Any]) -> None:
        self.writer.append(stored(*records))

    def by_verdict(self, first: int = 0) -> Counter[str]:
        """Rows from position `first` on, counted by verdict, out of the store itself."""
        reader = FlowStoreReader.open(self.flow_dir)
        block, overwritten = reader.read(first, reader.head - first)
        assert not overwritten
        numbers, counts = np.unique(block.columns["verdict"], return_counts=True)
        return Counter(
            {Verdict(n).name: int(c) for n, c in zip(numbers.tolist(), counts.tolist(), strict=True)}
        )


@contextmanager
def flows(folder: Path, capacity: int = CAPACITY) -> Iterator[Flows]:
    """An empty store below `folder`, with the names of the cast."""
    flow_dir = folder / "flows"
    writer = FlowStoreWriter.open(flow_dir, capacity, SystemClock())
    names = NamesWriter.open(flow_dir)
    write_names(names, FakeNames())
    made = Flows(folder, writer, names)
    try:
        yield made
    finally:
        names.close()
        writer.close()


def config(folder: Path, **values: Any) -> str:
    """JSON for the process; `/metrics` on a port of its own."""
    return json.dumps(
        {"state_dir": str(folder), "node_name": "worker2", "metrics_listen": "127.0.0.1:0", **values}
    )


@asynccontextmanager
async def telemetry(folder: Path, **values: Any) -> AsyncIterator[Telemetry]:
    """The telemetry over the store of `folder`, in this process."""
    running = Telemetry(TelemetryConfig.parse(config(folder, **values)), SystemClock())
    await running.start()
    try:
        if running.server is not None:
            server = running.server
            await eventually_async(lambda: server.port)
        yield running
    finally:
        await running.stop()


_SERIES = re.compile(r"^([a-z_]+)(?:\{(.*)\})? (\S+)$", re.MULTILINE | re.IGNORECASE)
_LABEL = re.compile(r'([a-z_]+)="((?:[^"\\]|\\.)*)"')

Series = dict[tuple[str, frozenset[tuple[str, str]]], float]


def parse_metrics(text: str) -> Series:
    """Series by name and labels."""
    return {
        (name, frozenset(_LABEL.findall(labels or ""))): float(value)
        for name, labels, value in _SERIES.findall(text)
    }


def total(series: Series, name: str, by: str, **labels: str) -> Counter[str]:
    """Sum the series of `name` that have `labels`, by the label `by` (empty values are left out)."""
    sums: Counter[str] = Counter()
    for (found, pairs), value in series.items():
        has = dict(pairs)
        if found == name and labels.items() <= has.items():
            sums[has.get(by, "")] += int(value)
    return sums


async def scrape(port: int) -> Series:
    """What `/metrics` says."""
    async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{port}/metrics") as got:
        assert got.status == 200
        return parse_metrics(await got.text())


@asynccontextmanager
async def python_process(module: str, *arguments: str) -> AsyncIterator[subprocess.Process]:
    """`python -m module arguments` from this checkout; killed in the end if it still runs."""
    path = os.pathsep.join([str(ROOT), str(ROOT / "proto")])
    process = await subprocess.create_subprocess_exec(
        sys.executable,
        "-m",
        module,
        *arguments,
        cwd="/",
        env={**os.environ, "PYTHONPATH": path},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()
