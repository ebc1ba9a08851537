"""A real flow server on a real socket with made-up flows: what the page's tests and bench look at.

Speaks `observer.Observer` and, unless told otherwise, `palomar.v1.FlowBatches`, as a relay over several nodes
would. Flows come from a cast: workloads that call each other, some refused by a policy. Who calls is drawn
from a seed.
"""

import itertools
import random
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent import futures
from dataclasses import dataclass, field
from typing import Any

import grpc

from palomar_pb.flow import flow_pb2
from palomar_pb.observer import observer_pb2, observer_pb2_grpc
from palomar_pb.palomar.v1 import batch_pb2, batch_pb2_grpc, flow_ext_pb2
from palomar_pb.relay import relay_pb2

TICK_S = 0.1
_numbers = itertools.count(1)


@dataclass(frozen=True)
class Party:
    """A workload of the cast."""

    name: str
    namespace: str = "shop"
    identity: int = 0
    address: str = "10.1.0.5"
    reserved: str = ""

    def endpoint(self) -> flow_pb2.Endpoint:
        if self.reserved:
            return flow_pb2.Endpoint(identity=self.identity, labels=[f"reserved:{self.reserved}"])
        return flow_pb2.Endpoint(
            ID=100 + self.identity % 1000,
            identity=self.identity,
            cluster_name="default",
            namespace=self.namespace,
            pod_name=f"{self.name}-1",
            labels=[f"k8s:app={self.name}", f"k8s:io.kubernetes.pod.namespace={self.namespace}"],
            workloads=[flow_pb2.Workload(name=self.name, kind="Deployment")],
        )


@dataclass(frozen=True)
class Call:
    """Who calls whom, how often, and whether it is refused."""

    source: Party
    destination: Party
    port: int
    weight: float = 1.0
    denied_by: str = ""
    """Policy that denies by name."""
    default_deny_by: str = ""
    """Policy that selects the callee and allows others."""
    protocol: str = "TCP"
    node: str = "default/node-1"


def policy(name: str, namespace: str = "shop") -> flow_pb2.Policy:
    return flow_pb2.Policy(name=name, namespace=namespace, kind="CiliumNetworkPolicy", revision=3)


def flow_of(
    call: Call, now_ns: int, reply: bool = False, sport: int = 40000
) -> observer_pb2.GetFlowsResponse:
    """Make one flow of a call, as seen at `now_ns`."""
    number = next(_numbers)
    denied = bool(call.denied_by or call.default_deny_by)
    source, destination = (call.destination, call.source) if reply else (call.source, call.destination)
    ports = (call.port, sport) if reply else (sport, call.port)
    response = observer_pb2.GetFlowsResponse(node_name=call.node)
    flow = response.flow
    flow.uuid = f"00000000-0000-8000-8000-{number:012x}"
    flow.time.FromNanoseconds(now_ns)
    flow.verdict = flow_pb2.DROPPED if denied else flow_pb2.FORWARDED
    flow.IP.source, flow.IP.destination = source.address, destination.address
    flow.IP.ipVersion = flow_pb2.IPv4
    if call.protocol == "TCP":
        flow.l4.TCP.source_port, flow.l4.TCP.destination_port = ports
        flow.l4.TCP.flags.SYN, flow.l4.TCP.flags.ACK = True, reply
    elif call.protocol == "UDP":
        flow.l4.UDP.source_port, flow.l4.UDP.destination_port = ports
    else:
        flow.l4.ICMPv4.type = 0 if reply else 8
    flow.source.CopyFrom(source.endpoint())
    flow.destination.CopyFrom(destination.endpoint())
    flow.node_name = call.node
    flow.Type = flow_pb2.L3_L4
    extension = flow_ext_pb2.FlowExtension(
        packets=4, bytes=4096, rtt_us=180, cpu=1, sequence=number, length=74
    )
    if denied:
        flow.event_type.type = 5 if number % 2 else 1
        flow.traffic_direction = flow_pb2.INGRESS
        flow.drop_reason_desc = flow_pb2.POLICY_DENY if call.denied_by else flow_pb2.POLICY_DENIED
        if call.denied_by:
            flow.ingress_denied_by.append(policy(call.denied_by, call.destination.namespace))
            extension.policy_rule = "ingressDeny[0]"
        else:
            extension.default_deny_by.append(policy(call.default_deny_by, call.destination.namespace))
    else:
        flow.is_reply.value = reply
        if number % 7 == 0:
            flow.event_type.type = 5
            flow.traffic_direction = flow_pb2.INGRESS
            flow.policy_match_type = 2
            flow.ingress_allowed_by.append(
                policy(f"{call.destination.name}-ingress", call.destination.namespace)
            )
            extension.policy_rule = "ingress[0].toPorts[0]"
        else:
            flow.event_type.type = 4
            flow.trace_observation_point = flow_pb2.TO_ENDPOINT
            flow.traffic_direction = flow_pb2.EGRESS if reply else flow_pb2.INGRESS
        flow.interface.name = "lxc0a1b2c3d4e5f"
    flow.extensions.Pack(extension)
    response.time.CopyFrom(flow.time)
    return response


