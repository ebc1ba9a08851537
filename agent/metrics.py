"""`/metrics`: the agent's, the datapath's and the flows' counters for Prometheus.

A registry of our own with two kinds of metrics: those observed as things happen (durations), and those read
from the parts when they are asked for (`_Collector`). Names and labels are the field's (`cilium_*`,
`hubble_*`) where it has them, `palomar_*` otherwise; docs/metrics.md lists them all. What must be read from
the kernel is read in the datapath thread before a scrape is rendered.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from platform import machine

from prometheus_client import CollectorRegistry, Histogram, ProcessCollector, disable_created_metrics
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.registry import Collector

from agent.endpoint.manager import EndpointChange
from agent.endpoint.model import Endpoint, EndpointState
from agent.ingestlink import IngestStats
from agent.runtime import Runtime
from agent.supervisor import ChildState
from datapath.abi import EventStats, MetricsKey, MetricsValue
from datapath.maps import DatapathMaps
from palomar import drop
from palomar.errors import PalomarError
from palomar.identity import is_local_scope, reserved_name
from palomar.table import RowState
from palomar.verdict import TrafficDirection

IPCACHE_MAX, POLICY_MAX = 512000, 16384
STAGE_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
_SUMMED = "total"


@dataclass(frozen=True, slots=True)
class KernelCounts:
    """What was read from the maps for one scrape."""

    traffic: dict[MetricsKey, MetricsValue] = field(default_factory=dict)
    events: tuple[EventStats, ...] = ()
    endpoints: int = 0
    policy_maps: int = 0


def read_kernel(maps: DatapathMaps) -> KernelCounts:
    """Read the counters. Blocks: call in the datapath thread."""
    return KernelCounts(
        traffic=maps.metrics.items(),
        events=tuple(maps.event_stats()),
        endpoints=sum(1 for _ in maps.lxc.items()),
        policy_maps=len(maps.policy_endpoint_ids()),
    )


class Metrics:
    """The registry and what observes into it."""

    content_type = CONTENT_TYPE_PLAIN_0_0_4

    def __init__(self) -> None:
        """Make the registry; `bind` adds the parts."""
        # They would come as gauges that promtool does not like.
        disable_created_metrics()  # type: ignore[no-untyped-call]  # the library leaves this one untyped
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self._api = Histogram(
            "cilium_agent_api_process_time_seconds",
            "Duration of API calls by path, method and status.",
            ["path", "method", "return_code"],
            registry=self.registry,
        )
        self._stages = Histogram(
            "cilium_endpoint_regeneration_time_stats_seconds",
            "Duration of each stage of adding an endpoint, by stage and outcome; `total` is the sum.",
            ["scope", "status"],
            buckets=STAGE_BUCKETS,
            registry=self.registry,
        )
        self._gc = Histogram(
            "cilium_datapath_conntrack_gc_duration_seconds",
            "Duration of the removal of old connections.",
            ["family", "protocol", "status"],
            registry=self.registry,
        )
        self._runtime: Runtime | None = None
        self._collector: _Collector | None = None

    def bind(self, runtime: Runtime) -> None:
        """Show the parts of `runtime` from now on."""
        self._runtime = runtime
        self._collector = _Collector(runtime)
        self.registry.register(self._collector)

    def observe_api(self, path: str, method: str, status: int, seconds: float) -> None:
        """An API call was answered."""
        self._api.labels(path, method, str(status)).observe(seconds)

    def observe_stage(self, stage: str, seconds: float) -> None:
        """A stage of an endpoint's add is over."""
        self._stages.labels(stage, "success").observe(seconds)

    def endpoint_changed(self, endpoint: Endpoint, change: EndpointChange) -> None:
        """An endpoint came or went: observe how long the whole add took."""
        if change is EndpointChange.CREATED:
            self._stages.labels(_SUMMED, "success").observe(sum(endpoint.stages_s.values()))

    def observe_gc(self, seconds: float, *, ok: bool) -> None:
        """A collection of old connections is over."""
        self._gc.labels("ipv4", "all", "completed" if ok else "uncompleted").observe(seconds)

    async def render(self) -> bytes:
        """Return the exposition text."""
        if self._runtime is not None and self._collector is not None:
            runtime = self._runtime
            try:
                counts = await runtime.thread.run(lambda: read_kernel(runtime.maps()))
            except (PalomarError, RuntimeError):
                # Before the datapath is started, and when a map cannot be read: the rest is still worth much.
                counts = KernelCounts()
            self._collector.kernel = counts
        return generate_latest(self.registry)


