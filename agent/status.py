"""What the agent says of itself: the field's StatusResponse with a `palomar` part beside it.

Pure but for asking the parts how they are. Input: `Runtime`; output: JSON values for `GET /v1/healthz`.
"""

from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from agent.api.views import node_element, text_time
from agent.controllers import ControllerStatus
from agent.endpoint.model import EndpointState
from agent.ingestlink import IngestStats
from agent.runtime import Runtime
from agent.supervisor import ChildState, ChildStatus
from cluster.backend import BackendState
from palomar.identity import MAX_CLUSTER_IDENTITY, MIN_CLUSTER_IDENTITY
from palomar.table import RowState, Table

RING_BYTES = 8 << 20
PAGE_BYTES = 4096


def status_response(runtime: Runtime) -> dict[str, Any]:
    """Return the whole report."""
    return {
        "cilium": _agent(runtime),
        "kvstore": _kvstore(runtime),
        "kubernetes": {"state": "Disabled"},
        "hubble": _hubble(runtime),
        "ipam": _ipam(runtime),
        "nodeMonitor": _monitor(runtime.link.stats),
        "cluster": {
            "self": runtime.nodes.local.full_name,
            "nodes": [node_element(node) for node in runtime.nodes.nodes()],
        },
        "controllers": [controller(item.status) for item in runtime.controllers],
        "routing": {
            "inter-host-routing-mode": "Tunnel",
            "intra-host-routing-mode": "BPF",
            "tunnel-protocol": "vxlan",
        },
        "masquerading": {
            "enabled": runtime.config.enable_ipv4_masquerade,
            "enabledProtocols": {"ipv4": runtime.config.enable_ipv4_masquerade, "ipv6": False},
            "mode": "iptables",
            "snat-exclusion-cidr-v4": str(runtime.config.cluster_pod_cidr),
        },
        "datapath-mode": "veth",
        "attach-mode": "tc",
        "clock-source": {"mode": "ktime"},
        "identity-range": {"min-identity": MIN_CLUSTER_IDENTITY, "max-identity": MAX_CLUSTER_IDENTITY},
        "bpf-maps": {"maps": bpf_maps(runtime)},
        "encryption": {"mode": "Disabled"},
        "palomar": _own(runtime),
    }


def agent_problems(runtime: Runtime) -> list[str]:
    """Say what keeps the agent from doing all its work, one line each."""
    found = []
    if not runtime.bootstrap.is_ready:
        found.append(f"starting: {runtime.bootstrap.stage}")
    stuck = [e for e in runtime.endpoints.endpoints() if e.state is EndpointState.NOT_READY]
    if stuck:
        found.append(f"{len(stuck)} endpoints are not ready, e.g. {stuck[0].endpoint_id}")
    for table in _tables(runtime):
        errors = [row for row in table.rows() if row.state is RowState.ERROR]
        if errors:
            found.append(f"{len(errors)} rows of {table.name} are not in the kernel: {errors[0].error}")
    found += runtime.policies.errors()
    found += [
        f"certificate {certificate.file}: {certificate.problem}: renew it with `palomar certs renew`"
        for certificate in runtime.certificates
        if certificate.problem
    ]
    return found


def _agent(runtime: Runtime) -> dict[str, str]:
    problems = agent_problems(runtime)
    if not problems:
        return {"state": "Ok", "msg": ""}
    state = "Warning" if runtime.bootstrap.is_ready else "Failure"
    return {"state": state, "msg": "; ".join(problems)}


def _kvstore(runtime: Runtime) -> dict[str, str]:
    status = runtime.backend.status()
    states = {
        BackendState.OK: "Ok",
        BackendState.CONNECTING: "Warning",
        BackendState.DISCONNECTED: "Failure",
        BackendState.STOPPED: "Failure",
    }
    return {"state": states[status.state], "msg": status.message}


def _hubble(runtime: Runtime) -> dict[str, Any]:
    stats = runtime.link.stats
    stopped = [child.name for child in runtime.processes() if child.state is not ChildState.RUNNING]
    problem = ""
    if stopped:
        problem = f"not running: {', '.join(stopped)}"
    elif runtime.link.stats_are_stale():
        problem = "ingest sends no counters" if stats.received_ns else "ingest has not reported yet"
    head, capacity = stats.store.get("head", 0), stats.store.get("capacity", 0)
    uptime_s = (runtime.clock.monotonic_ns() - runtime.bootstrap.started_ns) / 1e9
    found: dict[str, Any] = {
        "state": "Warning" if problem else "Ok",
        "observer": {
            "max-flows": capacity,
            "current-flows": min(head, capacity),
            "seen-flows": head,
            "uptime": f"{uptime_s:.3f}s",
        },
        "metrics": {"state": "Ok" if runtime.config.prometheus_serve_addr else "Disabled"},
    }
    if stats.store.get("set_aside"):
        problem = "; ".join(filter(None, (problem, "a damaged flow store was set aside")))
    return found | ({"msg": problem} if problem else {})


