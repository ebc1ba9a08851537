"""What a client may ask of a relay: status, nodes, health, our extension; what is refused, and how."""

from pathlib import Path
from typing import Any

import grpc
import pytest
from aiohttp import ClientSession
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.field_mask_pb2 import FieldMask
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from palomar_pb.flow.flow_pb2 import FlowFilter
from palomar_pb.observer import observer_pb2, observer_pb2_grpc
from palomar_pb.observer.observer_pb2 import GetFlowsRequest
from palomar_pb.palomar.v1 import batch_pb2_grpc
from palomar_pb.palomar.v1.flow_ext_pb2 import FlowExtension
from palomar_pb.relay import relay_pb2
from tests.kit.relaycluster import ask, cluster, follower
from tests.kit.wait import eventually_async


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
