"""A relay over real nodes: merged in time order, resumed, told who is there."""

import asyncio
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import pytest

from palomar.certs import Role
from palomar_pb.observer import observer_pb2, observer_pb2_grpc
from palomar_pb.observer.observer_pb2 import GetFlowsRequest
from palomar_pb.palomar.v1 import batch_pb2_grpc
from palomar_pb.relay import relay_pb2
from relay import collector
from relay.peers import Peer, PeerState
from tests.kit.flows import CLIENT
from tests.kit.ports import free_port
from tests.kit.relaycluster import (
    NS_PER_S,
    Cluster,
    Follower,
    Node,
    ask,
    cluster,
    flows_of,
    follower,
    write_peers,
)
from tests.kit.wait import eventually_async

ROOT = Path(__file__).parents[2]
ENVIRONMENT = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'proto'}", "GRPC_VERBOSITY": "NONE"}
UNAVAILABLE = relay_pb2.NODE_UNAVAILABLE
GONE = relay_pb2.NODE_GONE


async def test_flows_of_all_nodes_come_in_time_order(tmp_path: Path) -> None:
    """What three nodes have stored comes as one stream, sorted, each flow once."""
    async with cluster(tmp_path) as running, running.channel() as channel:
        await running.connected()
        expected = Counter()
        for _ in range(5):
            for node in running.nodes:
                expected.update((node.name, number) for number in node.emit(20))
        responses = await ask(channel)
        flows = [r for r in responses if r.WhichOneof("response_types") == "flow"]
        times = [r.time.ToNanoseconds() for r in flows]
        assert times == sorted(times)
        assert Counter(flows_of(responses)) == expected
        assert responses[0].node_status.state_change == relay_pb2.NODE_CONNECTED
        assert sorted(responses[0].node_status.node_names) == ["default/n1", "default/n2", "default/n3"]


async def test_a_follower_sees_what_happens_and_nodes_that_go_and_return(tmp_path: Path) -> None:
    """A node that stops is reported; when it is back its flows of the meantime come too, each once."""
    async with cluster(tmp_path) as running, running.channel() as channel:
        await running.connected()
        first, second, third = running.nodes
        async with follower(channel) as seen:
            expected = Counter()
            await _emit_until_seen(running, seen, expected)
            await second.stop()
            expected.update((second.name, number) for number in second.emit(10))
            expected.update((first.name, number) for number in first.emit(10))
            await eventually_async(lambda: _with(expected, first) == _with(Counter(seen.flows()), first))
            await eventually_async(
                lambda: any(
                    state == relay_pb2.NODE_UNAVAILABLE and names == ("default/n2",)
                    for state, names, _ in seen.states()
                )
            )
            await second.start()
            await eventually_async(lambda: Counter(seen.flows()) == expected, timeout_s=20)
            expected.update((second.name, number) for number in second.emit(3))
            await eventually_async(lambda: Counter(seen.flows()) == expected)
            assert (relay_pb2.NODE_CONNECTED, ("default/n2",), "") in seen.states()
        assert third.server is not None


def _with(counter: Counter[tuple[str, int]], node: Any) -> Counter[tuple[str, int]]:
    return Counter({key: count for key, count in counter.items() if key[0] == node.name})


async def _emit_until_seen(
    running: Cluster,
    seen: Follower,
    expected: Counter[tuple[str, int]],
    nodes: Sequence[Node] = (),
) -> None:
    """Emit on every node until the follower's streams are up, then check that nothing is missing."""
    started: set[str] = set()
    wanted = list(nodes) or running.nodes

    def has_begun() -> bool:
        started.update(name for name, _ in seen.flows())
        for node in wanted:
            if node.name not in started:
                expected.update((node.name, number) for number in node.emit(1))
        return {node.name for node in wanted} <= started

    await eventually_async(has_begun, interval_s=0.05)
    await eventually_async(lambda: Counter(seen.flows()) == expected)


