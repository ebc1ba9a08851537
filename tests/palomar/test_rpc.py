"""A gRPC server of services by descriptor, and the places where it listens, against real clients."""

import asyncio
import grp
import os
import stat
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from palomar.certdir import CertDirectory
from palomar.certs import Role
from palomar.errors import InvalidInputError
from palomar.rpc import RpcServer, Service
from palomar.rpclistener import Listener, TcpListener, UnixListener, listener_of
from palomar.tls import ConnectionAge, TlsFiles, channel_credentials, verify_name_option
from palomar.unixsocket import inode
from palomar_pb.observer import observer_pb2, observer_pb2_grpc
from palomar_pb.peer import peer_pb2, peer_pb2_grpc

OBSERVER = observer_pb2.DESCRIPTOR.services_by_name["Observer"]
PEER = peer_pb2.DESCRIPTOR.services_by_name["Peer"]
AGE = ConnectionAge(age_s=600, grace_s=60)
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


class Answers:
    """Knows Observer whole: GetFlows answers with bytes and a message, the rest with what is asked."""

    def __getattr__(self, name: str) -> Any:
        async def answer(request: Any, context: Any) -> Any:
            return getattr(observer_pb2, f"{name}Response")()

        return answer

    async def GetFlows(self, request: Any, _context: Any) -> AsyncIterator[Any]:  # noqa: N802 - gRPC method name
        response = observer_pb2.GetFlowsResponse(node_name="bytes")
        yield response.SerializeToString()
        yield observer_pb2.GetFlowsResponse(node_name="message")
        if request.follow:
            await asyncio.Event().wait()


class Peers:
    """Announces one peer."""

    async def Notify(self, _request: Any, _context: Any) -> AsyncIterator[Any]:  # noqa: N802 - gRPC method name
        yield peer_pb2.ChangeNotification(name="n1")


@asynccontextmanager
async def running(listener: Listener) -> AsyncIterator[RpcServer]:
    server = RpcServer(listener, [Service(OBSERVER, Answers()), Service(PEER, Peers(), in_health=False)])
    await server.start()
    try:
        yield server
    finally:
        await server.stop()


@pytest.fixture
def tls(tmp_path: Path) -> TlsFiles:
    now = datetime.now(UTC)
    directory = CertDirectory(tmp_path / "certs")
    directory.init(now)
    return directory.issue(Role.AGENT, "n1", now)


async def status(channel: grpc.aio.Channel) -> Any:
    stub: Any = observer_pb2_grpc.ObserverStub(channel)
    return await stub.ServerStatus(observer_pb2.ServerStatusRequest(), timeout=5)


async def health(channel: grpc.aio.Channel, service: str = "") -> int:
    stub: Any = health_pb2_grpc.HealthStub(channel)
    return int((await stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=5)).status)


async def test_methods_answer_with_messages_or_with_bytes(tmp_path: Path) -> None:
    """Unary and streaming, of more than one service."""
    socket = tmp_path / "deep" / "s.sock"
    async with running(UnixListener(socket, "")), grpc.aio.insecure_channel(f"unix:{socket}") as channel:
        assert await status(channel) == observer_pb2.ServerStatusResponse()
        stub: Any = observer_pb2_grpc.ObserverStub(channel)
        call = stub.GetFlows(observer_pb2.GetFlowsRequest(), timeout=5)
        assert [response.node_name async for response in call] == ["bytes", "message"]
        peers: Any = peer_pb2_grpc.PeerStub(channel)
        assert [change.name async for change in peers.Notify(peer_pb2.NotifyRequest(), timeout=5)] == ["n1"]


async def test_health_speaks_for_the_server_and_for_the_services_that_are_to_be_named(tmp_path: Path) -> None:
    """NOT_SERVING until it is told otherwise, before the start as well."""
    socket = tmp_path / "s"
    async with (
        running(UnixListener(socket, "")) as server,
        grpc.aio.insecure_channel(f"unix:{socket}") as channel,
    ):
        assert [await health(channel), await health(channel, OBSERVER.full_name)] == [NOT_SERVING] * 2
        await server.set_serving(True)
        assert [await health(channel), await health(channel, OBSERVER.full_name)] == [SERVING] * 2
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await health(channel, PEER.full_name)
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND
    again = RpcServer(UnixListener(socket, ""), [Service(OBSERVER, Answers())])
    await again.set_serving(True)
    await again.start()
    async with grpc.aio.insecure_channel(f"unix:{socket}") as channel:
        assert await health(channel) == SERVING
    await again.stop()


async def test_reflection_lists_every_service(tmp_path: Path) -> None:
    """Ours, health and itself."""
    socket = tmp_path / "s"
    async with running(UnixListener(socket, "")), grpc.aio.insecure_channel(f"unix:{socket}") as channel:
        stub: Any = reflection_pb2_grpc.ServerReflectionStub(channel)
        question = reflection_pb2.ServerReflectionRequest(list_services="")
        answers = [answer async for answer in stub.ServerReflectionInfo(iter([question]), timeout=5)]
        assert {service.name for service in answers[0].list_services_response.service} == {
            "observer.Observer",
            "peer.Peer",
            "grpc.health.v1.Health",
            "grpc.reflection.v1alpha.ServerReflection",
        }


async def test_a_unix_socket_is_for_its_owner_and_its_group(tmp_path: Path) -> None:
    """Mode 0660 and the group from the start; nothing is left at the end."""
    ours = set(os.getgroups())
    groups = [
        group
        for group in grp.getgrall()
        if group.gr_gid != os.getgid() and (os.geteuid() == 0 or group.gr_gid in ours)
    ]
    if not groups:
        pytest.skip("this user may give files to no other group")
    socket = tmp_path / "s"
    listener = listener_of(f"unix://{socket}", None, False, AGE, "listen", groups[0].gr_name)
    async with running(listener):
        found = socket.stat()
        assert (stat.S_IMODE(found.st_mode), found.st_gid) == (0o660, groups[0].gr_gid)
        assert (listener.port, listener.facts) == (0, {"socket": str(socket)})
    assert not socket.exists()


