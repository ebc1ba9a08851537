"""Metric families from rows: label values and a number each.

Pure. Prometheus' own types come out; `_total` is added to counters when they are rendered.
"""

from collections.abc import Iterable, Sequence

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

Rows = Iterable[tuple[Sequence[str], float]]
"""Values in the order of the labels, and the number."""


def gauge(name: str, text: str, value: float) -> GaugeMetricFamily:
    """A number without labels."""
    return GaugeMetricFamily(name, text, value=value)


def gauges(name: str, text: str, labels: Sequence[str], rows: Rows) -> GaugeMetricFamily:
    """Numbers that go up and down, one for each set of label values."""
    family = GaugeMetricFamily(name, text, labels=labels)
    for values, number in rows:
        family.add_metric(values, number)
    return family


def counters(name: str, text: str, labels: Sequence[str], rows: Rows) -> CounterMetricFamily:
    """Numbers that only go up, one for each set of label values."""
    family = CounterMetricFamily(name, text, labels=labels)
    for values, number in rows:
        family.add_metric(values, number)
    return family