async def test_twenty_nodes_some_slow_dead_lying_or_with_wrong_certificates(tmp_path: Path) -> None:
    """The good ones' flows come whole and in order, and within the bounded wait."""
    async with cluster(tmp_path, 20, sort_wait_ms=150) as running, running.channel() as channel:
        await running.connected()
        nodes = running.nodes
        dead, wrong, ahead, behind, slow = nodes[15:]
        good = nodes[:15]
        await dead.stop()
        await wrong.stop()
        running.certificates.spoil(wrong.tls, Role.AGENT, "somebody-else")
        await wrong.start()
        ahead.clock.offset_ns = 3600 * NS_PER_S
        behind.clock.offset_ns = -3600 * NS_PER_S
        await eventually_async(lambda: running.state(dead.name) is PeerState.UNAVAILABLE, timeout_s=20)
        await eventually_async(lambda: "is for somebody-else" in running.reason(wrong.name), timeout_s=20)
        live = [*good, ahead, behind, slow]
        async with follower(channel) as seen:
            expected: Counter[tuple[str, int]] = Counter()
            await _emit_until_seen(running, seen, expected, live)
            begin = len(seen.responses)
            for turn in range(10):
                for node in live:
                    if node is not slow or turn % 5 == 4:  # stores rarely, and late
                        expected.update((node.name, number) for number in node.emit(3))
                started = time.monotonic()
                await eventually_async(lambda: len(seen.flows()) == expected.total(), interval_s=0.005)
                assert time.monotonic() - started < 1.0
            assert Counter(seen.flows()) == expected
            names = {f"default/{node.name}" for node in good}
            times = [r.time.ToNanoseconds() for r in seen.responses[begin:] if r.node_name in names]
            assert times == sorted(times)
            gone = {name for state, names, _ in seen.states() for name in names if state == UNAVAILABLE}
            assert gone >= {"default/n16", "default/n17"}
        offset = running.relay.metrics.clock_offset
        assert 3590 < offset.labels("default/n18")._value.get() < 3610
        assert -3610 < offset.labels("default/n19")._value.get() < -3590


async def test_a_certificate_is_rotated_while_following_and_no_flow_is_missed(tmp_path: Path) -> None:
    """Nodes' and relay's certificates are replaced under a stream; old connections are aged out."""
    async with cluster(tmp_path, 2, retire_s=0.5) as running, running.channel() as channel:
        await running.connected()
        async with follower(channel) as seen:
            expected: Counter[tuple[str, int]] = Counter()
            await _emit_until_seen(running, seen, expected)
            before = {node.name: running.relay.pool.get(node.full_name).channel for node in running.nodes}
            for node in running.nodes:
                running.certificates.issue(Role.AGENT, node.name)
            running.certificates.issue(Role.RELAY, "relay")

            def all_moved() -> bool:
                for node in running.nodes:
                    expected.update((node.name, number) for number in node.emit(2))
                entries = [running.relay.pool.get(node.full_name) for node in running.nodes]
                moved = all(entry.channel is not before[entry.peer.name[8:]] for entry in entries)
                return moved and not running.relay.pool.retiring

            await eventually_async(all_moved, timeout_s=20, interval_s=0.02)
            for node in running.nodes:
                expected.update((node.name, number) for number in node.emit(5))
            await eventually_async(lambda: Counter(seen.flows()) == expected, timeout_s=20)
            # Another client sees the relay's new certificate.
            async with running.channel() as another:
                assert await ask(another, number=1)


async def test_peers_are_announced_changed_and_deleted(tmp_path: Path) -> None:
    """The relay knows the nodes that one node's peer service names, and follows every change."""
    async with cluster(tmp_path, 3, announced=True) as running, running.channel() as channel:
        await running.connected()
        first, second, third = running.nodes
        async with follower(channel) as seen:
            write_peers(first.peers_file, [first, second])
            await eventually_async(lambda: running.state("n3") is PeerState.GONE)
            await eventually_async(lambda: (GONE, ("default/n3",), "the node left") in seen.states())
            await second.stop()
            second.port = free_port()
            await second.start()  # another address
            write_peers(first.peers_file, [first, second, third])
            await running.connected()
            expected: Counter[tuple[str, int]] = Counter()
            await _emit_until_seen(running, seen, expected)


