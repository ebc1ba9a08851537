"""A relay over real nodes: merged in time order, resumed, told who is there."""

import asyncio
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import pytest
from aiohttp import ClientSession
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.field_mask_pb2 import FieldMask
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from palomar.certs import Role
from palomar_pb.flow.flow_pb2 import FlowFilter
from palomar_pb.observer import observer_pb2, observer_pb2_grpc
from palomar_pb.observer.observer_pb2 import GetFlowsRequest
from palomar_pb.palomar.v1 import batch_pb2_grpc
from palomar_pb.palomar.v1.flow_ext_pb2 import FlowExtension
from palomar_pb.relay import relay_pb2
from relay import collector
from relay.peers import Peer, PeerState
from tests.kit.flows import CLIENT
from tests.kit.relaycluster import NS_PER_S, Cluster, Follower, Node, ask, cluster, flows_of, write_peers
from tests.kit.wait import eventually_async

ROOT = Path(__file__).parents[2]
ENVIRONMENT = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'proto'}", "GRPC_VERBOSITY": "NONE"}
UNAVAILABLE = relay_pb2.NODE_UNAVAILABLE
GONE = relay_pb2.NODE_GONE


@asynccontextmanager
async def follower(channel: grpc.aio.Channel, **request: Any) -> AsyncIterator[Follower]:
    """A client that follows; it has begun when this is entered."""
    running = Follower(channel, **request)
    task = asyncio.get_running_loop().create_task(running.run())
    try:
        await eventually_async(lambda: running.responses)
        yield running
    finally:
        running.cancel()
        await asyncio.gather(task, return_exceptions=True)


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


async def test_status_nodes_and_namespaces_are_summed(tmp_path: Path) -> None:
    """ServerStatus adds up, GetNodes lists with TLS names and states, GetNamespaces unites."""
    async with cluster(tmp_path) as running, running.channel() as channel:
        await running.connected()
        for count, node in enumerate(running.nodes, 1):
            node.emit(count)
        stub: Any = observer_pb2_grpc.ObserverStub(channel)
        call = stub.ServerStatus(observer_pb2.ServerStatusRequest(), timeout=10)
        status = await call
        assert (status.num_flows, status.max_flows, status.seen_flows) == (6, 3 * 4096, 6)
        assert (status.num_connected_nodes.value, status.num_unavailable_nodes.value) == (3, 0)
        assert status.version.startswith("palomar-relay")
        assert "hubble-relay-version" in dict(await call.initial_metadata())
        await running.nodes[1].stop()
        await eventually_async(lambda: running.state("n2").name == "UNAVAILABLE", timeout_s=15)
        status = await stub.ServerStatus(observer_pb2.ServerStatusRequest(), timeout=10)
        assert list(status.unavailable_nodes) == ["default/n2"]
        assert status.num_flows == 4
        nodes = (await stub.GetNodes(observer_pb2.GetNodesRequest(), timeout=10)).nodes
        assert [(n.name, n.state, n.tls.enabled) for n in nodes] == [
            ("default/n1", relay_pb2.NODE_CONNECTED, True),
            ("default/n2", relay_pb2.NODE_UNAVAILABLE, True),
            ("default/n3", relay_pb2.NODE_CONNECTED, True),
        ]
        assert nodes[0].tls.server_name == "n1.default.hubble-grpc.cilium.io"
        assert [n.num_flows for n in nodes] == [1, 0, 3]
        spaces = (await stub.GetNamespaces(observer_pb2.GetNamespacesRequest(), timeout=10)).namespaces
        assert ("default", "default") in {(s.cluster, s.namespace) for s in spaces}


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


async def test_a_relay_without_peers_answers(tmp_path: Path) -> None:
    """Nothing is known, nothing is wrong: empty answers, health says NOT_SERVING."""
    async with cluster(tmp_path, 0) as running, running.channel() as channel:
        assert await ask(channel, number=10) == []
        stub: Any = observer_pb2_grpc.ObserverStub(channel)
        status = await stub.ServerStatus(observer_pb2.ServerStatusRequest(), timeout=5)
        assert status.num_connected_nodes.value == 0
        assert not (await stub.GetNodes(observer_pb2.GetNodesRequest(), timeout=5)).nodes
        health: Any = health_pb2_grpc.HealthStub(channel)
        answer = await health.Check(health_pb2.HealthCheckRequest(), timeout=5)
        assert answer.status == health_pb2.HealthCheckResponse.NOT_SERVING


