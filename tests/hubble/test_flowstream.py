"""A stream of flows against a list: any request over any store gives what a plain reading of it would."""

import asyncio
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import given, settings
from hypothesis import strategies as st

from hubble import flowfeed, flowstream
from hubble.errors import StoreMissingError
from hubble.flowfeeds import FlowFeeds
from hubble.flowsource import FlowSource
from hubble.flowstream import FlowStream
from hubble.observingnode import ObservingNode
from hubble.storemapping import Loss
from hubble.storereader import FlowStoreReader
from hubble.storewatch import StoreWatch
from hubble.storewriter import FlowStoreWriter
from palomar.clock import SystemClock
from palomar_pb.flow.flow_pb2 import FlowFilter
from palomar_pb.observer.observer_pb2 import GetFlowsRequest, GetFlowsResponse
from tests.kit.flows import record, stored

CAPACITY = 256
NODE = ObservingNode("default/one")


@dataclass(frozen=True)
class Step:
    """Rows appended, then a loss (0 for none)."""

    rows: int
    lost: int


def watching(source: FlowSource) -> StoreWatch:
    return StoreWatch(FlowFeeds(source, NODE, SystemClock()))


def answer(source: FlowSource, request: GetFlowsRequest) -> list[Any]:
    """Ports of flows, and losses as (cpu, count)."""

    async def collect() -> list[Any]:
        found: list[Any] = []
        async for batch in FlowStream(watching(source), request).batches():
            assert sum(GetFlowsResponse.FromString(r).HasField("flow") for r in batch) <= 8
            for data in batch:
                response = GetFlowsResponse.FromString(data)
                if response.WhichOneof("response_types") == "flow":
                    found.append(response.flow.l4.TCP.source_port)
                else:
                    lost = response.lost_events
                    found.append((lost.cpu.value, lost.num_events_lost))
        return found

    return asyncio.run(collect())


def model(
    rows: list[int],
    losses: list[tuple[int, int]],
    oldest: int,
    wanted: set[int] | None,
    request: dict[str, Any],
) -> list[Any]:
    """`rows` are numbers that are position, port and second at once; `losses` are position and count."""
    low, high = request.get("since", 0), request.get("until", 1 << 30)
    chosen = [n for n in rows if n >= oldest and low <= n <= high and (wanted is None or n in wanted)]
    number, first = request.get("number", 0), request.get("first", False)
    begin, end = oldest, len(rows)
    if number and first and len(chosen) >= number:
        chosen = chosen[:number]
        end = chosen[-1]
    elif number and not first and number < CAPACITY and len(chosen) >= number:
        chosen = chosen[-number:]
        begin = chosen[0]
    told: list[tuple[float, Any]] = [(n, n) for n in chosen]
    told += [
        (position - 0.5, (1, count))
        for position, count in losses
        if (begin < position or not begin) and position <= end and low <= position <= high
    ]
    return [entry for _, entry in sorted(told, key=lambda item: item[0])]


STEPS = st.lists(st.builds(Step, st.integers(0, 90), st.integers(0, 2)), max_size=8)
REQUESTS = st.fixed_dictionaries(
    {},
    optional={
        "number": st.one_of(st.integers(0, 12), st.sampled_from([200, 300, (1 << 64) - 1])),
        "first": st.booleans(),
        "since": st.integers(1, 500),
        "until": st.integers(1, 500),
    },
)


@pytest.fixture(scope="module", autouse=True)
def small_steps() -> Iterator[None]:
    """Small stores, and yet several scans, reads and batches each."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(flowstream, "SCAN_ROWS", 50)
        patch.setattr(flowfeed, "READ_ROWS", 20)
        patch.setattr(flowfeed, "BATCH_FLOWS", 8)
        yield


@settings(max_examples=150, deadline=None)
@given(STEPS, REQUESTS, st.none() | st.sets(st.integers(0, 500), max_size=20))
def test_any_answer_is_what_the_model_says(
    steps: list[Step], request: dict[str, Any], wanted: set[int] | None
) -> None:
    """Selectors, filters and losses, also over a ring that went round."""
    with tempfile.TemporaryDirectory() as folder:
        writer = FlowStoreWriter.open(Path(folder), CAPACITY, SystemClock())
        rows: list[int] = []
        losses: list[tuple[int, int]] = []
        for step in steps:
            new = list(range(len(rows), len(rows) + step.rows))
            if new:
                writer.append(stored(*(record(sport=n, time_ns=n * 10**9) for n in new)))
            rows += new
            if step.lost:
                loss = Loss(writer.head * 10**9, writer.head, step.lost, 1)
                writer.commit(0, losses=[loss])
                losses.append((writer.head, step.lost))
        message = GetFlowsRequest(number=request.get("number", 0), first=request.get("first", False))
        for name in ("since", "until"):
            if name in request:
                getattr(message, name).CopyFrom(Timestamp(seconds=request[name]))
        if wanted is not None:
            # A filter for no port at all would be a filter for every flow.
            message.whitelist.add(source_port=[str(n) for n in wanted] or ["65535"])
        oldest = FlowStoreReader.open(Path(folder)).oldest
        assert answer(FlowSource(Path(folder)), message) == model(rows, losses, oldest, wanted, request)
        writer.close()


def test_rows_overwritten_between_choosing_and_building_are_reported(tmp_path: Path) -> None:
    """The client is slow and the ring goes round: what was chosen and is gone counts as lost."""
    writer = FlowStoreWriter.open(tmp_path, 2048, SystemClock())
    writer.append(stored(*(record(sport=n) for n in range(2000))))

    async def collect() -> tuple[list[int], int]:
        ports: list[int] = []
        lost = 0
        request = GetFlowsRequest(whitelist=[FlowFilter(protocol=["tcp"])])
        stream = FlowStream(watching(FlowSource(tmp_path)), request)
        async for batch in stream.batches():
            if not ports:
                writer.append(stored(*(record(sport=n) for n in range(2000, 3000))))
            for response in map(GetFlowsResponse.FromString, batch):
                ports += [response.flow.l4.TCP.source_port] if response.HasField("flow") else []
                lost += response.lost_events.num_events_lost
        return ports, lost

    ports, lost = asyncio.run(collect())
    assert ports[:8] == list(range(8))
    assert ports[8:] == list(range(2000 - len(ports[8:]), 2000))
    assert lost > 0
    assert len(ports) + lost == 2000
    writer.close()


def test_without_a_store_there_is_no_stream(tmp_path: Path) -> None:
    """The caller says UNAVAILABLE."""
    with pytest.raises(StoreMissingError):
        FlowStream(watching(FlowSource(tmp_path)), GetFlowsRequest())


def test_sparse_rows_are_read_in_stretches(tmp_path: Path) -> None:
    """Few matches far apart: each is found, in order."""
    writer = FlowStoreWriter.open(tmp_path, 1 << 15, SystemClock())
    rows = np.repeat(stored(record()), 30_000)
    rows["sport"] = np.arange(30_000)
    writer.append(rows)
    wanted = [5, 4096, 4097, 4098 + 4095, 20_000, 29_999]
    request = GetFlowsRequest(whitelist=[FlowFilter(source_port=[str(n) for n in wanted])])
    assert answer(FlowSource(tmp_path), request) == wanted
    writer.close()
