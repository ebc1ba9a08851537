"""A node of a whole, working cluster under 200,000 events a second: nothing may be lost.

The lab as `make demo` starts it: agents, datapath, flow servers, telemetry, relay, page, Prometheus, OTLP
receiver and the demo's own traffic, and a client that follows dropped flows through the relay. Then
events come into the first node's ring at a steady rate, by the way every program sends them. Counted from
the node's own books: emitted = stored + lost.

    python -m tests.bench.busynode
"""

import json
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import IO

from datapath.perf import EventCounters
from hubble.accounting import CpuAccount
from hubble.storereader import FlowStoreReader
from lab import network
from lab.cluster import LabCluster
from lab.spec import LabSpec, NodeSpec
from palomar.certs import RELAY_SERVER_NAME
from palomar.tls import TlsFiles
from tests.bench.ingest import emit
from tests.bench.latency import cpu_ns
from tests.kit.wait import eventually

EVENTS_PER_S, SECONDS = 200_000, 30.0
VARY_BITS = 8
PARTS = {"hubble.ingest": "ingest", "hubble.server": "flow server", "hubble.telemetry": "telemetry"}


def accounts(node: NodeSpec) -> list[CpuAccount]:
    """Return the node's books, one a CPU."""
    return FlowStoreReader.open(node.paths.flow_dir).accounting()


def emitted(node: NodeSpec) -> int:
    """Return how many events the node's kernel tried so far."""
    counters = EventCounters(node.paths.bpf_root / "tc" / "globals" / "palomar_event_stats")
    return sum(int(tried) for tried, _, _ in counters.read().tolist())


def flood(node: NodeSpec) -> int:
    """Send the events, from every CPU an equal share; how many were sent."""
    cpus = sorted(os.sched_getaffinity(0))[:2]
    context = multiprocessing.get_context("spawn")
    start, results = context.Event(), context.Queue()
    root = str(node.paths.bpf_root / "tc" / "globals")
    share = EVENTS_PER_S // len(cpus)
    children = [
        context.Process(target=emit, args=(root, cpu, VARY_BITS, share, SECONDS, start, results))
        for cpu in cpus
    ]
    for child in children:
        child.start()
    start.set()
    sent = sum(int(results.get(timeout=4 * SECONDS).events) for _ in children)
    for child in children:
        child.join()
    return sent


def follow(lab: LabCluster, output: IO[bytes]) -> subprocess.Popen[bytes]:
    """Start a client that follows what is dropped in the cluster, through the relay."""
    files: TlsFiles = lab.client_files()
    argv = [sys.executable, "-m", "cli.main", "observe", "--follow", "--verdict", "DROPPED"]
    argv += ["--server", f"tls://{lab.doors['relay']}", "--tls-ca-cert-files", str(files.ca)]
    argv += ["--tls-client-cert-file", str(files.cert), "--tls-client-key-file", str(files.key)]
    argv += ["--tls-server-name", RELAY_SERVER_NAME]
    return subprocess.Popen(argv, stdout=output)


def processes(node: NodeSpec) -> dict[str, int]:
    """Return the pids of the node's own processes that the flow of events passes."""
    found: dict[str, int] = {}
    for pid in network.processes(node.namespace):
        words = Path(f"/proc/{pid}/cmdline").read_text().split("\0")
        found |= {PARTS[word]: pid for word in words if word in PARTS}
    return found


def measure(lab: LabCluster) -> list[dict[str, object]]:
    """Flood the first node of a running lab; rows of the benchmark page."""
    node = lab.spec.nodes[0]
    with tempfile.NamedTemporaryFile() as output:
        client = follow(lab, output)
        try:
            eventually(lambda: os.stat(output.name).st_size, 15)
            pids = processes(node)
            lost = sum(account.lost for account in accounts(node))
            before, begin = {name: cpu_ns(pid) for name, pid in pids.items()}, time.monotonic()
            sent = flood(node)
            took = time.monotonic() - begin
            used = {name: (cpu_ns(pid) - before[name]) / 1e9 / took for name, pid in pids.items()}
            tried = emitted(node)
            eventually(lambda: sum(account.emitted for account in accounts(node)) >= tried, 10)
            lost = sum(account.lost for account in accounts(node)) - lost
            assert client.poll() is None, "the follower ended"
        finally:
            client.kill()
            client.wait()
    what = f"beside the whole demo, {EVENTS_PER_S // 1000} k events/s for {SECONDS:.0f} s"
    rows: list[dict[str, object]] = [
        {"what": f"events sent {what}", "ours": sent, "unit": "events"},
        {"what": f"lost {what}", "ours": lost, "unit": "events", "limit": 0},
    ]
    rows += [
        {"what": f"CPU of {name} {what}", "ours": 100 * share, "unit": "% of a core"}
        for name, share in sorted(used.items())
    ]
    return rows


def run(_repeats: int) -> list[dict[str, object]]:
    """Measure once: thirty seconds are long enough."""
    lab = LabCluster(LabSpec.build(f"b{os.getpid()}", 3))
    try:
        lab.up(demo=True)
        return measure(lab)
    finally:
        lab.down()


if __name__ == "__main__":
    for row in run(1):
        print(json.dumps(row))