def _gauge(name: str, text: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, text, value=value)


class _Collector(Collector):
    """Reads the parts when Prometheus asks."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self.kernel = KernelCounts()

    def describe(self) -> list[Metric]:
        """Register nothing by name: the names come with the first collection."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Yield every family."""
        yield from self._agent()
        yield from self._endpoints()
        yield from self._policies()
        yield from self._addresses()
        yield from self._maps()
        yield from _traffic(self.kernel)
        yield from _flows(self._runtime.link.stats)
        yield from self._events()
        yield from self._processes()

    def _agent(self) -> Iterator[Metric]:
        version = GaugeMetricFamily(
            "cilium_version", "Version of the agent.", labels=["version", "revision", "arch"]
        )
        version.add_metric([self._runtime.version, "", machine()], 1)
        yield version
        bootstrap = GaugeMetricFamily(
            "cilium_agent_bootstrap_seconds",
            "Duration of each stage of the agent's start.",
            labels=["scope", "outcome"],
        )
        for stage, seconds in self._runtime.bootstrap.durations_s.items():
            bootstrap.add_metric([stage, "success"], seconds)
        yield bootstrap
        runs = CounterMetricFamily(
            "cilium_controllers_runs", "Runs of controllers by outcome.", labels=["status"]
        )
        statuses = [controller.status for controller in self._runtime.controllers]
        runs.add_metric(["success"], sum(status.successes for status in statuses))
        runs.add_metric(["failure"], sum(status.failures for status in statuses))
        yield runs
        failing = sum(bool(status.consecutive_failures) for status in statuses)
        yield _gauge("cilium_controllers_failing", "Controllers whose last run failed.", failing)
        yield _gauge(
            "cilium_nodes_all_num", "Nodes of the cluster, this one too.", len(self._runtime.nodes.nodes())
        )

    def _endpoints(self) -> Iterator[Metric]:
        endpoints = self._runtime.endpoints.endpoints()
        yield _gauge("cilium_endpoint", "Endpoints of this node.", len(endpoints))
        states = GaugeMetricFamily("cilium_endpoint_state", "Endpoints by state.", labels=["endpoint_state"])
        for state in EndpointState:
            states.add_metric([str(state)], sum(item.state is state for item in endpoints))
        yield states
        counts = self._runtime.sync.counts
        regenerations = CounterMetricFamily(
            "cilium_endpoint_regenerations",
            "Policy maps written after a change, by outcome.",
            labels=["outcome"],
        )
        regenerations.add_metric(["success"], counts.regenerations_ok)
        regenerations.add_metric(["fail"], counts.regenerations_failed)
        yield regenerations
        enforcement = GaugeMetricFamily(
            "cilium_policy_endpoint_enforcement_status",
            "Endpoints by the directions in which policy is enforced.",
            labels=["enforcement"],
        )
        policies = [self._runtime.sync.policy_of(item.endpoint_id) for item in endpoints]
        for word in ("none", "ingress", "egress", "both"):
            enforcement.add_metric([word], sum(p is not None and p.enforced == word for p in policies))
        yield enforcement

    def _policies(self) -> Iterator[Metric]:
        sync = self._runtime.sync
        yield _gauge("cilium_policy", "Policies in force.", len(sync.engine.repository.policies()))
        yield _gauge("cilium_policy_max_revision", "Revision of the policies in force.", sync.engine.revision)
        changes = CounterMetricFamily(
            "cilium_policy_change", "Changes of policies by outcome.", labels=["outcome"]
        )
        changes.add_metric(["success"], sync.counts.changes_ok)
        changes.add_metric(["failure"], sync.counts.changes_failed)
        yield changes
        errors = self._runtime.policies.errors()
        yield _gauge(
            "palomar_policy_files_rejected",
            "Policy files that are not in force as they are.",
            len(errors),
        )
        entries = CounterMetricFamily(
            "palomar_policy_map_entries",
            "Entries written to and removed from policy maps.",
            labels=["operation"],
        )
        entries.add_metric(["write"], sync.counts.entries_written)
        entries.add_metric(["remove"], sync.counts.entries_removed)
        yield entries

    def _addresses(self) -> Iterator[Metric]:
        kinds = {"reserved": 0, "cluster_local": 0, "node_local": 0}
        for number in self._runtime.identities.cache.as_mapping():
            kind = "node_local" if is_local_scope(number) else "cluster_local"
            kinds["reserved" if reserved_name(number) else kind] += 1
        identities = GaugeMetricFamily("cilium_identity", "Identities known here, by kind.", labels=["type"])
        for kind, count in kinds.items():
            identities.add_metric([kind], count)
        yield identities
        ipam = self._runtime.ipam
        for name, text, value in (
            ("cilium_ip_addresses", "Addresses in use.", len(ipam.allocations)),
            ("cilium_ipam_capacity", "Addresses that endpoints can have.", ipam.capacity),
        ):
            family = GaugeMetricFamily(name, text, labels=["family"])
            family.add_metric(["ipv4"], value)
            yield family

    def _maps(self) -> Iterator[Metric]:
        runtime = self._runtime
        config = runtime.config
        capacity = GaugeMetricFamily(
            "cilium_bpf_map_capacity", "Most entries a map can hold.", labels=["map_group"]
        )
        sizes = {
            "ct4_global": config.bpf_ct_global_tcp_max,
            "ct_any4_global": config.bpf_ct_global_any_max,
            "ipcache": IPCACHE_MAX,
            "lxc": 65536,
            "policy": POLICY_MAX,
        }
        for name, size in sizes.items():
            capacity.add_metric([name], size)
        yield capacity
        pressure = GaugeMetricFamily(
            "cilium_bpf_map_pressure", "Share of a map that is in use.", labels=["map_name"]
        )
        pressure.add_metric(["ipcache"], len(runtime.ipcache.entries()) / IPCACHE_MAX)
        pressure.add_metric(["lxc"], self.kernel.endpoints / sizes["lxc"])
        tracked = config.bpf_ct_global_tcp_max + config.bpf_ct_global_any_max
        alive = runtime.conntrack_gc.last.seen - runtime.conntrack_gc.last.deleted
        pressure.add_metric(["ct"], alive / tracked)
        for row in runtime.sync.table.rows():
            if not row.deleted:
                pressure.add_metric([f"policy_{row.key:05d}"], len(row.value.entries) / POLICY_MAX)
        yield pressure
        gc_runs = CounterMetricFamily(
            "cilium_datapath_conntrack_gc_runs",
            "Removals of old connections.",
            labels=["family", "protocol", "status"],
        )
        gc_runs.add_metric(["ipv4", "all", "completed"], runtime.conntrack_gc.runs)
        yield gc_runs
        entries = GaugeMetricFamily(
            "cilium_datapath_conntrack_gc_entries",
            "Connections that the last removal found, by what became of them.",
            labels=["family", "protocol", "status"],
        )
        entries.add_metric(["ipv4", "all", "alive"], alive)
        entries.add_metric(["ipv4", "all", "deleted"], runtime.conntrack_gc.last.deleted)
        yield entries
        rows = GaugeMetricFamily(
            "palomar_table_rows", "Wishes by table and by how far they are.", labels=["table", "state"]
        )
        for table in (runtime.sync.table, runtime.ipcache.table, runtime.ipcache.tunnel_table):
            states = [row.state for row in table.rows()]
            for state in RowState:
                rows.add_metric([table.name, state.value], states.count(state))
        yield rows
        expiry = GaugeMetricFamily(
            "palomar_certificate_expiry_seconds",
            "Time until a certificate ends; negative afterwards.",
            labels=["file"],
        )
        for certificate in runtime.certificates:
            expiry.add_metric([certificate.file], certificate.seconds_left)
        yield expiry

    def _events(self) -> Iterator[Metric]:
        stats = self._runtime.link.stats
        texts = {
            "emitted": "Events the programs tried to emit, as the ingest accounts for them.",
            "stored": "Events written to the flow store.",
            "lost": "Events emitted and not stored.",
            "suppressed": "Trace events aggregated away or switched off.",
        }
        for name, text in texts.items():
            family = CounterMetricFamily(f"palomar_events_{name}", text, labels=["cpu"])
            for cpu in stats.cpus:
                family.add_metric([str(cpu.cpu)], getattr(cpu, name))
            yield family
        kernel = CounterMetricFamily(
            "palomar_kernel_events", "Events the programs counted, stored or not.", labels=["cpu"]
        )
        for row in self.kernel.events:
            kernel.add_metric([str(row.cpu)], row.emitted)
        yield kernel
        yield _gauge(
            "palomar_ingest_connected", "Whether the ingest process is there.", self._runtime.link.connected
        )
        store = stats.store
        held = min(store.get("head", 0), store.get("capacity", 0))
        yield _gauge("palomar_flow_store_flows", "Flows in the store.", held)
        yield _gauge(
            "palomar_flow_store_capacity_flows", "Flows the store can hold.", store.get("capacity", 0)
        )
        yield _gauge("palomar_service_map_edges", "Edges of the service map kept by the ingest.", stats.edges)

    def _processes(self) -> Iterator[Metric]:
        up = GaugeMetricFamily("palomar_process_up", "Whether a child process runs.", labels=["process"])
        restarts = CounterMetricFamily(
            "palomar_process_restarts", "How often a child process was started again.", labels=["process"]
        )
        starts = CounterMetricFamily(
            "cilium_subprocess_start", "How often a child process was started.", labels=["subsystem"]
        )
        for child in self._runtime.processes():
            up.add_metric([child.name], child.state is ChildState.RUNNING)
            restarts.add_metric([child.name], child.restarts)
            starts.add_metric([child.name], child.restarts + 1)
        yield up
        yield restarts
        yield starts


