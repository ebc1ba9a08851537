"""What the relay holds for a client that does not read on, and of clients and nodes that are gone."""

import asyncio
import ctypes
import gc
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import grpc

from palomar.clock import SystemClock
from palomar.tasks import spawn
from palomar_pb.observer import observer_pb2, observer_pb2_grpc
from palomar_pb.palomar.v1 import batch_pb2
from relay.collector import Collector
from relay.nodestream import BATCHES_METHOD, messages
from relay.peers import Peer, PeerPool, PeerState
from tests.kit.relaycluster import Cluster, cluster
from tests.kit.wait import eventually_async

MESSAGE = batch_pb2.FlowBatchBytes(responses=[bytes(60_000)]).SerializeToString()
READ_MESSAGES = 1_500
"""Enough of a stream that is read for gRPC to widen the windows of the whole connection, where it may."""
MOST_UNREAD_BYTES = 1 << 20
MOST_OBJECTS = 1_000
"""More or fewer that Python may hold after a round than before: caches and timers, not twenty a client."""


class FloodingNode:
    """Answers a request for N flows with N messages, for none without end; counts what it could send."""

    def __init__(self) -> None:
        self.sent = {"read": 0, "unread": 0}
        self._server = grpc.aio.server()

    async def flows(self, request: bytes, _context: Any) -> AsyncIterator[bytes]:
        wanted = observer_pb2.GetFlowsRequest.FromString(request).number
        which = "read" if wanted else "unread"
        while not wanted or self.sent[which] < wanted:
            yield MESSAGE
            self.sent[which] += 1

    async def status(self, _request: bytes, _context: Any) -> bytes:
        return observer_pb2.ServerStatusResponse(version="flooding").SerializeToString()

    async def __aenter__(self) -> "FloodingNode":
        for service, method, answer in (
            ("palomar.v1.FlowBatches", "GetFlows", grpc.unary_stream_rpc_method_handler(self.flows)),
            ("observer.Observer", "ServerStatus", grpc.unary_unary_rpc_method_handler(self.status)),
        ):
            handler = grpc.method_handlers_generic_handler(service, {method: answer})
            self._server.add_generic_rpc_handlers((handler,))
        self.port = self._server.add_insecure_port("127.0.0.1:0")
        await self._server.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._server.stop(0)


def call(channel: grpc.aio.Channel, number: int) -> Any:
    """Ask the node for `number` messages; 0 for no end."""
    return channel.unary_stream(
        BATCHES_METHOD, request_serializer=observer_pb2.GetFlowsRequest.SerializeToString
    )(observer_pb2.GetFlowsRequest(number=number))


async def test_a_stream_that_is_not_read_holds_little_of_its_node() -> None:
    """Beside a fast one on the same connection, too: windows do not grow with the speed of the others."""
    pool = PeerPool(SystemClock(), None, allow_insecure=True)
    await pool.start()
    try:
        async with FloodingNode() as node:
            await pool.upsert(Peer("default/n1", f"127.0.0.1:{node.port}", ""))
            entry = pool.get("default/n1")
            assert entry is not None
            await eventually_async(lambda: entry.state is PeerState.CONNECTED)
            unread = call(entry.channel, 0)
            await unread.initial_metadata()
            read = [len(message) async for message in call(entry.channel, READ_MESSAGES)]
            assert len(read) == READ_MESSAGES
            assert 0 < node.sent["unread"] * len(MESSAGE) < MOST_UNREAD_BYTES
            unread.cancel()
    finally:
        await pool.stop()


def collectors() -> int:
    """Count the questions of clients that are still in memory."""
    return sum(isinstance(item, Collector) for item in gc.get_objects())


def objects() -> int:
    """Count what Python holds, without what it would throw away."""
    gc.collect()
    return len(gc.get_objects())


async def come_and_go(running: Cluster) -> None:
    """Be a client: ask for the past, for the status, follow for a moment, leave without a word."""
    async with running.channel() as channel:
        observer = observer_pb2_grpc.ObserverStub(channel)
        async for _ in observer.GetFlows(observer_pb2.GetFlowsRequest(number=20)):
            pass
        await observer.ServerStatus(observer_pb2.ServerStatusRequest())
        following = observer.GetFlows(observer_pb2.GetFlowsRequest(number=5, follow=True))
        await following.read()
        following.cancel()


async def test_clients_and_nodes_that_go_leave_nothing_behind(tmp_path: Path) -> None:
    """Sixty clients, and a node that is away four times, with nothing left of any in Python's memory."""
    async with cluster(tmp_path, 2) as running:
        await running.connected()
        node = running.nodes[1]
        node.emit(50)

        async def round_of(clients: int, outages: int) -> None:
            for _ in range(clients):
                await come_and_go(running)
            for _ in range(outages):
                await node.stop()
                await eventually_async(lambda: running.state(node.name) is not PeerState.CONNECTED, 20)
                await node.start()
                await running.connected()

        await round_of(10, 1)
        before = objects()
        await round_of(60, 4)
        await eventually_async(lambda: abs(objects() - before) < MOST_OBJECTS, 10)


async def test_what_was_held_for_a_client_goes_with_it(tmp_path: Path) -> None:
    """At once, flows and all: not when Python happens to look for garbage, minutes later."""
    async with cluster(tmp_path, 2) as running:
        await running.connected()
        running.nodes[0].emit(50)
        gc.collect()
        gc.disable()
        try:
            for _ in range(5):
                await come_and_go(running)
            await eventually_async(lambda: collectors() == 0)
        finally:
            gc.enable()


class Allocated(ctypes.Structure):
    """`struct mallinfo2` of glibc, see mallinfo(3)."""

    _fields_ = tuple(
        (name, ctypes.c_size_t)
        for name in [
            "arena",
            "ordblks",
            "smblks",
            "hblks",
            "hblkhd",
            "usmblks",
            "fsmblks",
            "uordblks",
            "fordblks",
            "keepcost",
        ]
    )

    @classmethod
    def size_bytes(cls) -> int:
        """What is allocated now, Python's small objects aside."""
        tell = ctypes.CDLL(None).mallinfo2
        tell.restype = cls
        return int(tell().uordblks)


async def leave_in_the_middle(channel: grpc.aio.Channel, times: int) -> None:
    """Follow, and be cancelled while the next message is on its way."""
    for _ in range(times):
        call: Any = channel.unary_stream(
            BATCHES_METHOD, request_serializer=observer_pb2.GetFlowsRequest.SerializeToString
        )(observer_pb2.GetFlowsRequest())
        read = messages(call)
        await anext(read)
        reading = spawn(anext(read), "read")
        await asyncio.sleep(0)
        reading.cancel()
        with suppress(asyncio.CancelledError):
            await reading
        await read.aclose()


async def test_a_read_that_is_cancelled_leaves_no_message_behind() -> None:
    """As of every node with every follower that goes."""
    async with FloodingNode() as node, grpc.aio.insecure_channel(f"127.0.0.1:{node.port}") as channel:
        await leave_in_the_middle(channel, 50)
        before = Allocated.size_bytes()
        await leave_in_the_middle(channel, 100)
        await eventually_async(lambda: Allocated.size_bytes() - before < 20 * len(MESSAGE))