async def test_the_announcing_node_may_restart(tmp_path: Path) -> None:
    """Meanwhile peers stay; what it no longer names when it is back is gone."""
    async with cluster(tmp_path, 3, announced=True) as running:
        await running.connected()
        first, second, _ = running.nodes
        await first.stop()
        await eventually_async(lambda: running.state("n1") is PeerState.UNAVAILABLE, timeout_s=15)
        assert running.state("n3") is PeerState.CONNECTED
        write_peers(first.peers_file, [first, second])
        await first.start()
        write_peers(first.peers_file, [first, second])
        await eventually_async(lambda: running.state("n3") is PeerState.GONE, timeout_s=20)
        await running.connected("n1", "n2")


async def test_a_client_that_never_reads_costs_a_bounded_amount_and_nobody_notices(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its stream waits, the other client goes on, and memory does not grow with what it does not read."""
    monkeypatch.setattr(collector, "MAX_HELD_BYTES", 1 << 20)
    async with cluster(tmp_path, 2, capacity=131_072) as running, running.channel() as channel:
        await running.connected()
        stub: Any = batch_pb2_grpc.FlowBatchesStub(channel)
        lazy = [stub.GetFlows(GetFlowsRequest(follow=True, first=True)) for _ in range(3)]
        for call in lazy:
            await call.read()
        async with running.channel() as other, follower(other) as seen:
            expected: Counter[tuple[str, int]] = Counter()
            await _emit_until_seen(running, seen, expected)

            async def pour(rounds: int) -> None:
                for _ in range(rounds):
                    for node in running.nodes:
                        expected.update((node.name, number % 65536) for number in node.emit(1000))
                    await eventually_async(
                        lambda: len(seen.flows()) == expected.total(), timeout_s=20, interval_s=0.05
                    )
                    seen.forget_flows(expected)

            await pour(12)  # fills what may be held
            before = _resident_mib()
            await pour(25)  # 30 MB for each of the three
            assert _resident_mib() - before < 30
            assert running.relay.metrics.streams._value.get() == 4
        for call in lazy:
            call.cancel()
        await eventually_async(lambda: running.relay.metrics.streams._value.get() == 0)


def _resident_mib() -> int:
    """Without the mapped stores."""
    status = Path("/proc/self/status").read_text()
    return int(next(line.split()[1] for line in status.splitlines() if line.startswith("RssAnon"))) >> 10


async def test_labels_with_odd_content_pass_unchanged(tmp_path: Path) -> None:
    """HTML, a name of a kilobyte, emoji: bytes in, bytes out."""
    odd = ("k8s:app=<script>alert(1)</script>", "k8s:" + "x" * 1024 + "=y", "k8s:mood=🦉")
    async with cluster(tmp_path, 1) as running, running.channel() as channel:
        await running.connected()
        node = running.nodes[0]
        ref = node.names.intern(replace(CLIENT, labels=odd, pod="p" * 1024))
        node.names.flush()
        node.emit(1, src_ref=ref)
        flows = [r.flow for r in await ask(channel, number=1) if r.HasField("flow")]
        assert tuple(flows[0].source.labels) == odd
        assert flows[0].source.pod_name == "p" * 1024


async def test_losses_of_a_node_come_through_and_counters_are_summed(tmp_path: Path) -> None:
    """What a node lost is told where it happened, and in the batches' counters."""
    async with cluster(tmp_path, 2) as running, running.channel() as channel:
        await running.connected()
        for node in running.nodes:
            node.emit(2)
        stub: Any = batch_pb2_grpc.FlowBatchesStub(channel)
        batches = [b async for b in stub.GetFlows(GetFlowsRequest(first=True), timeout=10)]
        assert len(batches[0].times_ns) == len(batches[0].responses)
        assert batches[0].clock_ns
        flows = [r for b in batches for r in b.responses if r.HasField("flow")]
        assert len(flows) == 4


async def test_a_foreign_hubble_server_is_merged_by_the_public_api(tmp_path: Path) -> None:
    """A server that knows observer.Observer alone is asked a message per flow."""
    server = grpc.aio.server()
    observer_pb2_grpc.add_ObserverServicer_to_server(ForeignObserver(), server)
    socket = tmp_path / "foreign.sock"
    server.add_insecure_port(f"unix:{socket}")
    await server.start()
    try:
        peers = (Peer("cluster/foreign", f"unix:{socket}"),)
        async with cluster(tmp_path, 0, peers=peers) as running, running.channel() as channel:
            await eventually_async(
                lambda: [e.state for e in running.relay.pool.entries()] == [PeerState.CONNECTED]
            )
            assert [number for _, number in flows_of(await ask(channel, number=5))] == [0, 1, 2, 3, 4]
            async with follower(channel, first=True) as seen:
                await eventually_async(lambda: len(seen.flows()) == 5)
    finally:
        await server.stop(0)


class ForeignObserver(observer_pb2_grpc.ObserverServicer):
    """As a Hubble server of another make."""

    async def GetFlows(self, request: GetFlowsRequest, context: Any) -> AsyncIterator[Any]:  # noqa: N802 - gRPC
        for number in range(5):
            response = observer_pb2.GetFlowsResponse(node_name="foreign")
            response.flow.l4.TCP.source_port = number
            response.flow.time.FromNanoseconds(NS_PER_S * (number + 1))
            yield response
        if request.follow:
            await asyncio.Event().wait()

    async def ServerStatus(self, request: Any, context: Any) -> Any:  # noqa: N802 - gRPC
        return observer_pb2.ServerStatusResponse(num_flows=5, max_flows=5)


async def test_a_follower_that_has_been_greeted_misses_nothing(tmp_path: Path) -> None:
    """The metadata come when every connected node has taken up the request."""
    async with cluster(tmp_path, 3) as running, running.channel() as channel:
        await running.connected()
        stub: Any = batch_pb2_grpc.FlowBatchesStub(channel)
        for _ in range(5):
            call = stub.GetFlows(GetFlowsRequest(follow=True))
            assert "hubble-relay-version" in dict(await call.initial_metadata())
            expected = Counter((node.name, number) for node in running.nodes for number in node.emit(2))
            seen: Counter[tuple[str, int]] = Counter()
            while seen != expected:
                seen.update(flows_of((await asyncio.wait_for(call.read(), 5)).responses))
            call.cancel()


async def test_a_node_that_hangs_delays_nobody_and_comes_back(tmp_path: Path) -> None:
    """A stopped process is noticed by its silence; the other node's flows come within the wait."""
    async with cluster(tmp_path, 2) as running, running.channel() as channel:
        good, hanging = running.nodes
        await hanging.stop()
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "hubble.server", "--config-json", hanging.config.to_json(), env=ENVIRONMENT
        )
        try:
            await running.connected()
            async with follower(channel) as seen:
                expected: Counter[tuple[str, int]] = Counter()
                await _emit_until_seen(running, seen, expected)
                process.send_signal(signal.SIGSTOP)
                expected.update((hanging.name, number) for number in hanging.emit(1))
                for _ in range(20):
                    started = time.monotonic()
                    expected.update((good.name, number) for number in good.emit(1))
                    wanted = _with(expected, good)
                    await eventually_async(
                        lambda w=wanted: _with(Counter(seen.flows()), good) == w, interval_s=0.002
                    )
                    assert time.monotonic() - started < 0.5
                started = time.monotonic()
                assert flows_of(await ask(channel, number=1))  # the past of the others, too
                assert time.monotonic() - started < 20
                await eventually_async(lambda: running.state("n2") is PeerState.UNAVAILABLE, timeout_s=30)
                process.send_signal(signal.SIGCONT)
                await running.connected()
                await eventually_async(lambda: Counter(seen.flows()) == expected, timeout_s=20)
        finally:
            process.kill()
            await process.wait()