async def test_health_reflection_and_refusals(tmp_path: Path) -> None:
    """SERVING with a node; services are listed; agent events are a node's own."""
    async with cluster(tmp_path, 1) as running, running.channel() as channel:
        await running.connected()
        health: Any = health_pb2_grpc.HealthStub(channel)

        async def serving() -> bool:
            states = [
                (await health.Check(health_pb2.HealthCheckRequest(service=name), timeout=5)).status
                for name in ("", "observer.Observer", "hubble.server.Observer")
            ]
            return states == [health_pb2.HealthCheckResponse.SERVING] * 3

        await eventually_async(serving)
        reflection: Any = reflection_pb2_grpc.ServerReflectionStub(channel)
        call = reflection.ServerReflectionInfo(
            iter([reflection_pb2.ServerReflectionRequest(list_services="")]), timeout=5
        )
        listed = {service.name for service in (await call.read()).list_services_response.service}
        assert {"observer.Observer", "palomar.v1.FlowBatches", "grpc.health.v1.Health"} <= listed
        stub: Any = observer_pb2_grpc.ObserverStub(channel)
        for method, request in (
            (stub.GetAgentEvents, observer_pb2.GetAgentEventsRequest()),
            (stub.GetDebugEvents, observer_pb2.GetDebugEventsRequest()),
        ):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                async for _ in method(request, timeout=5):
                    pass
            assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


@pytest.mark.parametrize("count", [0, 2])
@pytest.mark.parametrize(
    ("whitelist", "field"),
    [
        (FlowFilter(source_ip=["not an address"]), "whitelist[0].source_ip[0]"),
        (FlowFilter(destination_port=["-1"]), "whitelist[0].destination_port[0]"),
    ],
)
async def test_filters_with_nonsense_are_named(
    tmp_path: Path, count: int, whitelist: FlowFilter, field: str
) -> None:
    """With nodes and without: INVALID_ARGUMENT and the field."""
    async with cluster(tmp_path, count) as running, running.channel() as channel:
        await running.connected()
        for follow in (False, True):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await ask(channel, whitelist=[whitelist], follow=follow)
            assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
            assert field in caught.value.details()


async def test_nonsense_that_only_a_node_understands_is_passed_on(tmp_path: Path) -> None:
    """The node's INVALID_ARGUMENT is the relay's, in both ways to ask."""
    async with cluster(tmp_path, 2) as running, running.channel() as channel:
        await running.connected()
        nonsense = FlowFilter(source_label=["a in (b"])
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await ask(channel, blacklist=[nonsense])
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert "blacklist[0].source_label[0]" in caught.value.details()
        stub: Any = batch_pb2_grpc.FlowBatchesStub(channel)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            async for _ in stub.GetFlows(GetFlowsRequest(follow=True, blacklist=[nonsense]), timeout=10):
                pass
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


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
            second.port = 0
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


async def test_our_extension_reaches_whom_it_says_something(tmp_path: Path) -> None:
    """Through the public API flows are as a Hubble relay's, unless asked for; our batches carry it."""
    understood = AnyMessage()
    understood.Pack(FlowExtension())
    async with cluster(tmp_path, 2) as running, running.channel() as channel:
        await running.connected()
        for node in running.nodes:
            node.emit(1)

        async def extended(**request: Any) -> set[bool]:
            return {
                r.flow.HasField("extensions") for r in await ask(channel, **request) if r.HasField("flow")
            }

        assert await extended() == {False}
        assert await extended(extensions=understood) == {True}
        assert await extended(field_mask=FieldMask(paths=["uuid", "extensions"])) == {True}
        stub: Any = batch_pb2_grpc.FlowBatchesStub(channel)
        batches = [b async for b in stub.GetFlows(GetFlowsRequest(first=True), timeout=10)]
        flows = [r.flow for b in batches for r in b.responses if r.HasField("flow")]
        assert {flow.HasField("extensions") for flow in flows} == {True}


async def test_metrics_are_served(tmp_path: Path) -> None:
    """Peers by state, flows, certificate expiry."""
    async with cluster(tmp_path, 1, metrics_listen="127.0.0.1:0") as running, running.channel() as channel:
        await running.connected()
        running.nodes[0].emit(3)
        await ask(channel, number=3)
        assert running.relay.metrics_server is not None
        url = f"http://127.0.0.1:{running.relay.metrics_server.port}/metrics"
        async with ClientSession() as session, session.get(url) as answer:
            text = await answer.text()
        assert 'palomar_relay_peers{state="connected"} 1.0' in text
        assert 'palomar_relay_received_flows_total{peer="default/n1"} 3.0' in text
        expiry = [
            line for line in text.splitlines() if line.startswith("palomar_certificate_expiry_seconds{")
        ]
        assert len(expiry) == 2
        assert any("relay-relay.crt" in line and float(line.split()[-1]) > 29 * 86400 for line in expiry)


async def test_too_many_streams_are_refused(tmp_path: Path) -> None:
    """RESOURCE_EXHAUSTED, and served again when others have ended."""
    async with cluster(tmp_path, 1) as running, running.channel() as channel:
        await running.connected()
        running.relay.core.max_streams = 1
        async with follower(channel):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await ask(channel, number=1)
            assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        await eventually_async(lambda: running.relay.metrics.streams._value.get() == 0)
        assert await ask(channel, number=1)


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
