"""Certificates in a cluster: those that do not serve, those of other makes, and their replacement.

Who is refused, what the log says, and that everybody else goes on.
"""

import asyncio
import logging
from collections import Counter
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest

from palomar import certs
from palomar.certrotation import CaRotation
from palomar.certs import Role
from palomar.clock import SystemClock
from palomar.tls import TlsFiles
from palomar_pb.observer import observer_pb2, observer_pb2_grpc
from palomar_pb.relay import relay_pb2
from relay.config import RelayConfig
from relay.main import Relay
from relay.peers import PeerState
from tests.kit import oddcerts
from tests.kit.relaycluster import Cluster, ask, cluster, follower, nodes_are_followed
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
        async with follower(channel) as seen:
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


@pytest.mark.parametrize("kind", ["rsa", "rsa, PKCS 1", "ec, SEC 1", "behind another authority"])
async def test_keys_and_chains_of_other_makes_serve(tmp_path: Path, kind: str) -> None:
    """On the node's side and on the relay's."""
    async with cluster(tmp_path, 1) as running:
        await running.connected()
        node = running.nodes[0]
        ca = oddcerts.load(running.certificates.directory.ca())
        relay = running.certificates.directory.files(Role.RELAY, "relay")
        if kind == "behind another authority":
            root = oddcerts.make("Root", is_ca=True)
            ca = oddcerts.make("Between", root, is_ca=True)
            relay.ca.write_bytes(root.pem + relay.ca.read_bytes())
        for files, names in ((node.tls, [node.server_name]), (relay, ["instance.hubble-relay.cilium.io"])):
            key = oddcerts.rsa_key() if kind.startswith("rsa") else oddcerts.ec_key()
            party = oddcerts.make("odd", ca, key=key, names=names)
            files.key.write_bytes(party.key_pem(traditional="1" in kind))
            files.cert.write_bytes(party.pem + (ca.pem if "behind" in kind else b""))
        before = running.relay.pool.get(node.full_name).channel
        await eventually_async(
            lambda: running.relay.pool.get(node.full_name).channel is not before, timeout_s=15
        )
        await node.stop()
        await eventually_async(lambda: running.state("n1") is PeerState.UNAVAILABLE, timeout_s=15)
        await node.start()
        await running.connected()
        await nodes_are_followed(running)


@pytest.mark.parametrize(
    ("whose", "usage", "words"),
    [
        ("node", oddcerts.CLIENT, "is for clients only: its extended key usage lacks serverAuth"),
        ("relay", oddcerts.SERVER, "is for servers only: its extended key usage lacks clientAuth"),
    ],
)
async def test_a_certificate_for_the_other_side_only_is_called_that(
    tmp_path: Path, whose: str, usage: Any, words: str
) -> None:
    """gRPC says no more than `unsupported certificate purpose`, or nothing."""
    async with cluster(tmp_path, 1) as running:
        await running.connected()
        node = running.nodes[0]
        files = node.tls if whose == "node" else running.certificates.directory.files(Role.RELAY, "relay")
        ca = oddcerts.load(running.certificates.directory.ca())
        await node.stop()
        party = oddcerts.make("odd", ca, names=[node.server_name], usages=[usage])
        files.key.write_bytes(party.key_pem())
        files.cert.write_bytes(party.pem)
        await node.start()
        await eventually_async(lambda: words in running.reason("n1"), timeout_s=15)
        assert "CN=odd, valid 20" in running.reason("n1")


async def test_a_client_hears_whose_reason_is_which(tmp_path: Path) -> None:
    """Two nodes away for two reasons: each reason stands by its node."""
    async with cluster(tmp_path, 3) as running:
        await running.connected()
        _, second, third = running.nodes
        await second.stop()
        await third.stop()
        running.certificates.spoil(third.tls, Role.AGENT, "somebody-else")
        await third.start()
        await eventually_async(lambda: "is for somebody-else" in running.reason("n3"), timeout_s=15)
        await eventually_async(lambda: running.state("n2") is PeerState.UNAVAILABLE, timeout_s=15)
        async with running.channel() as channel:
            told = [r.node_status for r in await ask(channel, number=1) if r.HasField("node_status")]
        away = next(t for t in told if t.state_change == relay_pb2.NODE_UNAVAILABLE)
        assert list(away.node_names) == ["default/n2", "default/n3"]
        second_says, third_says = away.message.split("; default/n3: ")
        assert second_says.startswith("default/n2: ")
        assert "is for somebody-else" in third_says


@pytest.mark.parametrize("how", ["missing", "half", "of another key"])
async def test_a_relay_that_starts_before_its_certificate_is_whole_finds_its_nodes_later(
    tmp_path: Path, how: str
) -> None:
    """It lists them meanwhile, with the reason, and needs no restart."""
    async with cluster(tmp_path, 2) as running:
        tls = running.certificates.issue(Role.RELAY, "late")
        if how == "missing":
            tls.cert.unlink()
        elif how == "half":
            tls.cert.write_bytes(tls.cert.read_bytes()[:300])
        else:
            tls.key.write_bytes(certs.make_ca(running.certificates.now).key)
        peers = tuple(node.peer for node in running.nodes)
        relay = Relay(RelayConfig(listen="127.0.0.1:0", tls=tls, peers=peers), SystemClock())
        late = replace(running, relay=relay)
        await relay.start()
        try:
            assert [late.state(node.name) for node in late.nodes] == [PeerState.UNAVAILABLE] * 2
            assert "relay-late" in late.reason("n1")
            running.certificates.issue(Role.RELAY, "late")
            await late.connected()
            await eventually_async(lambda: relay.server.port, timeout_s=15)
            await nodes_are_followed(late)
        finally:
            await relay.stop()
