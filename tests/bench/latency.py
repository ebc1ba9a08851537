"""How long after its packet a flow is at a client of the relay, and what the waiting for flows costs.

A lab of two nodes as users run it: datapath, ingest, flow server, relay, mutual TLS. A pod sends datagrams
to one of the other node at a steady rate, each a new flow; what counts is the wall clock at the client
minus `Flow.time`. All of it is one machine, so the clocks agree. With few packets each comes after silence,
which is the worst case of everything that looks less often when nothing comes.

    python -m tests.bench.latency
"""

import argparse
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from statistics import median, quantiles
from typing import Any
from urllib.parse import urlencode
from urllib.request import urlopen

import grpc

from lab import network
from lab.cluster import LabCluster
from lab.network import in_namespace
from lab.spec import LabSpec, PodSpec
from palomar.certs import RELAY_SERVER_NAME
from palomar.tls import channel_credentials, verify_name_option
from palomar_pb.flow import flow_pb2
from palomar_pb.observer import observer_pb2
from palomar_pb.palomar.v1 import batch_pb2
from relay.nodestream import BATCHES_METHOD
from tests.kit.wait import eventually

REPO = Path(__file__).resolve().parents[2]
PORT = 9999
MODERATE, BUSY, LOW, SILENCE = (100.0, 300), (2000.0, 6000), (10.0, 100), (0.8, 10)
"""Datagrams a second, and how many a repeat; the last leaves more than a second of silence before each."""
LIMIT_MS = 100
LATEST_S = 1
"""When nothing has come for so long, everything has."""
IDLE_S = 6
SETTLE_S = 3
IDLE_LIMIT_PERCENT = 1.5


def send(address: str, rate: float, count: int) -> None:
    """Send `count` datagrams, each from a port of its own, `rate` a second."""
    begin = time.monotonic()
    for number in range(count):
        time.sleep(max(0.0, begin + number / rate - time.monotonic()))
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            sender.sendto(b"palomar", (address, PORT))


@dataclass(slots=True)
class Follower:
    """Keeps how late each flow of the sending pod came, in ms."""

    delays_ms: list[float] = field(default_factory=list)
    heard_ns: int = 0
    """Wall clock when the last one came."""

    def take(self, call: Any) -> None:
        """Read until the call is cancelled."""
        try:
            for batch in call:
                now_ns = time.time_ns()
                for response in batch.responses:
                    if response.HasField("flow"):
                        self.delays_ms.append((now_ns - response.flow.time.ToNanoseconds()) / 1e6)
                        self.heard_ns = now_ns
        except grpc.RpcError as error:
            if error.code() is not grpc.StatusCode.CANCELLED:
                raise


@contextmanager
def following(lab: LabCluster, source_pod: str) -> Iterator[Follower]:
    """Follow the flows of `source_pod` through the relay."""
    follower = Follower()
    options = [verify_name_option(RELAY_SERVER_NAME)]
    with grpc.secure_channel(lab.doors["relay"], channel_credentials(lab.client_files()), options) as channel:
        call = channel.unary_stream(
            BATCHES_METHOD,
            request_serializer=observer_pb2.GetFlowsRequest.SerializeToString,
            response_deserializer=batch_pb2.FlowBatch.FromString,
        )(observer_pb2.GetFlowsRequest(follow=True, whitelist=[flow_pb2.FlowFilter(source_pod=[source_pod])]))
        call.initial_metadata()
        reader = threading.Thread(target=follower.take, args=(call,), name="follower")
        reader.start()
        try:
            yield follower
        finally:
            call.cancel()
            reader.join()


def delays_ms(lab: LabCluster, sender: PodSpec, address: str, rate: float, count: int) -> list[float]:
    """Send from `sender` and return how late the flows were."""
    with following(lab, f"{sender.namespace}/{sender.name}") as follower:
        argv = [sys.executable, "-m", "tests.bench.latency", "--send", address, str(rate), str(count)]
        subprocess.run(in_namespace(sender.netns(lab.spec.name), argv), cwd=REPO, check=True)
        eventually(lambda: 0 < follower.heard_ns < time.time_ns() - LATEST_S * 1_000_000_000, 10)
        assert len(follower.delays_ms) >= count, f"{len(follower.delays_ms)} flows of {count} datagrams"
        return list(follower.delays_ms)


