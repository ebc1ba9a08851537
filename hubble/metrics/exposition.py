"""Families of totals as prometheus_client knows them: for `/metrics`.

Pure. Input: FamilyTotals; output: metric families, with the registry's own accounts.
"""

from collections.abc import Iterator, Sequence

from prometheus_client.core import CounterMetricFamily, Metric

from hubble.metrics.registry import FamilyTotals

_SUFFIX = "_total"


def _counter(name: str, text: str, labels: Sequence[str] = ()) -> CounterMetricFamily:
    return CounterMetricFamily(name.removesuffix(_SUFFIX), text, labels=labels)


def flow_families(totals: Sequence[FamilyTotals]) -> Iterator[Metric]:
    """Yield the flow metrics and what their series budget kept out."""
    for family in totals:
        metric = _counter(family.name, family.help, family.label_names)
        for values, count in family.totals:
            metric.add_metric(values, count)
        yield metric
    for name, text, counts in (
        (
            "palomar_metrics_dropped_series_total",
            "Times a new series of this metric found no room.",
            [family.refused for family in totals],
        ),
        (
            "palomar_metrics_dropped_flows_total",
            "Flows in no series of this metric because there was no room.",
            [family.uncounted for family in totals],
        ),
        (
            "palomar_metrics_evicted_series_total",
            "Series of this metric that made room after a quiet hour.",
            [family.evicted for family in totals],
        ),
    ):
        metric = _counter(name, text, ("metric",))
        for family, count in zip(totals, counts, strict=True):
            metric.add_metric([family.name], count)
        yield metric
