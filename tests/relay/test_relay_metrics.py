"""docs/relay.md lists every metric of the relay with its labels, and no others."""

import re
from pathlib import Path

from relay.metrics import RelayMetrics

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "relay.md"


def test_the_page_lists_every_metric() -> None:
    """Name as Prometheus shows it, and labels."""
    rows = re.findall(r"^\| `(palomar_\w+)` \| ([\w, ]*?) ?\|", DOCUMENT.read_text(), re.MULTILINE)
    metrics = RelayMetrics()
    made = {
        name + ("_total" if metric._type == "counter" else ""): ", ".join(metric._labelnames)
        for metric, (name, *_) in metrics.registry._collector_to_names.items()
    }
    assert {name: labels.strip() for name, labels in rows} == made