def shop() -> list[Call]:
    """The demo: a shop with an intruder, DNS, and the world."""
    web = Party("web", identity=4101, address="10.1.0.11")
    api = Party("api", identity=4102, address="10.2.0.12")
    store = Party("store", identity=4103, address="10.3.0.13")
    cart = Party("cart", identity=4104, address="10.2.0.14")
    intruder = Party("intruder", "lab", 4105, "10.3.0.66")
    load = Party("load", "lab", 4106, "10.1.0.20")
    dns = Party("coredns", "kube-system", 4107, "10.1.0.53")
    world = Party("world", identity=2, address="198.51.100.10", reserved="world")
    host = Party("host", identity=1, address="172.30.0.11", reserved="host")
    return [
        Call(load, web, 80, 6),
        Call(world, web, 80, 2, node="default/node-2"),
        Call(web, api, 8080, 6, node="default/node-2"),
        Call(web, cart, 8081, 2, node="default/node-2"),
        Call(api, store, 6379, 4, node="default/node-3"),
        Call(cart, store, 6379, 2, node="default/node-3"),
        Call(intruder, api, 8080, 1.2, denied_by="api-from-web", node="default/node-2"),
        Call(intruder, store, 6379, 0.8, default_deny_by="store-from-api", node="default/node-3"),
        Call(web, dns, 53, 1.5, protocol="UDP"),
        Call(api, dns, 53, 1, protocol="UDP"),
        Call(host, web, 0, 0.4, protocol="ICMP"),
        Call(cart, world, 443, 0.5, node="default/node-3"),
    ]