def cpu_ns(pid: int) -> int:
    """CPU time of all threads of a process, ns."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks)


def idle_percent(lab: LabCluster, modules: list[str], pod: str) -> dict[str, float]:
    """CPU of a core that the modules of the first node take while nothing comes and a client follows."""
    pids: dict[str, int] = {}
    for pid in network.processes(lab.spec.nodes[0].namespace):
        words = Path(f"/proc/{pid}/cmdline").read_text().split("\0")
        pids |= {module: pid for module in modules if module in words}
    with following(lab, pod):
        time.sleep(SETTLE_S)
        before = {module: cpu_ns(pid) for module, pid in pids.items()}
        begin_ns = time.monotonic_ns()
        time.sleep(IDLE_S)
        wall_ns = time.monotonic_ns() - begin_ns
        return {module: 100 * (cpu_ns(pid) - before[module]) / wall_ns for module, pid in pids.items()}


def broken_streams(lab: LabCluster) -> int:
    """How many streams from nodes broke off and were taken up again, each after a quarter of a second."""
    query = urlencode({"query": "sum(palomar_relay_resumed_streams_total)"})
    with urlopen(f"http://{lab.doors['prometheus']}/api/v1/query?{query}", timeout=10) as answer:
        found = json.load(answer)["data"]["result"]
    return int(found[0]["value"][1]) if found else 0


def _rows(what: str, delays: list[float]) -> list[dict[str, Any]]:
    percentiles = quantiles(delays, n=100, method="inclusive")
    return [
        {
            "what": f"packet to the relay's client, {what}, p{percent}",
            "ours": percentiles[percent - 1],
            "unit": "ms",
            "limit": LIMIT_MS,
        }
        for percent in (50, 99)
    ]


def run(repeats: int) -> list[dict[str, Any]]:
    """Return the rows of the benchmark page."""
    name = f"l{os.getpid()}"
    lab = LabCluster(LabSpec.build(name, 2))
    rows: list[dict[str, Any]] = []
    try:
        lab.up(demo=True)
        sender = PodSpec("sender", "bench", "node-1", ("k8s:app=sender",))
        receiver = PodSpec("receiver", "bench", "node-2", ("k8s:app=receiver",))
        lab.add_pod(sender)
        address = str(lab.add_pod(receiver).address)

        def measure(what: str, rate: float, count: int) -> None:
            # All repeats together: a p99 of the few flows of one would be its maximum.
            found = [delays_ms(lab, sender, address, rate, count) for _ in range(repeats)]
            rows.extend(_rows(what, list(chain.from_iterable(found))))

        measure("100 datagrams/s beside the demo", *MODERATE)
        measure("2,000 datagrams/s beside the demo", *BUSY)
        lab.stop_apps()
        measure("10 datagrams/s and nothing else", *LOW)
        measure("each after a second of silence", *SILENCE)
        modules = ["hubble.ingest", "hubble.server"]
        idle = [idle_percent(lab, modules, f"{sender.namespace}/{sender.name}") for _ in range(repeats)]
        rows.extend(
            {
                "what": f"CPU of {module} while nothing comes, two followers",
                "ours": median(values[module] for values in idle),
                "unit": "% of a core",
                "limit": IDLE_LIMIT_PERCENT,
            }
            for module in modules
        )
        # Scraped every two seconds, and the looks at idle processes took longer.
        broken = {"what": "streams of nodes that broke off meanwhile", "ours": broken_streams(lab)}
        rows.append({**broken, "unit": "streams", "limit": 0})
    finally:
        lab.down()
    return rows


def main() -> None:
    """Measure once and print, or be the sender."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--send", nargs=3, metavar=("ADDRESS", "RATE", "COUNT"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.send:
        send(args.send[0], float(args.send[1]), int(args.send[2]))
        return
    for entry in run(1):
        print(json.dumps(entry))


if __name__ == "__main__":
    main()
