"""The nodes of the soak: 20 flow servers as an agent starts them, and what their ingests would store.

A process of its own. Flow servers that are killed are processes too, so that the kill is real; the stores
and names logs are written here. Input: the soak's folder with the certificates in it, and standard
input, whose end ends everything; output: one line of JSON when all is up, and one for each line asked.

The traffic: workloads that call each other at a steady rate; callees whose ports are scanned, so that
edges fold; pods that live for two flows, some of a workload of their own, which is a new edge each.
"""

import argparse
import asyncio
import json
import random
import select
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from hubble.flowendpoint import FlowEndpoint
from hubble.flowendpoint import Workload as Owner
from hubble.server import FlowServer, ServerConfig
from palomar.certs import Role
from palomar.clock import SystemClock
from palomar.parent import die_with_parent
from palomar.verdict import TraceReason
from tests.kit.flows import record, stored
from tests.kit.relaycluster import Certificates, Node, write_peers

REPO = Path(__file__).resolve().parents[2]
NODES, WORKLOADS = 20, 200
STEADY_PER_S, PODS_PER_S, JOBS_PER_S = 1_800, 100, 4.5
"""Each pod sends two flows. At JOBS_PER_S of them belong to a workload of their own."""
CALLS_EACH = 2
NAMESPACE = 20
"""Workloads in each, most of whose calls stay inside."""
CRON_JOBS = 20
"""Workloads of the other short-lived pods."""
ROUND_S = 0.4
CAPACITY = 16_384
SCANNING = (3, 9, 15)
"""Nodes on which a workload calls another at ever new ports."""
KILL_EVERY_S, AWAY_S = 60.0, 10.0
KILLED, TOGETHER = 2, 18
"""Nodes that are killed by turns, the one that announces the others among them; how many share a process."""

Rows = npt.NDArray[np.void]


@dataclass
class Party:
    """A workload on its node."""

    number: int
    refs: dict[int, int] = field(default_factory=dict)
    """Its reference in the names log of each node that sees it."""

    @property
    def node(self) -> int:
        return self.number % NODES

    @property
    def address(self) -> str:
        return f"10.{self.node}.{self.number // 250}.{self.number % 250 + 2}"

    @property
    def endpoint(self) -> FlowEndpoint:
        name, namespace = f"service-{self.number}", f"team-{self.number // NAMESPACE}"
        return FlowEndpoint(
            endpoint_id=100 + self.number,
            identity=10_000 + self.number,
            cluster="default",
            namespace=namespace,
            pod=f"{name}-7c9d8f6b5-fghij",
            labels=(f"k8s:app={name}", f"k8s:io.kubernetes.pod.namespace={namespace}"),
            workloads=(Owner(name, "Deployment"),),
        )


