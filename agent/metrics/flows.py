"""The event path as its ingest reports it: flows, events emitted, stored and lost, the flow store."""

from collections.abc import Iterator

from prometheus_client.core import Metric

from agent.ingestlink import IngestLink, IngestStats
from agent.metrics.family import counters, gauge
from agent.metrics.kernelcounts import KernelCounts

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


def flows(stats: IngestStats) -> Iterator[Metric]:
    """Flows as the ingest counts them."""
    for key, name, text, labels in _FLOW_METRICS:
        rows = (
            ([str(value) for value in values], float(count)) for *values, count in stats.metrics.get(key, ())
        )
        yield counters(name, text, labels, rows)
    lost = [(["perf_event_ring_buffer"], stats.lost)]
    yield counters("hubble_lost_events", "Events lost, by where.", ["source"], lost)


_EVENT_TEXTS = {
    "emitted": "Events the programs tried to emit, as the ingest accounts for them.",
    "stored": "Events written to the flow store.",
    "lost": "Events emitted and not stored.",
    "suppressed": "Trace events aggregated away or switched off.",
}


def events(stats: IngestStats, kernel: KernelCounts) -> Iterator[Metric]:
    """What became of the events of each CPU; emitted = stored + lost."""
    for name, text in _EVENT_TEXTS.items():
        rows = (([str(cpu.cpu)], getattr(cpu, name)) for cpu in stats.cpus)
        yield counters(f"palomar_events_{name}", text, ["cpu"], rows)
    yield counters(
        "palomar_kernel_events",
        "Events the programs counted, stored or not.",
        ["cpu"],
        (([str(row.cpu)], row.emitted) for row in kernel.events),
    )


def store(link: IngestLink) -> Iterator[Metric]:
    """The ingest process and what it keeps."""
    yield gauge("palomar_ingest_connected", "Whether the ingest process is there.", link.connected)
    kept = link.stats.store
    capacity = kept.get("capacity", 0)
    yield gauge("palomar_flow_store_flows", "Flows in the store.", min(kept.get("head", 0), capacity))
    yield gauge("palomar_flow_store_capacity_flows", "Flows the store can hold.", capacity)
    yield gauge("palomar_service_map_edges", "Edges of the service map kept by the ingest.", link.stats.edges)