def large(workloads: int, seed: int = 7, fan_out: int = 2) -> list[Call]:
    """Make a cluster of many: layered services in namespaces of 20, one edge in 25 refused."""
    rng = random.Random(seed)
    words = (
        "checkout",
        "search",
        "payments",
        "catalog",
        "identity",
        "shipping",
        "media",
        "reports",
        "edge",
        "ledger",
    )
    roles = ("gateway", "api", "worker", "cache", "db", "queue", "sync", "auth", "index", "mailer")
    parties = [
        Party(
            f"{roles[index % 10]}{'' if index % 20 < 10 else '-v2'}",
            words[index // 20 % 10] + ("" if index < 200 else f"-{index // 200}"),
            5000 + index,
            f"10.{1 + index % 3}.{index // 250}.{index % 250 + 2}",
        )
        for index in range(workloads)
    ]
    calls = []
    for index, party in enumerate(parties):
        group = index // 20 * 20
        for _ in range(fan_out):
            inside = parties[index + 1 : group + 20]
            far = parties[group + 20 :]
            pool = inside if inside and rng.random() < 0.8 else far or inside
            if not pool:
                continue
            denied = "default-policy" if rng.random() < 0.04 else ""
            calls.append(
                Call(
                    party,
                    rng.choice(pool),
                    rng.choice((80, 443, 5432, 6379, 8080, 9090)),
                    rng.choice((0.2, 1, 1, 3, 8)),
                    denied_by=denied,
                    node=f"default/node-{1 + index % 3}",
                )
            )
    called = {call.destination for call in calls} | {call.source for call in calls}
    calls += [Call(party, parties[0], 8080, 0.5) for party in parties if party not in called]
    return calls


@dataclass
class FlowServer(observer_pb2_grpc.ObserverServicer, batch_pb2_grpc.FlowBatchesServicer):
    """Serves made-up flows at `rate` per second; use as a context manager."""

    calls: Sequence[Call]
    rate: float = 30.0
    batched: bool = True
    port: int = 0
    backlog: int = 200
    nodes: dict[str, int] = field(default_factory=dict)
    """Node name to relay.NodeState; three connected ones unless given."""
    extra: list[observer_pb2.GetFlowsResponse] = field(default_factory=list)
    """Sent first on every stream."""
    clock_off_ns: int = 0
    credentials: Any = None
    sent: int = 0
    requests: list[observer_pb2.GetFlowsRequest] = field(default_factory=list)

    def __post_init__(self) -> None:
        if not self.nodes:
            self.nodes = {f"default/node-{number}": relay_pb2.NODE_CONNECTED for number in (1, 2, 3)}
        self._rng = random.Random(11)
        self._ended = threading.Event()
        self._inject: list[observer_pb2.GetFlowsResponse] = []
        self._lock = threading.Lock()
        self._server: grpc.Server | None = None

    # ---- life ----

    def start(self) -> "FlowServer":
        self._ended.clear()
        server = grpc.server(futures.ThreadPoolExecutor(max_workers=8), options=[("grpc.so_reuseport", 0)])
        observer_pb2_grpc.add_ObserverServicer_to_server(self, server)
        if self.batched:
            batch_pb2_grpc.add_FlowBatchesServicer_to_server(_Batches(self), server)
        address = f"127.0.0.1:{self.port}"
        if self.credentials is None:
            self.port = server.add_insecure_port(address)
        else:
            self.port = server.add_secure_port(address, self.credentials)
        server.start()
        self._server = server
        return self

    def stop(self) -> None:
        self._ended.set()
        if self._server is not None:
            self._server.stop(0).wait()
            self._server = None

    def __enter__(self) -> "FlowServer":
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def send(self, *responses: observer_pb2.GetFlowsResponse) -> None:
        """Put responses into the running streams' next batch."""
        with self._lock:
            self._inject += responses

    def say_lost(self, node: str, number: int) -> None:
        response = observer_pb2.GetFlowsResponse(node_name=node)
        response.lost_events.source = flow_pb2.PERF_EVENT_RING_BUFFER
        response.lost_events.num_events_lost = number
        self.send(response)

    # ---- answers ----

    def batches(self, request: observer_pb2.GetFlowsRequest) -> Iterator[list[observer_pb2.GetFlowsResponse]]:
        self.requests.append(request)
        weights = [call.weight for call in self.calls]
        yield list(self.extra)
        if self.calls:
            began = time.time_ns() - 60_000_000_000
            picked = self._rng.choices(self.calls, weights, k=min(self.backlog, request.number))
            step = 60_000_000_000 // max(len(picked), 1)
            yield [self._flow(call, began + index * step) for index, call in enumerate(picked)]
        owed = 0.0
        # Not a test's sleep: the pace of the traffic.
        while request.follow and not self._ended.wait(TICK_S):
            with self._lock:
                found, self._inject = self._inject, []
            owed += self.rate * TICK_S
            count, owed = int(owed), owed % 1
            now_ns = time.time_ns()
            if self.calls and count:
                found += [
                    self._flow(call, now_ns) for call in self._rng.choices(self.calls, weights, k=count)
                ]
            if found:
                yield found

    def _flow(self, call: Call, now_ns: int) -> observer_pb2.GetFlowsResponse:
        self.sent += 1
        denied = bool(call.denied_by or call.default_deny_by)
        reply = not denied and self._rng.random() < 0.4
        return flow_of(call, now_ns + self.clock_off_ns, reply, self._rng.randrange(32768, 60999))

    def GetFlows(self, request: Any, context: Any) -> Iterator[observer_pb2.GetFlowsResponse]:  # noqa: N802 - wire
        for batch in self.batches(request):
            yield from batch

    def GetNodes(self, request: Any, context: Any) -> observer_pb2.GetNodesResponse:  # noqa: N802 - wire
        answer = observer_pb2.GetNodesResponse()
        for index, (name, state) in enumerate(self.nodes.items()):
            node = answer.nodes.add(
                name=name,
                version="0.1.0",
                address=f"172.30.0.{11 + index}:4244",
                state=relay_pb2.NodeState.ValueType(state),
            )
            node.tls.enabled = True
            if state == relay_pb2.NODE_CONNECTED:
                node.uptime_ns = 7_380_000_000_000
                node.num_flows, node.max_flows = 81_920, 1_048_576
                node.seen_flows = 1_204_882 + self.sent // 3
        return answer

    def ServerStatus(self, request: Any, context: Any) -> observer_pb2.ServerStatusResponse:  # noqa: N802 - wire
        return observer_pb2.ServerStatusResponse(
            num_flows=245_760,
            max_flows=3_145_728,
            seen_flows=3_614_646 + self.sent,
            uptime_ns=7_380_000_000_000,
            flows_rate=self.rate,
            version="palomar-relay 0.1.0",
        )


class _Batches(batch_pb2_grpc.FlowBatchesServicer):
    """The same flows, many a message: another method of the same name."""

    def __init__(self, server: FlowServer) -> None:
        self._server = server

    def GetFlows(self, request: Any, context: Any) -> Iterator[batch_pb2.FlowBatch]:  # noqa: N802 - wire
        for batch in self._server.batches(request):
            yield batch_pb2.FlowBatch(responses=batch)
