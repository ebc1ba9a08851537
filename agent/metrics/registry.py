"""The registry of one agent: what is observed as it happens, and the text of a scrape.

What must be read from the kernel is read in the datapath thread before a scrape is rendered.
"""

from prometheus_client import CollectorRegistry, Histogram, ProcessCollector, disable_created_metrics
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest

from agent.endpoint.manager import EndpointChange
from agent.endpoint.model import Endpoint
from agent.metrics.collector import PartsCollector
from agent.metrics.kernelcounts import KernelCounts, read_kernel
from agent.runtime import Runtime
from palomar.errors import PalomarError

STAGE_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
_SUMMED = "total"


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
        self._collector: PartsCollector | None = None

    def bind(self, runtime: Runtime) -> None:
        """Show the parts of `runtime` from now on."""
        self._runtime = runtime
        self._collector = PartsCollector(runtime)
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
