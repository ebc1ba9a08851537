"""Peers that are no flow server, or a bad one: what is said of them, and that everybody else goes on."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest

from palomar.certs import Role
from palomar_pb.observer import observer_pb2
from palomar_pb.observer.observer_pb2 import GetFlowsRequest
from palomar_pb.palomar.v1 import batch_pb2
from palomar_pb.relay import relay_pb2
from relay.nodestream import BATCHES_METHOD, MAX_RESPONSE_BYTES, PLAIN_METHOD
from relay.peers import Peer, PeerState
from tests.kit.relaycluster import NS_PER_S, Cluster, ask, cluster, flows_of, nodes_are_followed
from tests.kit.wait import eventually_async

Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
STATUS_METHOD = "/observer.Observer/ServerStatus"
ODD = "odd.default.hubble-grpc.cilium.io"


async def say_nothing(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
    await reader.read()


async def say_http(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read(1)
    writer.write(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
    await writer.drain()
    await reader.read()


async def hang_up(_reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
    return


@asynccontextmanager
async def tcp_peer(talk: Talk, tls: ssl.SSLContext | None = None) -> AsyncIterator[Peer]:
    """Something that listens and is no flow server."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await talk(reader, writer)
        except ConnectionError:
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0, ssl=tls)
    try:
        yield Peer("default/odd", f"127.0.0.1:{server.sockets[0].getsockname()[1]}", ODD)
    finally:
        server.close()


@asynccontextmanager
async def grpc_peer(folder: Path, handlers: dict[str, Any]) -> AsyncIterator[Peer]:
    """A gRPC server on a unix socket with these `/service/Method` handlers."""

    class Handler(grpc.GenericRpcHandler):
        def service(self, details: grpc.HandlerCallDetails) -> Any:
            return handlers.get(details.method)

    server = grpc.aio.server()
    server.add_generic_rpc_handlers((Handler(),))
    server.add_insecure_port(f"unix:{folder}/odd.sock")
    await server.start()
    try:
        yield Peer("default/odd", f"unix:{folder}/odd.sock")
    finally:
        await server.stop(0)


async def status(_request: bytes, _context: Any) -> bytes:
    return observer_pb2.ServerStatusResponse(num_flows=1, max_flows=1).SerializeToString()


def stream(answer: Callable[[], AsyncIterator[bytes]]) -> Any:
    async def method(_request: bytes, _context: Any) -> AsyncIterator[bytes]:
        async for item in answer():
            yield item

    return grpc.unary_stream_rpc_method_handler(method)


def reason(running: Cluster) -> str:
    return running.reason("odd")


@pytest.mark.parametrize(
    ("talk", "words"),
    [
        (say_nothing, "no answer in time"),
        (say_http, "it does not speak TLS"),
        (hang_up, "it closes the connection during the TLS handshake"),
    ],
)
async def test_a_peer_that_is_no_flow_server_is_called_what_it_is(
    tmp_path: Path, talk: Talk, words: str
) -> None:
    """Not blamed on our certificate; the others' flows come."""
    async with cluster(tmp_path, 1) as running, tcp_peer(talk) as peer:
        await running.connected()
        await running.relay.pool.upsert(peer)
        await eventually_async(lambda: words in reason(running), timeout_s=15)
        assert running.state("odd") is PeerState.UNAVAILABLE
        await nodes_are_followed(running)


async def test_a_tls_server_without_grpc_is_called_that(tmp_path: Path) -> None:
    """As a web server on the same port would be."""
    async with cluster(tmp_path, 1) as running:
        files = running.certificates.issue(Role.AGENT, "odd")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(files.cert, files.key)
        async with tcp_peer(say_http, context) as peer:
            await running.relay.pool.upsert(peer)
            await eventually_async(lambda: "no HTTP/2" in reason(running), timeout_s=15)


async def test_a_grpc_server_without_observer_is_unavailable(tmp_path: Path) -> None:
    """UNIMPLEMENTED, in gRPC's words."""
    async with cluster(tmp_path, 1) as running, grpc_peer(tmp_path, {}) as peer:
        await running.connected()
        await running.relay.pool.upsert(peer)
        await eventually_async(lambda: "not found" in reason(running).lower(), timeout_s=15)
        await nodes_are_followed(running)


async def test_a_status_that_cannot_be_read_makes_a_node_unavailable(tmp_path: Path) -> None:
    """And one that can be read later makes it connected: the watch goes on."""
    good = False

    async def answer(request: bytes, context: Any) -> bytes:
        return await status(request, context) if good else b"\xff\xff garbage"

    handlers = {STATUS_METHOD: grpc.unary_unary_rpc_method_handler(answer)}
    async with cluster(tmp_path, 0) as running, grpc_peer(tmp_path, handlers) as peer:
        await running.relay.pool.upsert(peer)
        await eventually_async(lambda: running.state("odd") is PeerState.UNAVAILABLE, timeout_s=15)
        good = True
        await eventually_async(lambda: running.state("odd") is PeerState.CONNECTED, timeout_s=15)