def _traffic(kernel: KernelCounts) -> Iterator[Metric]:
    """Yield drops and forwards, summed over source lines."""
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
        dropped = CounterMetricFamily(
            f"cilium_drop_{unit}", f"{word} dropped, by reason and direction.", labels=["reason", "direction"]
        )
        for (reason, direction), totals in sorted(drops.items()):
            dropped.add_metric([reason, direction], totals[index])
        yield dropped
        forwarded = CounterMetricFamily(
            f"cilium_forward_{unit}", f"{word} forwarded, by direction.", labels=["direction"]
        )
        for direction, totals in sorted(forwards.items()):
            forwarded.add_metric([direction], totals[index])
        yield forwarded


_FLOW_METRICS = (
    (
        "flows_processed",
        "hubble_flows_processed",
        "Flows seen.",
        ("protocol", "type", "subtype", "verdict"),
    ),
    ("drop", "hubble_drop", "Flows dropped.", ("reason", "protocol")),
    ("tcp", "hubble_tcp_flags", "Flows with these TCP flags.", ("flag", "family")),
    ("icmp", "hubble_icmp", "ICMP messages.", ("type", "family")),
    (
        "port_distribution",
        "hubble_port_distribution",
        "Flows by destination port.",
        ("protocol", "port"),
    ),
)
"""Key in the ingest's counters, name, help, labels in the order of its rows."""


def _flows(stats: IngestStats) -> Iterator[Metric]:
    for key, name, text, labels in _FLOW_METRICS:
        family = CounterMetricFamily(name, text, labels=labels)
        for *values, count in stats.metrics.get(key, ()):
            family.add_metric([str(value) for value in values], float(count))
        yield family
    lost = CounterMetricFamily("hubble_lost_events", "Events lost, by where.", labels=["source"])
    lost.add_metric(["perf_event_ring_buffer"], stats.lost)
    yield lost
