"""The exporter's accounts as prometheus_client knows them: for `/metrics`.

Pure. Input: an Exporter, and how its certificates stand; output: metric families.
"""

from collections.abc import Iterable, Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from hubble.exporter.exporter import OVERRUN, REFUSED, Exporter
from hubble.exporter.transport import LOGS, METRICS
from palomar.certwatch import Expiry

SIGNALS = (LOGS, METRICS)


def export_families(exporter: Exporter, expiries: Iterable[Expiry]) -> Iterator[Metric]:
    """Yield what became of everything that was to be exported, and until when that can go on."""
    counts = exporter.counts
    exported = CounterMetricFamily(
        "palomar_otlp_exported", "Flows (logs) and points (metrics) the collector took.", labels=["signal"]
    )
    dropped = CounterMetricFamily(
        "palomar_otlp_dropped",
        "Flows (logs) and points (metrics) not exported: refused by the collector, or overrun "
        "(too far behind, before filters).",
        labels=["signal", "reason"],
    )
    requests = CounterMetricFamily(
        "palomar_otlp_requests", "Export requests the collector answered well.", labels=["signal"]
    )
    for signal in SIGNALS:
        exported.add_metric([signal], counts.exported[signal])
        dropped.add_metric([signal, REFUSED], counts.refused[signal])
        requests.add_metric([signal], counts.requests[signal])
    dropped.add_metric([LOGS, OVERRUN], exporter.overrun)
    yield from (exported, dropped, requests)
    failures = CounterMetricFamily(
        "palomar_otlp_failures", "Export requests that failed, by kind.", labels=["kind"]
    )
    for kind, count in sorted(counts.failures.items()):
        failures.add_metric([kind], count)
    yield failures
    yield CounterMetricFamily(
        "palomar_otlp_filtered", "Flows the export's filters leave out.", value=counts.filtered
    )
    yield GaugeMetricFamily(
        "palomar_otlp_lag_flows", "Flows in the store and not yet exported.", value=exporter.follower.lag
    )
    yield GaugeMetricFamily(
        "palomar_otlp_up", "Whether the latest export went well.", value=int(counts.is_up)
    )
    expiry = GaugeMetricFamily(
        "palomar_certificate_expiry_seconds",
        "Time until a certificate ends; negative afterwards.",
        labels=["file"],
    )
    for item in expiries:
        expiry.add_metric([item.file], item.seconds_left)
    yield expiry
