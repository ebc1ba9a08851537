"""The relay's cost per flow when it merges 20 nodes, and how late a flow is at its client.

Three processes: nodes that replay ready-made batches (so that they cost nothing to speak of), the relay,
and this one as the client; mutual TLS between all. What counts is the relay's own CPU time per flow. The
baselines of the same run: the same merge served one message per flow (the public API), and parsing and
encoding alone, without any network, which is what a relay of message objects would pay on top.

    python -m tests.bench.relay [--json] [--nodes 20] [--flows 400000]
"""

import argparse
import asyncio
import json
import resource
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path
from statistics import quantiles
from typing import Any

import grpc

from hubble.batches import encode_batch
from palomar.certs import Role
from palomar.clock import SystemClock
from palomar.tls import TlsFiles, server_credentials
from palomar_pb.flow import flow_pb2
from palomar_pb.observer import observer_pb2
from palomar_pb.palomar.v1 import batch_pb2
from relay.config import RelayConfig
from relay.main import Relay
from relay.nodestream import BATCHES_METHOD, PLAIN_METHOD
from relay.peers import Peer, PeerState
from tests.bench.child import Child
from tests.kit.relaycluster import Certificates, client_channel, cluster, follower
from tests.kit.wait import eventually_async

BATCH = 512
STEP_NS = 1_000
LATENCY_FLOWS = 300
PLAIN_FLOWS = 40_000
BASE_NS = 1_795_248_001_000_000_000


def response(node: int, number: int, time_ns: int) -> observer_pb2.GetFlowsResponse:
    """A flow of about 600 bytes."""
    made = observer_pb2.GetFlowsResponse(node_name=f"default/n{node}")
    made.time.FromNanoseconds(time_ns)
    flow = made.flow
    flow.time.FromNanoseconds(time_ns)
    flow.uuid = f"00000000-0000-4000-8000-{node:04x}{number:08x}"
    flow.verdict = flow_pb2.FORWARDED
    flow.node_name = made.node_name
    flow.IP.source, flow.IP.destination, flow.IP.ipVersion = "10.0.0.185", "10.0.1.110", flow_pb2.IPv4
    flow.l4.TCP.source_port, flow.l4.TCP.destination_port = number % 65536, 8080
    flow.l4.TCP.flags.SYN = True
    for side, name in ((flow.source, "client"), (flow.destination, "server")):
        side.ID, side.identity, side.cluster_name, side.namespace = 1234, 48291, "default", "default"
        side.pod_name = f"{name}-6d5f7b9c4d-abcde"
        side.labels.extend(
            [
                f"k8s:app={name}",
                "k8s:io.kubernetes.pod.namespace=default",
                "k8s:io.cilium.k8s.policy.cluster=default",
            ]
        )
        side.workloads.add(name=name, kind="Deployment")
    flow.event_type.type, flow.event_type.sub_type = 4, 3
    flow.traffic_direction = flow_pb2.EGRESS
    flow.Summary = "TCP Flags: SYN"
    return made


def node_messages(node: int, nodes: int, flows: int) -> list[bytes]:
    """Batches of one node; the nodes' flows interleave."""
    times = [BASE_NS + (number * nodes + node) * STEP_NS for number in range(flows)]
    items = [response(node, number, time_ns).SerializeToString() for number, time_ns in enumerate(times)]
    starts = range(0, flows, BATCH)
    return [encode_batch(items[start : start + BATCH], flows, 0, BASE_NS) for start in starts]


class ReplayNode:
    """Answers with the same messages every time."""

    def __init__(self, messages: list[bytes]) -> None:
        self._messages = messages

    async def flows(self, _request: bytes, _context: Any) -> AsyncIterator[bytes]:
        for message in self._messages:
            yield message

    async def status(self, _request: bytes, _context: Any) -> bytes:
        return observer_pb2.ServerStatusResponse(version="replay").SerializeToString()


