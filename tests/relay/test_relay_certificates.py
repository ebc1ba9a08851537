"""Certificates that do not serve: who is refused, what the log says, and that everybody else goes on."""

import asyncio
import logging
from collections import Counter
from datetime import timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest

from palomar import certs
from palomar.certrotation import CaRotation
from palomar.certs import Role
from palomar.tls import TlsFiles
from palomar_pb.observer import observer_pb2, observer_pb2_grpc
from relay.peers import PeerState
from tests.kit.relaycluster import Cluster, Follower, cluster
from tests.kit.wait import eventually_async

DAY = timedelta(days=1)


def spoiled(running: Cluster, files: TlsFiles, role: Role, name: str, how: str) -> None:
    """Replace a certificate by one that does not serve."""
    now = running.certificates.now
    if how == "expired":
        running.certificates.spoil(files, role, name, not_before=now - 2 * DAY, lifetime=-DAY)
    elif how == "not yet valid":
        running.certificates.spoil(files, role, name, not_before=now + DAY, lifetime=2 * DAY)
    elif how == "wrong CA":
        running.certificates.spoil(files, role, name, ca=certs.make_ca(now, name="Another CA"))
    elif how == "wrong name":
        running.certificates.spoil(files, role, "somebody-else")
    else:
        files.cert.unlink()


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("expired", ["OU=agent", "CN=n2", "expired at", "valid 20"]),
        ("not yet valid", ["CN=n2", "not valid before"]),
        ("wrong CA", ["CN=n2", "issued by CN=Another CA, not by our CA"]),
        ("wrong name", ["is for somebody-else.default", "not for n2.default.hubble-grpc.cilium.io"]),
    ],
)
async def test_a_node_with_a_certificate_that_does_not_serve(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, how: str, words: list[str]
) -> None:
    """The relay's log says whose certificate, why and until when; the other node's flows come."""
    async with cluster(tmp_path, 2) as running:
        await running.connected()
        node = running.nodes[1]
        await node.stop()
        spoiled(running, node.tls, Role.AGENT, "n2", how)
        await node.start()
        await eventually_async(lambda: all(word in running.reason("n2") for word in words), timeout_s=15)
        assert running.state("n2") is PeerState.UNAVAILABLE
        told = [r for r in caplog.records if r.levelno == logging.WARNING and r.message == "peer changed"]
        assert any(all(word in str(r.__dict__["reason"]) for word in words) for r in told)
        assert running.state("n1") is PeerState.CONNECTED
        running.certificates.issue(Role.AGENT, "n2")
        await running.connected("n2")  # the node takes the new files up without a restart


