"""Many followers of one store: each gets its own whole answer, and what is equal is made once."""

import asyncio
import os
import tempfile
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import AsyncExitStack, aclosing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hubble import flowfeed, flowstream, flowturn, storewatch
from hubble.errors import StoreMissingError
from hubble.flowfeeds import FlowFeeds
from hubble.flowsource import FlowSource
from hubble.flowstream import FlowStream
from hubble.observingnode import ObservingNode
from hubble.responses import Responses
from hubble.storemapping import Loss
from hubble.storewatch import StoreWatch
from hubble.storewriter import FlowStoreWriter
from palomar.clock import SystemClock
from palomar_pb.flow import flow_pb2
from palomar_pb.flow.flow_pb2 import FlowFilter
from palomar_pb.observer.observer_pb2 import GetFlowsRequest, GetFlowsResponse
from tests.kit.flows import record, stored
from tests.kit.wait import eventually_async

CAPACITY = 4096
NODE = ObservingNode("default/one")
LOOKS = "flow store looks"
"""Name of the watch's task."""


@pytest.fixture
def small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several turns and batches of few rows."""
    _small_steps(monkeypatch)


def _small_steps(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(flowstream, "SCAN_ROWS", 50)
    patch.setattr(flowfeed, "BATCH_FLOWS", 4)
    patch.setattr(flowturn, "BATCH_FLOWS", 4)
    patch.setattr(storewatch, "TURN_ROWS", 10)
    patch.setattr(storewatch, "BUSY_LOOK_S", 0.001)
    patch.setattr(storewatch, "BEAT_S", 0.01)


@pytest.fixture
def writer(tmp_path: Path) -> Iterator[FlowStoreWriter]:
    writer = FlowStoreWriter.open(tmp_path, CAPACITY, SystemClock())
    yield writer
    writer.close()


@pytest.fixture
def watch(tmp_path: Path, writer: FlowStoreWriter) -> StoreWatch:
    return StoreWatch(FlowFeeds(FlowSource(tmp_path), NODE, SystemClock()))


def numbered(begin: int, end: int) -> Any:
    """Rows whose port is their position; the destination's is the last digit of it."""
    return stored(*(record(sport=n, dport=n % 10) for n in range(begin, end)))


async def followers(watch: StoreWatch, *requests: GetFlowsRequest) -> list[AsyncGenerator[Responses, None]]:
    """Streams that have begun to follow."""
    streams = [FlowStream(watch, request).batches() for request in requests]
    for stream in streams:
        assert len(await anext(stream)) == 0
    return streams


async def told(stream: AsyncIterator[Responses]) -> Responses:
    """The next that is not empty."""
    async with asyncio.timeout(10):
        async for batch in stream:
            if len(batch):
                return batch
    raise AssertionError("the stream ended")


def entry(data: bytes) -> Any:
    """The port of a flow; of a loss, minus its count."""
    response = GetFlowsResponse.FromString(data)
    if response.HasField("flow"):
        return response.flow.l4.TCP.source_port
    return -response.lost_events.num_events_lost


ALL = GetFlowsRequest(follow=True)
EVEN = GetFlowsRequest(follow=True, whitelist=[FlowFilter(destination_port=list("02468"))])
BUT_THREE = GetFlowsRequest(follow=True, blacklist=[FlowFilter(destination_port=["3"])])
NONE = GetFlowsRequest(follow=True, whitelist=[FlowFilter(destination_port=["77"])])
KINDS = [
    (ALL, range(10)),
    (ALL, range(10)),
    (EVEN, (0, 2, 4, 6, 8)),
    (EVEN, (0, 2, 4, 6, 8)),
    (BUT_THREE, (0, 1, 2, 4, 5, 6, 7, 8, 9)),
    (NONE, ()),
]

STEPS = st.lists(st.tuples(st.integers(0, 60), st.integers(0, 3), st.booleans()), min_size=1, max_size=8)


@settings(max_examples=40, deadline=None)
@given(STEPS)
def test_everyone_is_told_what_one_alone_would_be(steps: list[tuple[int, int, bool]]) -> None:
    """Rows and losses in any portions; some are noticed together, some while others are being told."""
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as folder:
        _small_steps(patch)
        writer = FlowStoreWriter.open(Path(folder), CAPACITY, SystemClock())
        watch = StoreWatch(FlowFeeds(FlowSource(Path(folder)), NODE, SystemClock()))
        asyncio.run(_everyone(writer, watch, steps))
        writer.close()


async def _everyone(writer: FlowStoreWriter, watch: StoreWatch, steps: list[tuple[int, int, bool]]) -> None:
    found: list[list[int]] = [[] for _ in KINDS]

    async def collect(stream: AsyncIterator[Responses], into: list[int]) -> None:
        async for batch in stream:
            into += map(entry, batch)
            await asyncio.sleep(0)

    streams = await followers(watch, *(request for request, _ in KINDS))
    tasks = [asyncio.ensure_future(collect(s, into)) for s, into in zip(streams, found, strict=True)]
    expected: list[list[int]] = [[] for _ in KINDS]
    head = 0
    for rows, lost, pause in steps:
        new = range(head, head + rows)
        head += rows
        if rows:
            writer.append(numbered(new.start, new.stop))
        if lost:
            writer.commit(0, losses=[Loss(1, writer.head, lost, 0)])
        for into, (_, digits) in zip(expected, KINDS, strict=True):
            into.extend([n for n in new if n % 10 in digits] + ([-lost] if lost else []))
        if pause:
            await asyncio.sleep(0)
    await eventually_async(lambda: found == expected)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    for stream in streams:
        await stream.aclose()
    await eventually_async(lambda: LOOKS not in {task.get_name() for task in asyncio.all_tasks()})