async def run_nodes(tls: TlsFiles, nodes: int, flows: int) -> None:
    """Serve until standard input ends; print the ports."""
    servers, ports = [], []
    for node in range(nodes):
        replay = ReplayNode(node_messages(node, nodes, flows))
        server = grpc.aio.server()
        server.add_generic_rpc_handlers(
            (
                grpc.method_handlers_generic_handler(
                    "palomar.v1.FlowBatches", {"GetFlows": grpc.unary_stream_rpc_method_handler(replay.flows)}
                ),
                grpc.method_handlers_generic_handler(
                    "observer.Observer", {"ServerStatus": grpc.unary_unary_rpc_method_handler(replay.status)}
                ),
            )
        )
        ports.append(server.add_secure_port("127.0.0.1:0", server_credentials(tls)))
        await server.start()
        servers.append(server)
    print(json.dumps(ports), flush=True)
    await asyncio.to_thread(sys.stdin.read)
    for server in servers:
        await server.stop(0)


async def run_relay(tls: TlsFiles, server_name: str, ports: list[int]) -> None:
    """Serve until standard input ends; a line in asks for the CPU seconds used so far."""
    peers = tuple(
        Peer(f"default/n{node}", f"127.0.0.1:{port}", server_name) for node, port in enumerate(ports)
    )
    relay = Relay(RelayConfig(listen="127.0.0.1:0", tls=tls, peers=peers), SystemClock())
    await relay.start()
    await eventually_async(lambda: relay.server.port)
    await eventually_async(lambda: all(e.state is PeerState.CONNECTED for e in relay.pool.entries()), 30)
    print(relay.server.port, flush=True)
    while await asyncio.to_thread(sys.stdin.readline):
        used = resource.getrusage(resource.RUSAGE_SELF)
        print(json.dumps([used.ru_utime + used.ru_stime, used.ru_maxrss]), flush=True)
    await relay.stop()


async def drain(port: int, tls: TlsFiles) -> tuple[int, bool]:
    """Take a whole answer of the relay: how many flows, and whether they came in order."""
    count, newest, ordered = 0, 0, True
    async with client_channel(port, tls) as channel:
        call = channel.unary_stream(
            BATCHES_METHOD,
            request_serializer=observer_pb2.GetFlowsRequest.SerializeToString,
            response_deserializer=batch_pb2.FlowBatchBytes.FromString,
        )(observer_pb2.GetFlowsRequest())
        first = True
        async for message in call:
            told = memoryview(message.times_ns).cast("Q").tolist()[int(first) :]
            first = False  # the first response is the relay's own, of now
            count += len(told)
            ordered = ordered and told == sorted(told) and (not told or told[0] >= newest)
            newest = told[-1] if told else newest
    return count, ordered


async def drain_plain(port: int, tls: TlsFiles, most: int) -> int:
    """Take up to `most` flows one message each; how many came."""
    count = 0
    async with client_channel(port, tls) as channel:
        call = channel.unary_stream(
            PLAIN_METHOD, request_serializer=observer_pb2.GetFlowsRequest.SerializeToString
        )(observer_pb2.GetFlowsRequest())
        async for _ in call:
            count += 1
            if count == most:
                break
        call.cancel()
    return count


def parse_and_encode_ns() -> float:
    """CPU nanoseconds to parse a response and encode it again."""
    items = [response(0, number, BASE_NS + number).SerializeToString() for number in range(2000)]
    best = float("inf")
    for _ in range(5):
        begin = time.process_time_ns()
        for item in items:
            observer_pb2.GetFlowsResponse.FromString(item).SerializeToString()
        best = min(best, (time.process_time_ns() - begin) / len(items))
    return best


async def latencies_ms(folder: Path) -> list[float]:
    """From the store of one of three real nodes to the relay's client, one flow at a time."""
    found: list[float] = []
    async with cluster(folder) as running, running.channel() as channel:
        await running.connected()
        async with follower(channel) as seen:
            for number in range(LATENCY_FLOWS):
                before = len(seen.responses)
                begin = time.perf_counter()
                running.nodes[number % 3].emit(1)
                await eventually_async(lambda count=before: len(seen.responses) > count, interval_s=0.001)
                found.append((time.perf_counter() - begin) * 1000)
    return found