def callees(party: Party, parties: list[Party], rng: random.Random) -> list[Party]:
    """Choose whom a workload calls: those after it in its namespace, or in the next ones."""
    inside = parties[party.number + 1 : (party.number // NAMESPACE + 1) * NAMESPACE]
    beyond = parties[(party.number // NAMESPACE + 1) * NAMESPACE :]
    found = []
    for _ in range(CALLS_EACH):
        near = inside if inside and rng.random() < 0.8 else beyond
        found.append(rng.choice(near or inside or parties[:1]))
    return found


def short_lived(number: int, owner: str) -> FlowEndpoint:
    """Make the pod `number` of a job."""
    return FlowEndpoint(
        endpoint_id=1_000 + number % 60_000,
        identity=20_000 + number % 40_000,
        cluster="default",
        namespace="batch",
        pod=f"{owner}-{number:x}",
        labels=(f"k8s:job-name={owner}", "k8s:io.kubernetes.pod.namespace=batch"),
        workloads=(Owner(owner, "Job"),),
    )


class Traffic:
    """Writes what one node sees; every node's own."""

    def __init__(self, node: Node, number: int, parties: list[Party], seed: int) -> None:
        self.node = node
        self.written = 0
        self._rng = np.random.default_rng(seed)
        self._pods_rng = random.Random(seed)
        self._callees = [
            (party, callee)
            for party in parties
            if party.node == number
            for callee in callees(party, parties, self._pods_rng)
        ]
        rows = []
        for caller, callee in self._callees:
            sides = {"src_ref": self._ref(caller, number), "dst_ref": self._ref(callee, number)}
            request = self._request(caller, callee, **sides)
            reply = request | {
                **{"saddr": callee.address, "daddr": caller.address},
                **{"src_identity": request["dst_identity"], "dst_identity": request["src_identity"]},
                **{"src_ref": sides["dst_ref"], "dst_ref": sides["src_ref"]},
                **{"sport": request["dport"], "l4_flags": 18, "trace_reason": TraceReason.REPLY},
            }
            refused = caller.number % 25 == 0
            rows += [request, request if refused else reply]
        self._steady = stored(*rows)
        self._scans = number in SCANNING
        self._template = stored(record())
        node.names.flush()

    def _ref(self, party: Party, number: int) -> int:
        if number not in party.refs:
            party.refs[number] = self.node.names.intern(party.endpoint, party.address)
        return party.refs[number]

    def _request(self, caller: Party, callee: Party, **values: Any) -> dict[str, Any]:
        refused = {"type": 1, "subtype": 133, "drop_reason": 133, "verdict": 2, "policy_cookie": 78}
        return record(
            saddr=caller.address,
            daddr=callee.address,
            src_identity=caller.endpoint.identity,
            dst_identity=callee.endpoint.identity,
            endpoint_id=caller.endpoint.endpoint_id,
            dport=(80, 443, 5432, 6379, 8080, 9090)[callee.number % 6],
            **values,
            **(refused if caller.number % 25 == 0 else {}),
        )

    def write(self, steady: int, pods: list[tuple[int, str]]) -> None:
        """Store `steady` flows of the workloads and the flows of new `pods` (number, owner)."""
        picked = self._rng.integers(0, len(self._steady), steady)
        rows = self._steady[picked]
        ports = self._rng.integers(32_768, 60_999, steady).astype(np.uint16)
        is_reply = rows["sport"] < 32_768
        rows["sport"] = np.where(is_reply, rows["sport"], ports)
        rows["dport"] = np.where(is_reply, ports, rows["dport"])
        scanned = (picked == 0) & self._scans
        rows["dport"][scanned] = 10_000 + ports[scanned] % 1_000
        fresh = np.repeat(self._template, 2 * len(pods))
        for index, (number, owner) in enumerate(pods):
            _, callee = self._callees[number % CRON_JOBS % len(self._callees)]
            endpoint = short_lived(number, owner)
            both = fresh[2 * index : 2 * index + 2]
            both["src_ref"] = self.node.names.intern(endpoint)
            both["dst_ref"] = self.node.names.intern(callee.endpoint, callee.address)
            both["src_identity"], both["dst_identity"] = endpoint.identity, callee.endpoint.identity
            both["endpoint_id"] = endpoint.endpoint_id
            both["saddr"][:, 2:4] = (number >> 8 & 255, number & 255)
            both["sport"] = 32_768 + number % 28_000, 32_769 + number % 28_000
        self.node.names.flush()
        rows = np.concatenate([rows, fresh])
        begin = self.written
        self.written += len(rows)
        rows["seq"] = np.arange(begin, self.written)
        rows["time_ns"] = time.time_ns() + np.arange(len(rows))
        self.node.writer.append(rows)


class FlowServers:
    """The nodes' flow servers, in processes: those that are killed in one each, the others together.

    Together, because each polls its store for every follower: apart, 20 take a core for their wake-ups alone.
    """

    def __init__(self, nodes: list[Node]) -> None:
        self._nodes = nodes
        self._processes: dict[int, subprocess.Popen[bytes]] = {}
        self.kills = 0
        self._away = -1
        self._turn_s = time.monotonic() + KILL_EVERY_S

    def start(self) -> None:
        """Start all."""
        for number in range(KILLED):
            self._start_one(number)
        for first in range(KILLED, len(self._nodes), TOGETHER):
            configs = [node.config.to_json() for node in self._nodes[first : first + TOGETHER]]
            argv = [sys.executable, "-m", "tests.bench.soaknodes", "--serve", *configs]
            self._processes[first] = subprocess.Popen(argv, cwd=REPO)

    def _start_one(self, number: int) -> None:
        config = self._nodes[number].config.to_json()
        argv = [sys.executable, "-m", "hubble.server", "--config-json", config]
        self._processes[number] = subprocess.Popen(argv, cwd=REPO)

    def turn(self) -> None:
        """Every minute kill one, the next each time, and start it again after AWAY_S."""
        if time.monotonic() < self._turn_s:
            return
        if self._away < 0:
            self._away = self.kills % KILLED
            self._processes[self._away].kill()
            self._processes[self._away].wait()
            self.kills += 1
            self._turn_s += AWAY_S
        else:
            self._start_one(self._away)
            self._away = -1
            self._turn_s += KILL_EVERY_S - AWAY_S

    def ended(self) -> list[int]:
        """Numbers of those that ended by themselves."""
        return [number for number, process in self._processes.items() if process.poll() not in (None, -9)]

    def stop(self) -> None:
        """End all."""
        for process in self._processes.values():
            process.terminate()
        for process in self._processes.values():
            process.wait(20)


async def serve(configs: list[ServerConfig]) -> None:
    """Be the flow servers of several nodes until SIGTERM."""
    stopped = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
    servers = [FlowServer(config, SystemClock()) for config in configs]
    for server in servers:
        await server.start()
    await stopped.wait()
    for server in servers:
        await server.stop()


def run(folder: Path) -> None:
    """Serve and write until standard input ends."""
    certificates = Certificates(folder / "certs")
    nodes = []
    for number in range(NODES):
        name = f"n{number}"
        tls = certificates.issue(Role.AGENT, name)
        nodes.append(Node(name, folder / name, tls, SystemClock(), CAPACITY))
    parties = [Party(number) for number in range(WORKLOADS)]
    traffic = [Traffic(node, number, parties, number) for number, node in enumerate(nodes)]
    for node in nodes:
        write_peers(node.peers_file, nodes)
    servers = FlowServers(nodes)
    try:
        servers.start()
        print(json.dumps([str(node.config.paths.hubble_socket) for node in nodes]), flush=True)
        _write_until_told(traffic, servers)
    finally:
        servers.stop()
        for node in nodes:
            node.close()


def _write_until_told(traffic: list[Traffic], servers: FlowServers) -> None:
    """Every node writes once in ROUND_S, each at its own moment."""
    made = 0
    share_s = ROUND_S / NODES
    begin_s = time.monotonic()
    owed_pods = owed_jobs = 0.0
    steady = round(STEADY_PER_S * share_s)
    for step in count():
        servers.turn()
        owed_pods += PODS_PER_S * share_s
        owed_jobs += JOBS_PER_S * share_s
        fresh = []
        while owed_pods >= 1:
            owed_pods -= 1
            number, made = made, made + 1
            if owed_jobs >= 1:
                owed_jobs -= 1
                fresh.append((number, f"job-{number:x}"))
            else:
                fresh.append((number, f"cron-{number % CRON_JOBS}"))
        traffic[step % NODES].write(steady, fresh)
        wait_s = max(0.0, begin_s + (step + 1) * share_s - time.monotonic())
        if select.select([sys.stdin], [], [], wait_s)[0]:
            if not sys.stdin.readline():
                return
            told = {
                "written": sum(item.written for item in traffic),
                "kills": servers.kills,
                "ended": servers.ended(),
                "pods": made,
            }
            print(json.dumps(told), flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, nargs="?")
    parser.add_argument("--serve", nargs="+", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.serve:
        die_with_parent()
        asyncio.run(serve([ServerConfig.parse(text) for text in args.serve]))
    else:
        run(args.folder)
