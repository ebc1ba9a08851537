"""Counters and switches read back."""

import pytest

from datapath.abi.mapspecs import RuntimeConfig
from datapath.maps.node import DatapathMaps

pytestmark = [pytest.mark.root, pytest.mark.bpf]


def test_runtime_config_and_counters(maps: DatapathMaps) -> None:
    """Switches read back; counters start at zero, one row per possible CPU."""
    maps.runtime_config.set(RuntimeConfig.REPORT_INTERVAL_NS, 5_000_000_000)
    assert maps.runtime_config.get(RuntimeConfig.REPORT_INTERVAL_NS) == 5_000_000_000
    assert maps.runtime_config.items()[RuntimeConfig.EVENTS_OFF] == 0
    stats = maps.event_stats()
    assert [row.cpu for row in stats] == list(range(len(stats)))
    assert all((row.emitted, row.failed, row.suppressed) == (0, 0, 0) for row in stats)
    assert maps.metrics.items() == {}
