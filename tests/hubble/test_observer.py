"""The Observer and FlowBatches services, asked by real gRPC clients over a unix socket on a real store."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.empty_pb2 import Empty
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.timestamp_pb2 import Timestamp
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from hubble.flowendpoint import FlowEndpoint
from hubble.flowquery import NS_PER_S
from hubble.server import program_version
from hubble.storemapping import Loss
from hubble.storewriter import FlowStoreWriter
from palomar_pb.flow import flow_pb2
from palomar_pb.flow.flow_pb2 import FlowFilter
from palomar_pb.observer import observer_pb2
from palomar_pb.observer.observer_pb2 import GetFlowsRequest, GetFlowsResponse
from palomar_pb.palomar.v1.flow_ext_pb2 import FlowExtension
from tests.kit.flows import NOW_NS, SERVER, record, stored
from tests.kit.flowserver import CAPACITY, Server, flow_server
from tests.kit.wait import eventually_async


class FakeClock:
    """Wall clock at NOW_NS; both move when told."""

    def __init__(self) -> None:
        self.now_ns = NOW_NS

    def wall_ns(self) -> int:
        return self.now_ns

    def monotonic_ns(self) -> int:
        return self.now_ns


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
async def server(tmp_path: Path, clock: FakeClock) -> AsyncIterator[Server]:
    async with flow_server(tmp_path, clock) as running:
        yield running


def at(second: int) -> Timestamp:
    stamp = Timestamp()
    stamp.FromNanoseconds(NOW_NS + second * NS_PER_S)
    return stamp


def numbered(begin: int, end: int, **values: Any) -> Any:
    """Rows whose source port is their number and whose time is that many seconds after NOW_NS."""
    return stored(*(record(sport=n, time_ns=NOW_NS + n * NS_PER_S, **values) for n in range(begin, end)))


def port(flow: flow_pb2.Flow) -> int:
    return int(flow.l4.TCP.source_port)


# --- selectors ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("request_fields", "expected"),
    [
        ({}, range(20)),
        ({"number": 5}, range(15, 20)),
        ({"number": 5, "first": True}, range(5)),
        ({"number": 500}, range(20)),
        ({"number": (1 << 64) - 1}, range(20)),
        ({"first": True}, range(20)),
        ({"since": at(17)}, range(17, 20)),
        ({"until": at(3)}, range(4)),
        ({"since": at(5), "until": at(7)}, range(5, 8)),
        ({"number": 2, "since": at(5), "until": at(9)}, range(8, 10)),
        ({"number": 2, "first": True, "since": at(5)}, range(5, 7)),
        ({"since": at(8), "until": at(7)}, range(0)),
        ({"number": 2, "whitelist": [FlowFilter(source_port=["3", "4", "5"])]}, range(4, 6)),
        ({"number": 2, "first": True, "whitelist": [FlowFilter(source_port=["3", "4", "5"])]}, range(3, 5)),
        ({"blacklist": [FlowFilter(source_port=[str(n) for n in range(3, 20)])]}, range(3)),
        ({"whitelist": [FlowFilter(source_port=["99"])]}, range(0)),
        ({"until": Timestamp(seconds=-5)}, range(0)),
    ],
    ids=str,
)
async def test_selectors(server: Server, request_fields: dict[str, Any], expected: range) -> None:
    """Number counts from the newest unless `first` is set; answers are oldest first."""
    server.writer.append(numbered(0, 20))
    assert [port(flow) for flow in await server.flows(**request_fields)] == list(expected)


async def test_an_empty_store_answers_with_nothing(server: Server) -> None:
    """Not with an error."""
    assert await server.get() == []
    assert await server.get(number=5) == []


async def test_rows_of_a_ring_that_went_round(server: Server) -> None:
    """What was overwritten is gone, the rest is in order."""
    for begin in range(0, 10_000, 1000):
        server.writer.append(numbered(begin, begin + 1000))
    ports = [port(flow) for flow in await server.flows()]
    assert ports == list(range(10_000 - len(ports), 10_000))
    assert CAPACITY / 2 <= len(ports) <= CAPACITY
    assert [port(flow) for flow in await server.flows(number=3)] == [9997, 9998, 9999]
    assert [
        port(f) for f in await server.flows(number=2, whitelist=[FlowFilter(source_port=["9000", "9990"])])
    ] == [
        9000,
        9990,
    ]


async def test_flows_have_names(server: Server) -> None:
    """From the names log, through the store, to the client."""
    server.writer.append(numbered(0, 1, type=5, subtype=0, direction=1, policy_cookie=77, packets=9))
    (response,) = await server.get()
    assert response.node_name == response.flow.node_name == "default/worker2"
    assert response.flow.destination.pod_name == SERVER.pod
    assert response.flow.ingress_allowed_by[0].name == "allow-client"
    assert response.flow.interface.name == "lxc0123456789a"
    assert response.flow.node_labels == ["k8s:zone=a"]


async def test_our_extension_goes_to_whom_it_says_something(server: Server) -> None:
    """A client that knows the public API alone can print every message; ours ask, or use the batches."""
    server.writer.append(numbered(0, 1, packets=9))
    understood = AnyMessage()
    understood.Pack(FlowExtension())
    nothing = AnyMessage()
    nothing.Pack(Empty())

    async def packets(answer: Awaitable[list[GetFlowsResponse]]) -> int | None:
        (response,) = await answer
        found = FlowExtension()
        return found.packets if response.flow.extensions.Unpack(found) else None

    assert await packets(server.get()) is None
    assert await packets(server.get(extensions=nothing)) is None
    assert await packets(server.get(extensions=understood)) == 9
    assert await packets(server.get(field_mask=FieldMask(paths=["extensions"]))) == 9
    assert await packets(server.get(extensions=understood, field_mask=FieldMask(paths=["uuid"]))) is None
    assert await packets(_batched(server, GetFlowsRequest())) == 9
    assert await packets(_batched(server, GetFlowsRequest(extensions=nothing))) is None


async def _batched(server: Server, request: GetFlowsRequest) -> list[GetFlowsResponse]:
    return [r async for batch in server.batches.GetFlows(request, timeout=20) for r in batch.responses]


async def test_a_name_written_while_the_server_runs_is_found(server: Server) -> None:
    """The names log is followed."""
    await server.flows()
    ref = server.names.intern(FlowEndpoint(namespace="late", pod="comer", identity=5000))
    server.names.flush()
    server.writer.append(numbered(0, 1, dst_ref=ref, dst_identity=5000))
    (flow,) = await server.flows(whitelist=[FlowFilter(destination_pod=["late/"])])
    assert flow.destination.pod_name == "comer"


async def test_a_flow_is_found_by_its_uuid(server: Server) -> None:
    """And it is the same flow."""
    server.writer.append(numbered(0, 50))
    flow = (await server.flows())[33]
    assert await server.flows(whitelist=[FlowFilter(uuid=[flow.uuid])]) == [flow]


async def test_a_field_mask_of_an_older_client_is_understood(server: Server) -> None:
    """Before the request had a field for it, clients sent it as an experimental one."""
    server.writer.append(numbered(0, 1))
    old = FieldMask(paths=["verdict"]).SerializeToString()
    experimental = GetFlowsRequest.Experimental.FromString(b"\x0a" + bytes([len(old)]) + old)
    (flow,) = await server.flows(experimental=experimental)
    assert flow == flow_pb2.Flow(verdict=flow_pb2.FORWARDED)
    (flow,) = await server.flows(experimental=experimental, field_mask=FieldMask(paths=["Type"]))
    assert flow == flow_pb2.Flow(Type=flow_pb2.L3_L4)


async def test_a_field_mask_leaves_the_rest_out(server: Server) -> None:
    """As the CLI asks for compact output."""
    server.writer.append(numbered(0, 1))
    (flow,) = await server.flows(field_mask=FieldMask(paths=["verdict", "source.pod_name"]))
    assert flow == flow_pb2.Flow(
        verdict=flow_pb2.FORWARDED, source=flow_pb2.Endpoint(pod_name="client-6d5f7b9c4d-abcde")
    )


@pytest.mark.parametrize(
    ("request_fields", "word"),
    [
        ({"whitelist": [FlowFilter(), FlowFilter(source_ip=["10.0.0.300"])]}, "whitelist[1].source_ip[0]"),
        ({"blacklist": [FlowFilter(destination_port=["x"])]}, "blacklist[0].destination_port[0]"),
        ({"field_mask": FieldMask(paths=["sauce"])}, "field_mask.paths[0]"),
        (
            {"experimental": GetFlowsRequest.Experimental.FromString(b"\x0a\x02\x0a\xff")},
            "experimental.field_mask",
        ),
        ({"since": Timestamp(seconds=1, nanos=-1)}, "since"),
        (
            {"whitelist": [FlowFilter(experimental=FlowFilter.Experimental(cel_expression=["true"]))]},
            "cel_expression",
        ),
    ],
)
async def test_nonsense_is_an_invalid_argument(
    server: Server, request_fields: dict[str, Any], word: str
) -> None:
    """The status names the field; also when flows are asked for in batches."""
    for method in (server.observer.GetFlows, server.batches.GetFlows):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            async for _ in method(GetFlowsRequest(**request_fields), timeout=10):
                pass
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert word in caught.value.details()


# --- following ------------------------------------------------------------------------------------


async def read(call: Any, count: int) -> list[GetFlowsResponse]:
    return [await asyncio.wait_for(call.read(), 10) for _ in range(count)]


async def test_a_follower_gets_what_comes(server: Server) -> None:
    """Only the new ones, unless it asks for some of the past."""
    server.writer.append(numbered(0, 5))
    fresh = server.observer.GetFlows(GetFlowsRequest(follow=True))
    some = server.observer.GetFlows(GetFlowsRequest(follow=True, number=2))
    everything = server.observer.GetFlows(GetFlowsRequest(follow=True, since=at(0)))
    assert [port(r.flow) for r in await read(some, 2)] == [3, 4]
    assert [port(r.flow) for r in await read(everything, 5)] == [0, 1, 2, 3, 4]
    await fresh.initial_metadata()
    for n in range(5, 8):
        server.writer.append(numbered(n, n + 1))
        for call in (fresh, some, everything):
            assert [port(r.flow) for r in await read(call, 1)] == [n]
    for call in (fresh, some, everything):
        call.cancel()


async def test_first_with_follow_begins_at_the_oldest(server: Server) -> None:
    """The count does not end a stream that follows."""
    server.writer.append(numbered(0, 3))
    call = server.observer.GetFlows(GetFlowsRequest(follow=True, first=True, number=1))
    assert [port(r.flow) for r in await read(call, 3)] == [0, 1, 2]
    server.writer.append(numbered(3, 4))
    assert [port(r.flow) for r in await read(call, 1)] == [3]
    call.cancel()


async def test_a_follower_filters(server: Server) -> None:
    """The same filters as for the past."""
    request = GetFlowsRequest(follow=True, since=at(0), whitelist=[FlowFilter(source_port=["7", "3000"])])
    call = server.observer.GetFlows(request)
    server.writer.append(numbered(0, 10))
    server.writer.append(numbered(2990, 3010))
    assert [port(r.flow) for r in await read(call, 2)] == [7, 3000]
    call.cancel()


async def test_following_ends_after_until(server: Server, clock: FakeClock) -> None:
    """When the clock has passed it and what came before it is told."""
    server.writer.append(numbered(0, 3))
    call = server.observer.GetFlows(GetFlowsRequest(follow=True, since=at(0), until=at(1)), timeout=20)
    assert [port(r.flow) for r in await read(call, 2)] == [0, 1]
    clock.now_ns += 5 * NS_PER_S
    assert await asyncio.wait_for(call.read(), 10) is grpc.aio.EOF


async def test_following_ends_after_until_while_flows_keep_coming(server: Server, clock: FakeClock) -> None:
    """A busy node has no quiet moment to think of it."""
    call = server.observer.GetFlows(GetFlowsRequest(follow=True, since=at(0), until=at(1)), timeout=20)
    await call.initial_metadata()
    clock.now_ns += 5 * NS_PER_S
    end = asyncio.ensure_future(call.read())
    second = 2
    while not end.done():
        server.writer.append(numbered(second % 60_000, second % 60_000 + 1))
        second += 1
        await asyncio.sleep(0)
    assert end.result() is grpc.aio.EOF


async def test_a_follower_stays_when_the_store_is_replaced(server: Server) -> None:
    """The ingest sets a store aside (here: another capacity) and begins another: positions begin anew."""
    server.writer.append(numbered(0, 3))
    call = server.observer.GetFlows(GetFlowsRequest(follow=True, since=at(0)))
    before = await read(call, 3)
    server.writer.close()
    server.writer = FlowStoreWriter.open(server.config.paths.flow_dir, CAPACITY // 2, FakeClock())
    server.writer.append(numbered(40, 42))
    after = await read(call, 2)
    assert [port(r.flow) for r in after] == [40, 41]
    assert len({r.flow.uuid for r in (*before, *after)}) == 5
    call.cancel()


async def test_a_client_that_does_not_read_is_overtaken_and_told(server: Server) -> None:
    """Nothing is kept for it; when it reads again, it hears how many rows it missed."""
    call = server.observer.GetFlows(GetFlowsRequest(follow=True, since=at(0)))
    server.writer.append(numbered(0, 1))
    await read(call, 1)
    written = 1
    for begin in range(1, 60_000, 2000):  # more than the ring, the sockets and HTTP/2 windows hold
        server.writer.append(numbered(begin % 60_000, begin % 60_000 + 2000))
        written += 2000
        await asyncio.sleep(0)
    got, lost, last = 1, 0, 0
    while got + lost < written:
        response = (await read(call, 1))[0]
        if response.WhichOneof("response_types") == "flow":
            got += 1
            assert port(response.flow) > last
            last = port(response.flow)
        else:
            assert response.lost_events.source == flow_pb2.HUBBLE_RING_BUFFER
            assert not response.lost_events.HasField("cpu")
            lost += response.lost_events.num_events_lost
    assert lost > 0
    assert got + lost == written
    call.cancel()


# --- losses ---------------------------------------------------------------------------------------


def kinds(responses: list[GetFlowsResponse]) -> list[Any]:
    return [
        port(r.flow)
        if r.WhichOneof("response_types") == "flow"
        else (r.lost_events.cpu.value, r.lost_events.num_events_lost)
        for r in responses
    ]


def lose(writer: FlowStoreWriter, second: int, count: int, cpu: int = 1) -> None:
    writer.commit(0, losses=[Loss(NOW_NS + second * NS_PER_S, writer.head, count, cpu)])


async def test_losses_stand_where_they_happened(server: Server) -> None:
    """Between the rows before and after, whatever the selector; never counted as flows."""
    server.writer.append(numbered(0, 2))
    lose(server.writer, 2, 7)
    server.writer.append(numbered(2, 4))
    lose(server.writer, 4, 9, cpu=0)
    assert kinds(await server.get()) == [0, 1, (1, 7), 2, 3, (0, 9)]
    assert kinds(await server.get(number=3)) == [1, (1, 7), 2, 3, (0, 9)]
    assert kinds(await server.get(number=2)) == [2, 3, (0, 9)]
    assert kinds(await server.get(number=3, first=True)) == [0, 1, (1, 7), 2]
    assert kinds(await server.get(since=at(3))) == [3, (0, 9)]
    assert kinds(await server.get(until=at(3))) == [0, 1, (1, 7), 2, 3]
    no_flow = [FlowFilter(source_port=["77"])]
    assert kinds(await server.get(whitelist=no_flow)) == [(1, 7), (0, 9)]
    assert kinds(await server.get(whitelist=no_flow, number=1)) == [(1, 7), (0, 9)]


async def test_a_loss_says_source_cpu_and_time(server: Server) -> None:
    """As Hubble clients print it."""
    server.writer.append(numbered(0, 1))
    lose(server.writer, 1, 5, cpu=3)
    lost = (await server.get())[1]
    assert lost.lost_events.source == flow_pb2.PERF_EVENT_RING_BUFFER
    assert (lost.node_name, lost.time, lost.lost_events.first) == ("default/worker2", at(1), at(1))


async def test_a_follower_hears_of_losses(server: Server) -> None:
    """Also when no flow comes after them; those from before it came are not its own."""
    server.writer.append(numbered(0, 1))
    lose(server.writer, 0, 3)
    call = server.observer.GetFlows(GetFlowsRequest(follow=True))
    await call.initial_metadata()
    lose(server.writer, 1, 4)
    assert kinds(await read(call, 1)) == [(1, 4)]
    server.writer.append(numbered(5, 6))
    assert kinds(await read(call, 1)) == [5]
    call.cancel()


# --- batches --------------------------------------------------------------------------------------


async def test_batches_carry_the_same_answer(server: Server) -> None:
    """Many responses a message, in the same order, with the counters."""
    server.writer.append(numbered(0, 1500))
    lose(server.writer, 1, 5)
    call = server.batches.GetFlows(GetFlowsRequest(), timeout=20)
    batches = [batch async for batch in call]
    understood = AnyMessage()
    understood.Pack(FlowExtension())
    whole = await server.get(extensions=understood)
    assert [response for batch in batches for response in batch.responses] == whole
    assert max(len(batch.responses) for batch in batches) == 512
    assert len(batches) <= 5


# --- the rest of the service ----------------------------------------------------------------------


async def test_server_status(server: Server, clock: FakeClock) -> None:
    """Numbers of the store; the rate over the last minute."""
    server.writer.append(numbered(0, 120))
    clock.now_ns += 125 * NS_PER_S
    status = await server.observer.ServerStatus(observer_pb2.ServerStatusRequest())
    assert (status.num_flows, status.max_flows, status.seen_flows) == (120, CAPACITY, 120)
    assert status.flows_rate == pytest.approx(55 / 60)
    assert status.uptime_ns == 125 * NS_PER_S
    assert status.version == program_version()
    assert not status.HasField("num_connected_nodes")


async def test_server_status_of_a_ring_that_went_round(server: Server) -> None:
    """num_flows is what can be asked for."""
    for begin in range(0, 10_000, 1000):
        server.writer.append(numbered(begin, begin + 1000))
    status = await server.observer.ServerStatus(observer_pb2.ServerStatusRequest())
    assert status.seen_flows == 10_000
    assert status.num_flows == len(await server.flows())


async def test_the_node_names_itself(server: Server) -> None:
    """GetNodes of a node is that node."""
    server.writer.append(numbered(0, 3))
    (node,) = (await server.observer.GetNodes(observer_pb2.GetNodesRequest())).nodes
    assert (node.name, node.seen_flows, node.max_flows) == ("default/worker2", 3, CAPACITY)
    assert node.address == f"unix://{server.config.paths.hubble_socket}"


async def test_namespaces_are_those_of_stored_flows(server: Server) -> None:
    """Of either side, each once; those without flows are not named."""
    request = observer_pb2.GetNamespacesRequest()
    assert not (await server.observer.GetNamespaces(request)).namespaces
    server.writer.append(stored(record(dst_ref=0), record(src_ref=3), record(src_ref=2)))
    found = [(n.cluster, n.namespace) for n in (await server.observer.GetNamespaces(request)).namespaces]
    assert found == [("default", "default"), ("other", "kube-system")]


async def test_every_answer_names_the_servers_version(server: Server) -> None:
    """In the metadata Hubble clients look at."""
    for call in (
        server.observer.ServerStatus(observer_pb2.ServerStatusRequest()),
        server.observer.GetFlows(GetFlowsRequest()),
        server.batches.GetFlows(GetFlowsRequest()),
        server.observer.GetAgentEvents(observer_pb2.GetAgentEventsRequest()),
    ):
        metadata = dict(await call.initial_metadata())
        assert metadata["hubble-server-version"] == program_version()


async def test_debug_events_are_an_empty_stream(server: Server) -> None:
    """There are none; a follower waits until its time is over."""
    call = server.observer.GetDebugEvents(observer_pb2.GetDebugEventsRequest(), timeout=10)
    assert [event async for event in call] == []
    until = observer_pb2.GetDebugEventsRequest(follow=True, until=at(0))
    assert [event async for event in server.observer.GetDebugEvents(until, timeout=10)] == []
    endless = server.observer.GetDebugEvents(observer_pb2.GetDebugEventsRequest(follow=True))
    await endless.initial_metadata()
    assert not endless.done()
    endless.cancel()


def log_agent_event(server: Server, second: int, endpoint: int) -> None:
    entry = {
        "time_ns": NOW_NS + second * NS_PER_S,
        "type": "ENDPOINT_CREATED",
        "endpoint_update": {"id": str(endpoint), "labels": ["k8s:app=web"], "podName": "web-1"},
    }
    with (server.config.paths.flow_dir / "agent-events.log").open("a") as log:
        log.write(json.dumps(entry) + "\n")


@pytest.mark.parametrize(
    ("request_fields", "expected"),
    [
        ({}, [0, 1, 2, 3]),
        ({"number": 2}, [2, 3]),
        ({"number": 2, "first": True}, [0, 1]),
        ({"since": at(1), "until": at(2)}, [1, 2]),
    ],
    ids=str,
)
async def test_agent_events(server: Server, request_fields: dict[str, Any], expected: list[int]) -> None:
    """The same selectors as for flows."""
    for n in range(4):
        log_agent_event(server, n, n)
    request = observer_pb2.GetAgentEventsRequest(**request_fields)
    got = [r async for r in server.observer.GetAgentEvents(request, timeout=10)]
    assert [r.agent_event.endpoint_update.id for r in got] == expected
    assert got[0].node_name == "default/worker2"
    assert got[0].time == at(expected[0])
    assert got[0].agent_event.endpoint_update.pod_name == "web-1"


async def test_agent_events_are_followed(server: Server, clock: FakeClock) -> None:
    """New ones as they are written; the stream ends after `until`."""
    log_agent_event(server, 0, 1)
    request = observer_pb2.GetAgentEventsRequest(follow=True, until=at(60))
    call = server.observer.GetAgentEvents(request, timeout=20)
    await call.initial_metadata()
    log_agent_event(server, 1, 2)
    assert (await asyncio.wait_for(call.read(), 10)).agent_event.endpoint_update.id == 2
    clock.now_ns += 100 * NS_PER_S
    assert await asyncio.wait_for(call.read(), 10) is grpc.aio.EOF


async def test_reflection_names_the_services(server: Server) -> None:
    """With the public file names, so that generic clients can talk to it."""
    stub = reflection_pb2_grpc.ServerReflectionStub(server.channel)
    requests = [
        reflection_pb2.ServerReflectionRequest(list_services=""),
        reflection_pb2.ServerReflectionRequest(file_containing_symbol="observer.Observer"),
    ]
    services, file = [answer async for answer in stub.ServerReflectionInfo(iter(requests))]
    names = {service.name for service in services.list_services_response.service}
    assert {"observer.Observer", "palomar.v1.FlowBatches", "grpc.health.v1.Health"} <= names
    assert b"observer/observer.proto" in file.file_descriptor_response.file_descriptor_proto[0]


@pytest.mark.parametrize("name", ["", "observer.Observer", "hubble.server.Observer"])
async def test_health(server: Server, name: str) -> None:
    """SERVING once there is a store; also by the name that `hubble status` asks for."""
    stub = health_pb2_grpc.HealthStub(server.channel)
    request = health_pb2.HealthCheckRequest(service=name)

    def serving() -> bool | Awaitable[bool]:
        return check(stub, request)

    await eventually_async(serving)


async def check(stub: Any, request: health_pb2.HealthCheckRequest) -> bool:
    return bool((await stub.Check(request)).status == health_pb2.HealthCheckResponse.SERVING)