def _ipam(runtime: Runtime) -> dict[str, Any]:
    ipam = runtime.ipam
    allocations = {str(ipam.router): "router"}
    allocations |= {str(ipv4): owner for ipv4, owner in sorted(ipam.allocations.items())}
    return {
        "allocations": allocations,
        "ipv4": list(allocations),
        "status": f"IPv4: {len(ipam.allocations)}/{ipam.capacity} allocated from {ipam.pod_cidr}",
    }


def _monitor(stats: IngestStats) -> dict[str, int]:
    return {
        "cpus": len(stats.cpus),
        "npages": RING_BYTES // PAGE_BYTES,
        "pagesize": PAGE_BYTES,
        "lost": stats.lost,
        "unknown": 0,
    }


def controller(status: ControllerStatus) -> dict[str, Any]:
    """Return a controller as the field's ControllerStatus."""
    return {
        "name": status.name,
        "configuration": {"interval": f"{status.interval_s:g}s", "error-retry": True},
        "status": {
            "success-count": status.successes,
            "failure-count": status.failures,
            "consecutive-failure-count": status.consecutive_failures,
            "last-failure-msg": status.last_error,
            "last-success-timestamp": _stamp(status.last_success_ns),
            "last-failure-timestamp": _stamp(status.last_failure_ns),
        },
    }


def _stamp(time_ns: int) -> str:
    return text_time(time_ns) if time_ns else datetime.fromtimestamp(0, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def bpf_maps(runtime: Runtime) -> list[dict[str, Any]]:
    """Return the maps with their sizes."""
    return [
        {"name": "cilium_ct4_global", "size": runtime.config.bpf_ct_global_tcp_max},
        {"name": "cilium_ct_any4_global", "size": runtime.config.bpf_ct_global_any_max},
        {"name": "cilium_ipcache", "size": 512000},
        {"name": "cilium_lxc", "size": 65536},
        {"name": "cilium_tunnel_map", "size": 65536},
        {"name": "cilium_policy_v2", "size": 16384},
    ]


def _tables(runtime: Runtime) -> list[Table[Any, Any]]:
    return [runtime.sync.table, runtime.ipcache.table, runtime.ipcache.tunnel_table]


def tables(runtime: Runtime) -> list[dict[str, Any]]:
    """Return every table with how many rows are not in the kernel yet."""
    found = []
    for table in _tables(runtime):
        states = [row.state for row in table.rows()]
        found.append(
            {
                "name": table.name,
                "rows": len(states),
                "pending": states.count(RowState.PENDING),
                "errors": states.count(RowState.ERROR),
            }
        )
    return found


def _observed(stats: IngestStats) -> dict[str, Any]:
    names = ("cpu", "emitted", "stored", "lost", "failed", "suppressed")
    return {
        "emitted": stats.emitted,
        "stored": stats.stored,
        "lost": stats.lost,
        "cpus": [{name: getattr(cpu, name) for name in names} for cpu in stats.cpus],
    }


def _process(child: ChildStatus) -> dict[str, Any]:
    return {
        "name": child.name,
        "state": str(child.state),
        "pid": child.pid,
        "restarts": child.restarts,
        "last-exit": child.last_exit,
    }


def _policies(runtime: Runtime) -> dict[str, Any]:
    policies = runtime.policies
    return {
        "in-force": len(runtime.sync.engine.repository.policies()),
        "imported": len(policies.imported()),
        "files": len(policies.files()),
        "errors": policies.errors(),
        "warnings": policies.warnings(),
    }


def _own(runtime: Runtime) -> dict[str, Any]:
    config = runtime.config
    return {
        "node": config.node_name,
        "cluster": config.cluster_name,
        "version": runtime.version,
        "pod-cidr": str(config.pod_cidr),
        "node-ip": str(config.node_ipv4),
        "router-ip": str(runtime.ipam.router),
        "policy-revision": runtime.sync.engine.revision,
        "stage": runtime.bootstrap.stage,
        "bootstrap-ms": {
            name: round(duration_s * 1000, 1) for name, duration_s in runtime.bootstrap.durations_s.items()
        },
        "restored": {
            "endpoints": runtime.restored.restored,
            "vanished": runtime.restored.vanished,
            "failed": runtime.restored.failed,
        },
        "certificates": [asdict(certificate) for certificate in runtime.certificates],
        "observed": _observed(runtime.link.stats),
        "processes": [_process(child) for child in runtime.processes()],
        "policies": _policies(runtime),
        "tables": tables(runtime),
    }
