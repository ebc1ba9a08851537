"""What the agent costs: adding endpoints, a policy change for a hundred of them, and memory.

Times are seen by a client of the API, an upper bound of what the agent itself spends. The baseline of
an endpoint is the same veth pair, address and routes made by iproute2 in one call each.
"""

import os
import re
import time
from pathlib import Path
from statistics import median

from datapath.maps.node import open_maps
from lab.cluster import LabCluster
from lab.network import add_namespace, ip, processes, remove_one
from lab.spec import LabSpec, PodSpec

ENDPOINTS = 100
POLICY = """
apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {{name: bench, namespace: bench}}
spec:
  endpointSelector: {{}}
  ingress:
    - fromEndpoints: [{{}}]
      toPorts: [{{ports: [{{port: "{port}", protocol: TCP}}]}}]
"""


def resident_mb(pids: list[int]) -> float:
    """Proportional resident memory of `pids` without the mapped flow store, in MB."""
    total_kb = 0
    for pid in pids:
        mapping = ""
        for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
            if re.match(r"^[0-9a-f]+-[0-9a-f]+ ", line):
                mapping = line
            elif line.startswith("Pss:") and "flows.ring" not in mapping:
                total_kb += int(line.split()[1])
    return total_kb / 1024


def iproute2_endpoint_ms(namespace: str, index: int) -> float:
    """Make one veth pair, address and routes with iproute2: milliseconds."""
    pod = f"{namespace}.raw{index}"
    add_namespace(pod)
    start = time.perf_counter()
    ip("link", "add", "eth0", "netns", pod, "type", "veth", "peer", "name", f"raw{index}", "netns", namespace)
    ip("addr", "add", f"10.99.0.{index + 1}/32", "dev", "eth0", namespace=pod)
    ip("link", "set", "eth0", "up", namespace=pod)
    ip("link", "set", f"raw{index}", "up", namespace=namespace)
    ip("route", "add", "10.99.0.254", "dev", "eth0", "scope", "link", namespace=pod)
    ip("route", "add", "default", "via", "10.99.0.254", "dev", "eth0", namespace=pod)
    took = (time.perf_counter() - start) * 1000
    remove_one(pod)
    return took


def _memory_rows(pids: list[int]) -> list[dict[str, object]]:
    """Memory of the agent itself, which has a limit, and of all three processes."""
    commands = {pid: Path(f"/proc/{pid}/cmdline").read_bytes() for pid in pids}
    own = [pid for pid, argv in commands.items() if b"cli.main" in argv or b"-m\0hubble." in argv]
    agent = [pid for pid in own if b"cli.main" in commands[pid]]
    where = f"with {ENDPOINTS} endpoints, beyond the flow store"
    return [
        {"what": f"memory of the agent {where}", "ours": resident_mb(agent), "unit": "MB", "limit": 200.0},
        {"what": f"memory of agent, ingest and flow server {where}", "ours": resident_mb(own), "unit": "MB"},
    ]


def run(repeats: int) -> list[dict[str, object]]:
    """Measure everything; one row a figure."""
    lab = LabCluster(LabSpec.build(f"a{os.getpid()}", 1))
    rows: list[dict[str, object]] = []
    try:
        lab.up(demo=False)
        node = lab.spec.nodes[0]
        adds, raw = [], []
        for index in range(ENDPOINTS):
            spec = PodSpec(f"pod-{index}", "bench", node.name, (f"k8s:app=app{index % 10}",))
            add_namespace(spec.netns(lab.spec.name))
            request = lab.endpoint_request(spec)
            start = time.perf_counter()
            lab.api(node).request("PUT", "/v1/endpoint/0", request)
            adds.append((time.perf_counter() - start) * 1000)
            if index % 10 == 0:
                raw.append(iproute2_endpoint_ms(node.namespace, index))
        what = "endpoint add, median (API round trip)"
        row = {"what": what, "ours": median(adds), "baseline": median(raw), "unit": "ms"}
        rows.append({**row, "ratio": median(adds) / median(raw), "limit": 60.0})
        maps = open_maps(node.paths.bpf_root)
        ids = [entry["id"] for entry in lab.api(node).request("GET", "/v1/endpoint")]
        delays = []
        for repeat in range(repeats):
            before = {endpoint: maps.policy_revision(endpoint) for endpoint in ids}
            start = time.perf_counter()
            lab.api(node).request("PUT", "/v1/policy", POLICY.format(port=8000 + repeat))
            left = set(ids)
            while left:
                left = {endpoint for endpoint in left if maps.policy_revision(endpoint) == before[endpoint]}
            delays.append((time.perf_counter() - start) * 1000)
        what = f"policy change enforced in the kernel, {ENDPOINTS} endpoints"
        rows.append({"what": what, "ours": median(delays), "unit": "ms", "limit": 50.0})
        rows += _memory_rows(processes(node.namespace))
    finally:
        lab.down()
    return rows
