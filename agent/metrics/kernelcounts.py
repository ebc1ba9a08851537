"""The kernel's counters as one scrape sees them. Not how they become metrics: `agent.metrics.kernelmaps`."""

from dataclasses import dataclass, field

from datapath.abi.counters import EventStats, MetricsKey, MetricsValue
from datapath.maps.node import DatapathMaps


@dataclass(frozen=True, slots=True)
class KernelCounts:
    """What was read from the maps for one scrape."""

    traffic: dict[MetricsKey, MetricsValue] = field(default_factory=dict)
    events: tuple[EventStats, ...] = ()
    endpoints: int = 0


def read_kernel(maps: DatapathMaps) -> KernelCounts:
    """Read the counters. Blocks: call in the datapath thread."""
    return KernelCounts(
        traffic=maps.metrics.items(),
        events=tuple(maps.event_stats()),
        endpoints=sum(1 for _ in maps.lxc.items()),
    )