async def test_a_node_without_a_certificate_serves_its_socket_and_listens_when_it_has_one(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The node's log names the file and the remedy."""
    async with cluster(tmp_path, 2) as running:
        await running.connected()
        node = running.nodes[1]
        await node.stop()
        node.tls.cert.unlink()
        starting = asyncio.get_running_loop().create_task(node.start())
        await eventually_async(lambda: "flow server cannot listen on TCP yet" in caplog.text)
        error = next(r for r in caplog.records if r.message == "flow server cannot listen on TCP yet")
        assert "agent-n2.crt" in str(error.__dict__["error"])
        assert "palomar certs" in str(error.__dict__["error"])
        socket = node.config.paths.hubble_socket
        async with grpc.aio.insecure_channel(f"unix:{socket}") as channel:
            stub: Any = observer_pb2_grpc.ObserverStub(channel)
            assert (await stub.ServerStatus(observer_pb2.ServerStatusRequest(), timeout=5)).max_flows
        running.certificates.issue(Role.AGENT, "n2")
        await starting
        await running.connected("n2")


@pytest.mark.parametrize("how", ["expired", "not yet valid", "wrong CA", "missing"])
async def test_a_relay_whose_own_certificate_does_not_serve(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, how: str
) -> None:
    """It says that the fault is its own, and connects once the certificate is replaced."""
    words = {
        "expired": "expired at",
        "not yet valid": "not valid before",
        "wrong CA": "not signed by the CA",
        "missing": "palomar certs",
    }[how]
    async with cluster(tmp_path, 2) as running:
        await running.connected()
        relay_files = running.certificates.directory.files(Role.RELAY, "relay")
        spoiled(running, relay_files, Role.RELAY, "relay", how)
        if how == "missing":
            await eventually_async(lambda: "certificate files unusable, the old ones stay" in caplog.text)
            assert all(node.server is not None for node in running.nodes)
            assert running.state("n1") is PeerState.CONNECTED  # what works stays
        else:
            await eventually_async(lambda: running.state("n1") is PeerState.UNAVAILABLE, timeout_s=15)
            assert "our own certificate" in running.reason("n1")
            assert "CN=relay" in running.reason("n1")
            assert words in running.reason("n1")
        running.certificates.issue(Role.RELAY, "relay")
        await running.connected()


@pytest.mark.parametrize("how", ["expired", "not yet valid", "wrong CA", "none at all"])
async def test_a_client_with_a_certificate_that_does_not_serve(tmp_path: Path, how: str) -> None:
    """It is refused; a client with a good one is answered."""
    async with cluster(tmp_path, 1) as running:
        await running.connected()
        bad = running.certificates.issue(Role.CLIENT, "bad")
        if how == "none at all":
            credentials = grpc.ssl_channel_credentials(bad.ca.read_bytes())
        else:
            spoiled(running, bad, Role.CLIENT, "bad", how)
            credentials = grpc.ssl_channel_credentials(
                bad.ca.read_bytes(), bad.key.read_bytes(), bad.cert.read_bytes()
            )
        options = [("grpc.ssl_target_name_override", "instance.hubble-relay.cilium.io")]
        address = f"127.0.0.1:{running.relay.server.port}"
        async with grpc.aio.secure_channel(address, credentials, options=options) as channel:
            stub: Any = observer_pb2_grpc.ObserverStub(channel)
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await stub.ServerStatus(observer_pb2.ServerStatusRequest(), timeout=10)
            assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        async with running.channel() as channel:
            stub = observer_pb2_grpc.ObserverStub(channel)
            assert (await stub.ServerStatus(observer_pb2.ServerStatusRequest(), timeout=10)).max_flows


async def test_plain_text_is_refused_by_a_server_with_tls(tmp_path: Path) -> None:
    """Neither node nor relay answers a client without TLS."""
    async with cluster(tmp_path, 1) as running:
        await running.connected()
        for port in (running.relay.server.port, running.nodes[0].port):
            async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
                stub: Any = observer_pb2_grpc.ObserverStub(channel)
                with pytest.raises(grpc.aio.AioRpcError):
                    await stub.ServerStatus(observer_pb2.ServerStatusRequest(), timeout=5)


async def test_the_ca_itself_is_changed_while_following_and_no_flow_is_missed(tmp_path: Path) -> None:
    """The documented three steps; afterwards a certificate of the old CA is refused, by nodes and relay."""
    async with cluster(tmp_path, 2, retire_s=0.5) as running, running.channel() as channel:
        await running.connected()
        pool, rotation = running.relay.pool, CaRotation(running.certificates.directory)
        old = TlsFiles(*(tmp_path / f"old-{part}" for part in ("cert", "key", "ca")))
        for new, kept in ((old.cert, running.client.cert), (old.key, running.client.key)):
            new.write_bytes(kept.read_bytes())
        seen = Follower(channel)
        task = asyncio.get_running_loop().create_task(seen.run())
        try:
            await eventually_async(lambda: seen.responses)
            expected: Counter[tuple[str, int]] = Counter()
            for step in (rotation.start, rotation.issue, rotation.finish):
                before = {node.full_name: pool.get(node.full_name).channel for node in running.nodes}
                step(running.certificates.now)

                def moved(before: dict[str, Any] = before) -> bool:
                    for node in running.nodes:
                        expected.update((node.name, number) for number in node.emit(1))
                    entries = [pool.get(name) for name in before]
                    fresh = all(entry.channel is not before[entry.peer.name] for entry in entries)
                    connected = all(entry.state is PeerState.CONNECTED for entry in entries)
                    return fresh and connected and not pool.retiring

                await eventually_async(moved, timeout_s=20)
            for node in running.nodes:
                expected.update((node.name, number) for number in node.emit(5))
            await eventually_async(lambda: Counter(seen.flows()) == expected, timeout_s=20)
        finally:
            seen.cancel()
            await asyncio.gather(task, return_exceptions=True)
        old.ca.write_bytes(running.client.ca.read_bytes())
        request = observer_pb2.ServerStatusRequest()
        async with running.channel(old) as late:
            stub: Any = observer_pb2_grpc.ObserverStub(late)
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await stub.ServerStatus(request, timeout=10)
            assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        async with running.channel() as fresh:
            stub = observer_pb2_grpc.ObserverStub(fresh)
            assert (await stub.ServerStatus(request, timeout=10)).num_connected_nodes.value == 2
