"""Reads every part when Prometheus asks. What each part says is a module of its own."""

from collections.abc import Iterator

from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from agent.metrics import addresses, agent, endpoints, flows, kernelmaps, policies
from agent.metrics.kernelcounts import KernelCounts
from agent.runtime import Runtime


class PartsCollector(Collector):
    """The parts of one agent as metrics."""

    def __init__(self, runtime: Runtime) -> None:
        """Read the parts of `runtime`."""
        self._runtime = runtime
        self.kernel = KernelCounts()
        """What was read from the kernel for the scrape at hand."""

    def describe(self) -> list[Metric]:
        """Register nothing by name: the names come with the first collection."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Yield every family."""
        runtime = self._runtime
        yield from agent.lifecycle(runtime)
        yield from endpoints.endpoints(runtime)
        yield from policies.policies(runtime)
        yield from addresses.addresses(runtime)
        yield from kernelmaps.capacity(runtime, self.kernel)
        yield from kernelmaps.conntrack(runtime)
        yield from agent.tables(runtime)
        yield from agent.certificates(runtime)
        yield from kernelmaps.traffic(self.kernel)
        yield from flows.flows(runtime.link.stats)
        yield from flows.events(runtime.link.stats, self.kernel)
        yield from flows.store(runtime.link)
        yield from agent.processes(runtime)
