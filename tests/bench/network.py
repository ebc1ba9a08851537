"""Network speed through the datapath, as ratios against the plain kernel in the same run.

Baselines are built with iproute2 alone: the same veth pairs routed by the kernel, and the kernel's
own VXLAN device. Runs alternate between ours and the baseline, so that noise hits both; client and server
are pinned to a CPU each, because where the scheduler puts them moves a round trip by half.
"""

import json
import os
import re
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import IPv4Address
from statistics import median

from datapath.maps.node import open_maps
from lab import network
from lab.cluster import LabCluster
from lab.network import in_namespace, ip
from lab.spec import LabSpec, PodSpec
from tests.kit.wait import eventually

STREAM_S = 2
PORT = 5201
RR_PORT = 5202
EVENTS_OFF_INDEX = 18


@dataclass(frozen=True, slots=True)
class Path:
    """Two namespaces that reach each other."""

    client: str
    server: str
    address: IPv4Address


def _pinned(cpu: int, argv: list[str]) -> list[str]:
    return ["taskset", "-c", str(cpu % (os.cpu_count() or 1)), *argv]


def _listening(namespace: str, port: int) -> bool:
    out = subprocess.run(in_namespace(namespace, ["ss", "-Htln"]), capture_output=True, text=True, check=True)
    return f":{port} " in out.stdout