async def test_a_group_that_is_not_there_is_said_and_the_socket_serves(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Its owner's group stays; the umask is as before."""
    socket = tmp_path / "s"
    before = os.umask(0o022)
    try:
        async with (
            running(UnixListener(socket, "no-such-group")),
            grpc.aio.insecure_channel(f"unix:{socket}") as channel,
        ):
            assert await status(channel) is not None
            assert os.umask(0o022) == 0o022
    finally:
        os.umask(before)
    (record,) = [r for r in caplog.records if r.message == "socket stays with its owner's group"]
    assert record.__dict__["group"] == "no-such-group"


async def test_a_socket_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    """A folder that is a file, a path that is too long: the key that named it, and the remedy."""
    (tmp_path / "file").write_text("")
    for socket in (tmp_path / "file" / "s", tmp_path / ("s" * 120)):
        server = RpcServer(listener_of(f"unix:{socket}", None, False, AGE, "listen"), [])
        with pytest.raises(InvalidInputError, match=r"cannot listen on .*folder writable") as caught:
            await server.start()
        assert caught.value.path == "listen"
        await server.stop()


async def test_tcp_demands_the_clients_certificate(tls: TlsFiles) -> None:
    """With one it answers, without one the handshake fails."""
    listener = TcpListener("127.0.0.1:0", tls, False, AGE, "listen")
    async with running(listener) as server:
        assert listener.facts == {"address": "127.0.0.1:0", "port": server.port, "tls": True}
        options = [verify_name_option("n1.default.hubble-grpc.cilium.io")]
        address = f"127.0.0.1:{server.port}"
        async with grpc.aio.secure_channel(address, channel_credentials(tls), options=options) as channel:
            assert await status(channel) is not None
        nobody = grpc.ssl_channel_credentials(tls.ca.read_bytes())
        async with grpc.aio.secure_channel(address, nobody, options=options) as channel:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await status(channel)
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


async def test_plain_text_is_served_on_loopback_and_loudly(caplog: pytest.LogCaptureFixture) -> None:
    """Where it was asked for; nowhere else."""
    async with (
        running(listener_of("127.0.0.1:0", None, True, AGE, "listen")) as server,
        grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel,
    ):
        assert await status(channel) is not None
    assert "SERVING PLAIN TEXT WITHOUT TLS, AS TOLD" in caplog.text
    for address, allowed in (("127.0.0.1:0", False), ("0.0.0.0:0", True)):
        with pytest.raises(InvalidInputError):
            listener_of(address, None, allowed, AGE, "listen")


async def test_a_port_in_use_is_named_and_had_once_it_is_free() -> None:
    """A second server never shares the first one's port; `start` may be called again."""
    async with running(listener_of("127.0.0.1:0", None, True, AGE, "listen")) as first:
        place = listener_of(f"127.0.0.1:{first.port}", None, True, AGE, "listen")
        second = RpcServer(place, [Service(OBSERVER, Answers())])
        with pytest.raises(
            InvalidInputError, match=rf"listen: cannot listen on 127.0.0.1:{first.port}: is it"
        ):
            await second.start()
    await second.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{second.port}") as channel:
        assert await status(channel) is not None
    await second.stop()


async def test_followers_are_ended_when_the_server_stops(tmp_path: Path) -> None:
    """After the grace period, not at their own time."""
    socket = tmp_path / "s"
    async with grpc.aio.insecure_channel(f"unix:{socket}") as channel:
        stub: Any = observer_pb2_grpc.ObserverStub(channel)
        async with running(UnixListener(socket, "")):
            call = stub.GetFlows(observer_pb2.GetFlowsRequest(follow=True), timeout=30)
            assert (await call.read()).node_name == "bytes"
            assert (await call.read()).node_name == "message"
            began = time.monotonic()
        assert 0.5 < time.monotonic() - began < 10
        with pytest.raises(grpc.aio.AioRpcError):
            await call.read()


async def test_a_connection_ends_at_its_age() -> None:
    """The listener's options are the server's."""
    place = listener_of("127.0.0.1:0", None, True, ConnectionAge(age_s=0.2, grace_s=0.2), "listen")
    async with (
        running(place) as server,
        grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel,
    ):
        stub: Any = observer_pb2_grpc.ObserverStub(channel)
        call = stub.GetFlows(observer_pb2.GetFlowsRequest(follow=True), timeout=30)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            async for _ in call:
                pass
        assert caught.value.code() is not grpc.StatusCode.DEADLINE_EXCEEDED
        assert await status(channel) is not None


async def test_a_server_that_never_listened_removes_nobodys_socket(tmp_path: Path) -> None:
    """Stopping it leaves the other's socket alone."""
    socket = tmp_path / "s"
    async with running(UnixListener(socket, "")):
        idle = RpcServer(UnixListener(socket, ""), [])
        await idle.stop()
        assert socket.exists()


async def test_a_server_that_ends_leaves_the_socket_of_the_one_after_it(tmp_path: Path) -> None:
    """A restarted flow server may listen before the old one has let its followers go."""
    socket = tmp_path / "s"
    old, new = UnixListener(socket, ""), UnixListener(socket, "")
    servers = grpc.aio.server(), grpc.aio.server()
    for listener, server in zip((old, new), servers, strict=True):
        listener.bind(server)
        await server.start()
    assert inode(socket) is not None
    old.close()
    assert socket.exists()
    new.close()
    assert not socket.exists()
    for server in servers:
        await server.stop(0)