def flow(number: int, time_ns: int, *, label: str = "") -> bytes:
    response = observer_pb2.GetFlowsResponse(node_name="odd")
    response.time.FromNanoseconds(time_ns)
    response.flow.l4.TCP.source_port = number
    if label:
        response.flow.source.labels.append(label)
    return response.SerializeToString()


BAD = {
    "garbage": b"\xff\xff\xff garbage",
    "text that is no UTF-8": b"\x0a\x04\x2a\x02\xc3\x28",
    "too large": flow(9, NS_PER_S, label="x" * MAX_RESPONSE_BYTES),
}


@pytest.mark.parametrize("way", ["plain", "batched", "batched, no times"])
@pytest.mark.parametrize("bad", sorted(BAD))
async def test_what_is_no_flow_is_left_out_counted_and_told(tmp_path: Path, way: str, bad: str) -> None:
    """The node's good flows come, and those of the others; the stream says NODE_ERROR, once."""

    async def plain() -> AsyncIterator[bytes]:
        for number in range(3):
            yield flow(number, (number + 1) * NS_PER_S)
            yield BAD[bad]

    async def batched() -> AsyncIterator[bytes]:
        async for item in plain():
            batch = batch_pb2.FlowBatchBytes(responses=[item])
            if way == "batched":
                batch.times_ns = (NS_PER_S).to_bytes(8, "little")
            yield batch.SerializeToString()

    handlers = {
        STATUS_METHOD: grpc.unary_unary_rpc_method_handler(status),
        **({PLAIN_METHOD: stream(plain)} if way == "plain" else {BATCHES_METHOD: stream(batched)}),
    }
    async with cluster(tmp_path, 2) as running, grpc_peer(tmp_path, handlers) as peer:
        await running.relay.pool.upsert(peer)
        await running.connected("n1", "n2", "odd")
        running.nodes[0].emit(2)
        async with running.channel() as channel:
            responses = await ask(channel, first=True)
        expected = [("odd", 0), ("odd", 1), ("odd", 2), ("n1", 0), ("n1", 1)]
        assert sorted(flows_of(responses)) == sorted(expected)
        told = [r.node_status for r in responses if r.HasField("node_status")]
        errors = [t for t in told if t.state_change == relay_pb2.NODE_ERROR]
        assert [list(e.node_names) for e in errors] == [["default/odd"]]
        assert "left out" in errors[0].message
        malformed = running.relay.metrics.malformed.labels("default/odd")._value.get()
        assert malformed == 3
        await nodes_are_followed(running)


async def test_counters_beyond_all_bounds_spoil_nothing(tmp_path: Path) -> None:
    """Two nodes that claim 2^64-1 observed flows, and clocks beyond the year 2262."""

    async def batched() -> AsyncIterator[bytes]:
        most = (1 << 64) - 1
        batch = batch_pb2.FlowBatchBytes(
            responses=[flow(1, NS_PER_S)],
            times_ns=b"\xff" * 8,
            observed=most,
            lost=most,
            clock_ns=(1 << 63) - 1,
        )
        yield batch.SerializeToString()

    handlers = {
        STATUS_METHOD: grpc.unary_unary_rpc_method_handler(status),
        BATCHES_METHOD: stream(batched),
    }
    async with cluster(tmp_path, 1) as running, grpc_peer(tmp_path, handlers) as peer:
        await running.relay.pool.upsert(peer)
        await running.relay.pool.upsert(Peer("default/odd2", peer.address))
        await running.connected("n1", "odd", "odd2")
        await nodes_are_followed(running)


async def test_an_answer_that_is_not_ours_to_cut_is_sent_in_pieces(tmp_path: Path) -> None:
    """Large flows of a node make several messages, none larger than clients take."""

    async def plain() -> AsyncIterator[bytes]:
        for number in range(40):
            yield flow(number, (number + 1) * NS_PER_S, label="x" * (MAX_RESPONSE_BYTES // 2))

    handlers = {
        STATUS_METHOD: grpc.unary_unary_rpc_method_handler(status),
        PLAIN_METHOD: stream(plain),
    }
    async with cluster(tmp_path, 0) as running, grpc_peer(tmp_path, handlers) as peer:
        await running.relay.pool.upsert(peer)
        await running.connected("odd")
        async with running.channel() as channel:
            call: Any = channel.unary_stream(
                BATCHES_METHOD, request_serializer=GetFlowsRequest.SerializeToString
            )(GetFlowsRequest(first=True), timeout=30)
            sizes = [len(message) async for message in call]
        assert sum(sizes) > 40 * MAX_RESPONSE_BYTES // 2
        assert max(sizes) < 4 << 20