async def measure(nodes: int, flows: int, repeats: int = 3) -> dict[str, Any]:
    """Everything, as one object."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        certificates = Certificates(folder / "certs")
        for role, party in ((Role.AGENT, "n"), (Role.RELAY, "relay"), (Role.CLIENT, "someone")):
            certificates.issue(role, party)
        module, at = "tests.bench.relay", ("--folder", name)
        numbers = ("--nodes", str(nodes), "--flows", str(flows // nodes))
        sources = Child(module, "--role", "nodes", *at, *numbers)
        ports = sources.line()
        relay = Child(module, "--role", "relay", *at, "--ports", json.dumps(ports))
        port = relay.line()
        client = certificates.directory.files(Role.CLIENT, "someone")
        best: dict[str, Any] = {}
        plain_ns = float("inf")
        try:
            for _ in range(repeats):
                cpu_before, _ = relay.ask()
                begin = time.perf_counter()
                count, ordered = await drain(port, client)
                wall_s = time.perf_counter() - begin
                cpu_after, rss_kib = relay.ask()
                cpu_ns = (cpu_after - cpu_before) * 1e9 / count
                if not best or cpu_ns < best["relay_cpu_ns_per_flow"]:
                    best = {
                        "nodes": nodes,
                        "flows": count,
                        "in_order": ordered,
                        "relay_cpu_ns_per_flow": round(cpu_ns),
                        "flows_per_s_per_core": round(1e9 / cpu_ns),
                        "wall_flows_per_s": round(count / wall_s),
                        "relay_max_rss_mib": rss_kib >> 10,
                    }
                singly = await drain_plain(port, client, PLAIN_FLOWS)
                cpu_last, _ = relay.ask()
                plain_ns = min(plain_ns, (cpu_last - cpu_after) * 1e9 / singly)
        finally:
            relay.close()
            sources.close()
        best["plain_cpu_ns_per_flow"] = round(plain_ns)
        best["ratio_plain_to_batched"] = round(plain_ns / best["relay_cpu_ns_per_flow"], 1)
        best["parse_and_encode_ns_per_flow"] = round(parse_and_encode_ns())
        waits = await latencies_ms(folder / "latency")
        best["latency_p50_ms"] = round(quantiles(waits, n=100)[49], 1)
        best["latency_p99_ms"] = round(quantiles(waits, n=100)[98], 1)
        return best


def run(repeats: int) -> list[dict[str, Any]]:
    """Return the rows of the benchmark page."""
    found = asyncio.run(measure(20, 400_000, repeats))
    return [
        {
            "what": "relay: CPU per flow, 20 nodes merged over mutual TLS (baseline: a message per flow)",
            "ours": found["relay_cpu_ns_per_flow"],
            "baseline": found["plain_cpu_ns_per_flow"],
            "unit": "ns",
            "ratio": found["ratio_plain_to_batched"],
            "limit": 1e9 / 150_000,
        },
        {
            "what": "relay: store of a node to the relay's client, p99",
            "ours": found["latency_p99_ms"],
            "unit": "ms",
            "limit": 100,
        },
    ]


def main() -> None:
    """Measure, or be one of the other processes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--nodes", type=int, default=20)
    parser.add_argument("--flows", type=int, default=400_000, help="in all")
    parser.add_argument("--role", choices=("nodes", "relay"), help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--ports", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.role == "nodes":
        tls = Certificates(args.folder / "certs").directory.files(Role.AGENT, "n")
        asyncio.run(run_nodes(tls, args.nodes, args.flows))
    elif args.role == "relay":
        tls = Certificates(args.folder / "certs").directory.files(Role.RELAY, "relay")
        asyncio.run(run_relay(tls, "n.default.hubble-grpc.cilium.io", json.loads(args.ports)))
    else:
        found = asyncio.run(measure(args.nodes, args.flows))
        print(
            json.dumps(found, indent=2) if args.json else "\n".join(f"{k:30} {v}" for k, v in found.items())
        )


if __name__ == "__main__":
    main()