@contextmanager
def _server(namespace: str, argv: list[str], port: int) -> Iterator[None]:
    process = subprocess.Popen(
        in_namespace(namespace, _pinned(1, argv)), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        eventually(lambda: _listening(namespace, port), 10)
        yield
    finally:
        process.kill()
        process.wait()


def stream_gbps(path: Path) -> float:
    """TCP stream for STREAM_S seconds: received Gbit/s."""
    with _server(path.server, ["iperf3", "-s", "-p", str(PORT)], PORT):
        argv = ["iperf3", "-c", str(path.address), "-p", str(PORT), "-t", str(STREAM_S), "-J"]
        out = subprocess.run(
            in_namespace(path.client, _pinned(0, argv)),
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
    return float(json.loads(out.stdout)["end"]["sum_received"]["bits_per_second"]) / 1e9


def request_response_per_s(path: Path) -> float:
    """TCP request and response of 64 bytes: round trips a second."""
    server = ["sockperf", "server", "--tcp", "-i", str(path.address), "-p", str(RR_PORT)]
    with _server(path.server, server, RR_PORT):
        argv = ["sockperf", "ping-pong", "--tcp", "-i", str(path.address), "-p", str(RR_PORT)]
        argv += ["-t", str(STREAM_S), "--msg-size", "64"]
        out = subprocess.run(
            in_namespace(path.client, _pinned(0, argv)),
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
    found = re.search(r"Latency is ([0-9.]+) usec", out.stdout)
    assert found is not None, out.stdout
    return 1e6 / (2 * float(found.group(1)))  # sockperf prints half a round trip


def build_plain(prefix: str) -> tuple[Path, Path]:
    """Two nodes with the kernel's routing and VXLAN, two pods on the first and one on the second."""
    nodes = [f"{prefix}.p1", f"{prefix}.p2"]
    for index, node in enumerate(nodes, 1):
        network.add_namespace(node)
        for key in ("net.ipv4.ip_forward=1", "net.ipv4.conf.all.rp_filter=0"):
            subprocess.run(in_namespace(node, ["sysctl", "-qw", key]), check=True)
        if index == 1:
            network.add_namespace(f"{prefix}.pu")
            ip("link", "add", "br0", "type", "bridge", namespace=f"{prefix}.pu")
            ip("link", "set", "br0", "up", namespace=f"{prefix}.pu")
        under = f"{prefix}.pu"
        ip("link", "add", "eth0", "netns", node, "type", "veth", "peer", "name", f"n{index}", "netns", under)
        ip("link", "set", f"n{index}", "master", "br0", "up", namespace=under)
        ip("addr", "add", f"172.30.0.{index}/24", "dev", "eth0", namespace=node)
        ip("link", "set", "eth0", "up", namespace=node)
        other = 3 - index
        remote = f"172.30.0.{other}"
        ip(
            "link",
            "add",
            "vx0",
            "type",
            "vxlan",
            "id",
            "7",
            "remote",
            remote,
            "dstport",
            "8472",
            namespace=node,
        )
        ip("addr", "add", f"10.9.{index}.1/32", "dev", "vx0", namespace=node)
        ip("link", "set", "vx0", "up", namespace=node)
        ip("route", "add", f"10.9.{other}.0/24", "dev", "vx0", namespace=node)
        # The far node answers ARP for its pods, as nobody on the tunnel has their addresses.
        subprocess.run(in_namespace(node, ["sysctl", "-qw", "net.ipv4.conf.vx0.proxy_arp=1"]), check=True)
    pods = [("a", 1, "10.9.1.11"), ("b", 1, "10.9.1.12"), ("c", 2, "10.9.2.11")]
    for name, node_index, address in pods:
        pod, node = f"{prefix}.{name}", nodes[node_index - 1]
        network.add_namespace(pod)
        ip("link", "add", "eth0", "netns", pod, "type", "veth", "peer", "name", f"v{name}", "netns", node)
        ip("addr", "add", f"{address}/32", "dev", "eth0", namespace=pod)
        ip("link", "set", "eth0", "up", "mtu", "1450", namespace=pod)
        ip("link", "set", f"v{name}", "up", namespace=node)
        gateway = f"10.9.{node_index}.1"
        ip("route", "add", gateway, "dev", "eth0", "scope", "link", namespace=pod)
        ip("route", "add", "default", "via", gateway, "dev", "eth0", namespace=pod)
        ip("route", "add", f"{address}/32", "dev", f"v{name}", namespace=node)
    return (
        Path(f"{prefix}.a", f"{prefix}.b", IPv4Address("10.9.1.12")),
        Path(f"{prefix}.a", f"{prefix}.c", IPv4Address("10.9.2.11")),
    )


def _pod(lab: LabCluster, name: str, node: str) -> PodSpec:
    spec = PodSpec(name, "bench", node, (f"k8s:app={name}",))
    lab.add_pod(spec)
    return spec


def compare(
    measure: Callable[[Path], float], ours: Path, plain: Path, repeats: int
) -> tuple[float, float, float]:
    """Medians of ours and the baseline, alternating, and their ratio."""
    mine, theirs = [], []
    for _ in range(repeats):
        theirs.append(measure(plain))
        mine.append(measure(ours))
    return median(mine), median(theirs), median(a / b for a, b in zip(mine, theirs, strict=True))


def run(repeats: int) -> list[dict[str, object]]:
    """Measure everything; one row a figure."""
    name = f"b{os.getpid()}"
    lab = LabCluster(LabSpec.build(name, 2))
    rows: list[dict[str, object]] = []

    def row(what: str, unit: str, values: tuple[float, float, float], target: float) -> None:
        ours, plain, ratio = values
        rows.append(
            {"what": what, "ours": ours, "baseline": plain, "unit": unit, "ratio": ratio, "target": target}
        )

    try:
        lab.up(demo=False)
        plain_same, plain_cross = build_plain(name)
        client, same, cross = (
            _pod(lab, "client", "node-1"),
            _pod(lab, "same", "node-1"),
            _pod(lab, "cross", "node-2"),
        )
        here = client.netns(name)
        ours_same = Path(here, same.netns(name), lab.pods["bench/same"].address)
        ours_cross = Path(here, cross.netns(name), lab.pods["bench/cross"].address)
        for where, ours, plain in (
            ("same node", ours_same, plain_same),
            ("across nodes", ours_cross, plain_cross),
        ):
            row(f"pod to pod, {where}, TCP stream", "Gbit/s", compare(stream_gbps, ours, plain, repeats), 0.9)
            values = compare(request_response_per_s, ours, plain, repeats)
            row(f"pod to pod, {where}, TCP request/response", "1/s", values, 0.9)
        maps = open_maps(lab.spec.nodes[0].paths.bpf_root)

        def with_events(off: int) -> Callable[[Path], float]:
            def measure(path: Path) -> float:
                maps.runtime_config.set(EVENTS_OFF_INDEX, off)
                try:
                    return request_response_per_s(path)
                finally:
                    maps.runtime_config.set(EVENTS_OFF_INDEX, 0)

            return measure

        on, off = [], []
        for _ in range(2 * repeats + 1):  # a difference of 3 % wants more than three looks
            off.append(with_events(1)(ours_same))
            on.append(with_events(0)(ours_same))
        ratio = median(a / b for a, b in zip(on, off, strict=True))
        row("events on against off, TCP request/response", "1/s", (median(on), median(off), ratio), 0.97)
    finally:
        lab.down()
    return rows


if __name__ == "__main__":
    for entry in run(3):
        print(json.dumps(entry))
