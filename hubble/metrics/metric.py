"""One metric family of a node: its series and their totals.

Pure. Input: counts by series key (`hubble.metrics.group`); output: label values and counts. A series key is
64 bits: the handler's own key, the direction, the source's and the destination's values.
"""

from collections import Counter
from dataclasses import dataclass

from hubble.metrics.contexts import ContextColumn
from hubble.metrics.family import Handler, Labels
from hubble.metrics.rowcontexts import BASE_SHIFT
from hubble.metrics.series import SeriesCounter


@dataclass(frozen=True, slots=True)
class FamilyTotals:
    """A metric family as it is now."""

    name: str
    """With `_total`."""
    help: str
    label_names: Labels
    totals: list[tuple[Labels, int]]
    """Label values and count."""
    uncounted: int
    """Flows that found no room in a series."""
    refused: int
    """Times a new series found no room."""
    evicted: int
    """Quiet series that made room."""


class Metric:
    """A handler, its contexts and its counts."""

    def __init__(self, handler: Handler, column: ContextColumn, budget: int) -> None:
        """`budget` series are kept apart."""
        self.handler = handler
        self.column = column
        self.counter = SeriesCounter(budget)
        column.counters.append(self.counter)

    def totals(self) -> FamilyTotals:
        """Return the family as it is now."""
        family, contexts = self.handler.family, self.column.contexts
        counts: Counter[Labels] = Counter()
        for key, count in self.counter.items():
            context = self.column.label_values(key)
            for before, after in self.handler.labels(key >> BASE_SHIFT):
                counts[*before, *context, *after] += count
        return FamilyTotals(
            name=family.name,
            help=family.help,
            label_names=(*family.before, *contexts.label_names, *family.after),
            totals=sorted(counts.items()),
            uncounted=self.counter.uncounted,
            refused=self.counter.refused,
            evicted=self.counter.evicted,
        )
