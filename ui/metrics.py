"""`/metrics` of the page server: its own registry, read from the model when scraped."""

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from ui.flowrow import VerdictClass
from ui.hub import Hub, LinkPhase


class UiMetrics(Collector):
    """Everything `palomar_ui_*`."""

    def __init__(self, hub: Hub) -> None:
        """Register with a registry of its own."""
        self._hub = hub
        self.pages = 0
        """Open pages; kept by the app."""
        self.registry = CollectorRegistry()
        self.update_seconds = Histogram(
            "palomar_ui_update_seconds",
            "Time to make one page's update",
            registry=self.registry,
            buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0),
        )
        self.registry.register(self)

    def collect(self) -> Iterator[Metric]:
        """Read the model once."""
        with self._hub.locked() as model:
            counters = model.counters
            by_class = list(counters.by_class)
            repeated, malformed = counters.repeated, counters.malformed
            edges, nodes = len(model.edges), len(model.nodes)
            lost, unplaced = model.lost, model.edges.unplaced
        link = self._hub.link
        flows = CounterMetricFamily(
            "palomar_ui_flows_received", "Flows taken in, by verdict", labels=["verdict"]
        )
        for verdict in VerdictClass:
            flows.add_metric([verdict.word], by_class[verdict])
        yield flows
        for name, text, value in (
            ("flows_repeated", "Flows that came twice, after a reconnection", repeated),
            ("responses_malformed", "Stream messages without anything known", malformed),
            ("events_lost", "Events the nodes lost, as the stream told", lost),
            ("flows_unplaced", "Flows beyond the largest map", unplaced),
            ("stream_reconnects", "Times the stream was lost after it had worked", link.reconnects),
        ):
            yield CounterMetricFamily(f"palomar_ui_{name}", text, value=value)
        for name, text, value in (
            ("stream_connected", "1 while the stream is up", int(link.phase is LinkPhase.CONNECTED)),
            ("edges", "Edges counted", edges),
            ("nodes", "Nodes known", nodes),
            ("pages", "Open pages", self.pages),
        ):
            yield GaugeMetricFamily(f"palomar_ui_{name}", text, value=value)
        expiry = GaugeMetricFamily(
            "palomar_certificate_expiry_seconds",
            "Time until a certificate ends; negative afterwards.",
            labels=["file"],
        )
        for item in self._hub.expiries:
            expiry.add_metric([item.file], item.seconds_left)
        yield expiry
