"""The kernel's maps: how full, how the sweep of connections goes, and what the programs counted."""

from collections.abc import Iterator

from prometheus_client.core import Metric

from agent.metrics.family import counters, gauges
from agent.metrics.kernelcounts import KernelCounts
from agent.runtime import Runtime
from datapath.abi.mapspecs import GLOBAL_MAPS, POLICY_SPEC
from palomar import drop
from palomar.verdict import TrafficDirection

_MAX = {spec.name: spec.max_entries for spec in (*GLOBAL_MAPS, POLICY_SPEC)}
IPCACHE_MAX, LXC_MAX, POLICY_MAX = _MAX["cilium_ipcache"], _MAX["cilium_lxc"], _MAX[POLICY_SPEC.name]
GC_LABELS = ("family", "protocol", "status")


def capacity(runtime: Runtime, kernel: KernelCounts) -> Iterator[Metric]:
    """Most entries of each map, and the share in use."""
    config = runtime.config
    sizes = {
        "ct4_global": config.bpf_ct_global_tcp_max,
        "ct_any4_global": config.bpf_ct_global_any_max,
        "ipcache": IPCACHE_MAX,
        "lxc": LXC_MAX,
        "policy": POLICY_MAX,
    }
    yield gauges(
        "cilium_bpf_map_capacity",
        "Most entries a map can hold.",
        ["map_group"],
        (([name], size) for name, size in sizes.items()),
    )
    tracked = config.bpf_ct_global_tcp_max + config.bpf_ct_global_any_max
    pressure = [
        (["ipcache"], len(runtime.ipcache.entries()) / IPCACHE_MAX),
        (["lxc"], kernel.endpoints / LXC_MAX),
        (["ct"], _alive(runtime) / tracked),
    ]
    pressure += [
        ([f"policy_{row.key:05d}"], len(row.value.entries) / POLICY_MAX)
        for row in runtime.sync.table.rows()
        if not row.deleted
    ]
    yield gauges("cilium_bpf_map_pressure", "Share of a map that is in use.", ["map_name"], pressure)


def _alive(runtime: Runtime) -> int:
    """Connections that the last sweep left."""
    return runtime.conntrack_gc.last.seen - runtime.conntrack_gc.last.deleted


def conntrack(runtime: Runtime) -> Iterator[Metric]:
    """Sweeps of old connections."""
    gc = runtime.conntrack_gc
    yield counters(
        "cilium_datapath_conntrack_gc_runs",
        "Removals of old connections.",
        GC_LABELS,
        [(["ipv4", "all", "completed"], gc.runs)],
    )
    yield gauges(
        "cilium_datapath_conntrack_gc_entries",
        "Connections that the last removal found, by what became of them.",
        GC_LABELS,
        [(["ipv4", "all", "alive"], _alive(runtime)), (["ipv4", "all", "deleted"], gc.last.deleted)],
    )


def traffic(kernel: KernelCounts) -> Iterator[Metric]:
    """Drops and forwards, summed over source lines."""
    drops: dict[tuple[str, str], list[int]] = {}
    forwards: dict[str, list[int]] = {}
    for key, value in kernel.traffic.items():
        direction = TrafficDirection(key.direction).name if key.direction < 3 else "UNKNOWN"
        if key.reason >= drop.DROP_MIN:
            totals = drops.setdefault((drop.display(key.reason), direction), [0, 0])
        else:
            totals = forwards.setdefault(direction, [0, 0])
        totals[0] += value.packets
        totals[1] += value.bytes
    for index, (unit, word) in enumerate((("count", "Packets"), ("bytes", "Bytes"))):
        yield counters(
            f"cilium_drop_{unit}",
            f"{word} dropped, by reason and direction.",
            ["reason", "direction"],
            ((list(key), totals[index]) for key, totals in sorted(drops.items())),
        )
        yield counters(
            f"cilium_forward_{unit}",
            f"{word} forwarded, by direction.",
            ["direction"],
            (([direction], totals[index]) for direction, totals in sorted(forwards.items())),
        )
