"""What the agent tells the telemetry process: read whole, and each fault named with its key."""

import json
from typing import Any

import pytest

from hubble.telemetryconfig import MAX_SERIES, TelemetryConfig
from palomar.errors import InvalidInputError

LEAST = {"state_dir": "/var/lib/palomar", "node_name": "one"}


def parse(**values: Any) -> TelemetryConfig:
    return TelemetryConfig.parse(json.dumps(LEAST | values))


def test_the_least_serves_metrics_and_exports_nothing() -> None:
    """Flow metrics are named only where there is somebody to have them."""
    config = parse()
    assert (config.node, config.otlp, config.specs()) == ("default/one", None, ())
    assert parse(otlp={}).otlp is None


def test_an_export_brings_its_metrics() -> None:
    """Without `hubble-metrics` a collector still gets flows and drops as metrics."""
    config = parse(otlp={"endpoint": "http://127.0.0.1:4317"}, node_labels=["zone=a"])
    assert config.otlp is not None
    assert config.node_labels == ("zone=a",)
    assert [item.name for item in config.specs()] == ["flow", "drop"]


@pytest.mark.parametrize(
    ("values", "path", "reason"),
    [
        ({"colour": "red"}, "colour", "unknown key"),
        ({"node_name": ""}, "node_name", "empty"),
        ({"metrics_listen": "9965"}, "metrics_listen", "'9965' is not HOST:PORT"),
        ({"metrics_max_series": 0}, "metrics_max_series", f"0 is not in 1..{MAX_SERIES}"),
        ({"metrics_max_series": "5"}, "metrics_max_series", "'5' is of the wrong type"),
        ({"node_labels": "zone=a"}, "node_labels", "not a list of texts"),
    ],
)
def test_what_is_wrong_is_named(values: dict[str, Any], path: str, reason: str) -> None:
    """Nothing is started with half of it."""
    with pytest.raises(InvalidInputError) as caught:
        parse(**values)
    assert caught.value.path == path
    assert caught.value.reason.startswith(reason)


def test_a_collector_that_is_none_is_refused() -> None:
    """The export's own keys are read by the export."""
    with pytest.raises(InvalidInputError):
        parse(otlp={"endpoint": 5})