async def test_equal_questions_share_their_batches_and_others_their_flows(
    writer: FlowStoreWriter, watch: StoreWatch
) -> None:
    """The very same objects: asked, built and encoded once. A field mask makes other flows."""
    masked = GetFlowsRequest(follow=True)
    masked.field_mask.paths.append("l4")
    streams = await followers(watch, ALL, ALL, EVEN, masked)
    waiting = [asyncio.ensure_future(told(stream)) for stream in streams]
    await asyncio.sleep(0)
    writer.append(numbered(0, 20))
    one, two, even, short = await asyncio.gather(*waiting)
    assert one is two
    assert one.fields is two.fields
    of_all = list(one)
    assert all(any(flow is other for other in of_all) for flow in even)
    assert not any(flow in of_all for flow in short)
    assert [entry(flow) for flow in short] == [entry(flow) for flow in one]
    for stream in streams:
        await stream.aclose()


async def test_the_same_question_from_another_place_is_the_same_question(
    writer: FlowStoreWriter, watch: StoreWatch
) -> None:
    """One begins with some of the past: what comes after it is shared."""
    writer.append(numbered(0, 5))
    (one,) = await followers(watch, ALL)
    other = FlowStream(watch, GetFlowsRequest(follow=True, number=2)).batches()
    async with aclosing(one), aclosing(other):
        assert [entry(flow) for flow in await told(other)] == [3, 4]
        assert len(await anext(other)) == len(await anext(other)) == 0
        waiting = [asyncio.ensure_future(told(stream)) for stream in (one, other)]
        await asyncio.sleep(0)
        writer.append(numbered(5, 9))
        first, second = await asyncio.gather(*waiting)
        assert first is second


@pytest.mark.usefixtures("small_steps")
async def test_one_who_does_not_read_holds_nobody_up(writer: FlowStoreWriter, watch: StoreWatch) -> None:
    """The others go on; it is told all there still is, and how much it missed; old turns are let go of."""
    async with AsyncExitStack() as stack:
        slow, quick = await followers(watch, ALL, ALL)
        for stream in (slow, quick):
            await stack.enter_async_context(aclosing(stream))
        writer.append(numbered(0, 10))
        assert [entry(flow) for flow in await told(slow)] == [0, 1, 2, 3]
        seen: list[int] = []
        written = 10
        while written < 3 * CAPACITY:
            while len(seen) < written:
                seen += map(entry, await told(quick))
            writer.append(numbered(written, written + 35))
            written += 35
        while len(seen) < written:
            seen += map(entry, await told(quick))
        assert seen == list(range(written))
        got, lost = [0, 1, 2, 3], 0
        while len(got) + lost < written:
            for number in map(entry, await told(slow)):
                if number < 0:
                    lost -= number
                else:
                    got.append(number)
        assert lost > CAPACITY
        assert got == sorted(set(got))
        assert got[-1] == written - 1


async def test_nobody_looks_while_nobody_follows(writer: FlowStoreWriter, watch: StoreWatch) -> None:
    """From the first follower to the last."""

    def looking() -> int:
        return sum(task.get_name() == LOOKS for task in asyncio.all_tasks())

    assert looking() == 0
    streams = await followers(watch, ALL, EVEN)
    assert looking() == 1
    await streams[0].aclose()
    assert looking() == 1
    await streams[1].aclose()
    await eventually_async(lambda: not looking())
    (again,) = await followers(watch, ALL)
    writer.append(numbered(0, 1))
    assert [entry(flow) for flow in await told(again)] == [0]
    await again.aclose()


@pytest.mark.usefixtures("small_steps")
async def test_a_store_that_is_gone_ends_every_follower(writer: FlowStoreWriter, watch: StoreWatch) -> None:
    """Each is told, also one who was not waiting; the next may begin when there is a store again."""
    one, two = await followers(watch, ALL, EVEN)
    waiting = asyncio.ensure_future(told(one))
    await asyncio.sleep(0)
    away = writer.path.with_suffix(".away")
    os.rename(writer.path, away)
    with pytest.raises(StoreMissingError):
        await waiting
    with pytest.raises(StoreMissingError):
        await told(two)
    os.rename(away, writer.path)
    (again,) = await followers(watch, ALL)
    writer.append(numbered(0, 1))
    assert [entry(flow) for flow in await told(again)] == [0]
    await again.aclose()


@pytest.mark.usefixtures("small_steps")
async def test_a_loss_alone_is_told_at_a_beat(writer: FlowStoreWriter, watch: StoreWatch) -> None:
    """To everyone, once."""
    one, two = await followers(watch, ALL, NONE)
    writer.commit(0, losses=[Loss(1, writer.head, 7, 3)])
    for stream in (one, two):
        (data,) = await told(stream)
        lost = GetFlowsResponse.FromString(data).lost_events
        assert (lost.num_events_lost, lost.cpu.value) == (7, 3)
        assert lost.source == flow_pb2.PERF_EVENT_RING_BUFFER
    writer.append(numbered(0, 1))
    assert [entry(flow) for flow in await told(one)] == [0]
    for stream in (one, two):
        await stream.aclose()
