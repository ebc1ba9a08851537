"""The configured flow metrics of a node: blocks in, series out.

Pure. Input: blocks of the flow store, in order; output: families with label values and totals, for
`/metrics` and for OTLP. A series key is 64 bits: the handler's own key, the direction, the source's and the
destination's values. Cost: vectorised, see docs/metrics.md; blocks of 8,192 rows and more are cheapest per
row.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hubble.flowendpoint import Names
from hubble.keycounter import Counts, Keys, distinct
from hubble.metrics.contexts import BASE_SHIFT, NARROW_BITS, Block, ContextColumn, RowContexts
from hubble.metrics.handlers import Base, BlockView, Handler, Indices, Labels, make_handlers
from hubble.metrics.series import SeriesCounter
from hubble.metrics.sides import Sides
from hubble.metrics.spec import Contexts, MetricSpec
from hubble.metrics.values import is_world

DEFAULT_BUDGET = 10_000


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


class _Metric:
    """A handler, its contexts and its counts."""

    def __init__(self, handler: Handler, column: ContextColumn, budget: int) -> None:
        self.handler = handler
        self.column = column
        self.counter = SeriesCounter(budget)
        column.counters.append(self.counter)

    def totals(self) -> FamilyTotals:
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


def _series(base: Base, context: RowContexts | None, chosen: Indices | None) -> tuple[Keys, Counts]:
    """Distinct series keys in order, and how often each occurs."""
    shift = np.uint64(BASE_SHIFT)
    if context is None:
        found, counts = distinct(base)
        return found.astype(np.uint64) << shift, counts
    part = context.keys if chosen is None else context.keys[chosen]
    if int(base.max()).bit_length() + context.bits <= NARROW_BITS:
        narrow = base << np.uint32(context.bits)
        narrow |= part
        found, counts = distinct(narrow)
        upper = (found >> np.uint32(context.bits)).astype(np.uint64) << shift
        return upper | context.widen(found & np.uint32((1 << context.bits) - 1)), counts
    wide: Keys = base.astype(np.uint64) << shift
    wide |= context.widen(part)
    return distinct(wide)


class FlowMetricsRegistry:
    """All configured metrics. One block at a time."""

    def __init__(self, specs: Sequence[MetricSpec], names: Names, budget: int = DEFAULT_BUDGET) -> None:
        """`budget` series are kept apart per family."""
        self._columns: dict[Contexts, ContextColumn] = {}
        self._metrics: list[_Metric] = []
        for spec in specs:
            column = self._columns.setdefault(spec.contexts, ContextColumn(spec.contexts))
            self._metrics += [_Metric(handler, column, budget) for handler in make_handlers(spec)]
        self._sides = Sides(names)
        self._world = np.zeros(0, dtype=np.bool_)
        self._asks_world = any(metric.handler.asks_world for metric in self._metrics)
        self._asks_sides = self._asks_world or any(not column.is_empty for column in self._columns.values())
        self.flows = 0
        """Rows taken in."""

    def count(self, block: Block, now_ns: int) -> None:
        """Add a block (at most MAX_BLOCK rows)."""
        rows = len(block.columns["type"])
        if not rows:
            return
        self.flows += rows
        self._make_room()
        contexts: dict[Contexts, RowContexts] = {}
        view = BlockView(block, None, None)
        if self._asks_sides:
            columns = block.columns
            source = self._sides.codes(columns["src_ref"], columns["src_identity"])
            destination = self._sides.codes(columns["dst_ref"], columns["dst_identity"])
            for key, column in self._columns.items():
                if not column.is_empty:
                    contexts[key] = column.contexts_of(block, self._sides, source, destination)
            if self._asks_world:
                new = [is_world(endpoint) for endpoint in self._sides.endpoints[len(self._world) :]]
                if new:
                    self._world = np.append(self._world, np.array(new, dtype=np.bool_))
                view = BlockView(block, self._world, destination)
        for metric in self._metrics:
            chosen, base = metric.handler.select(view)
            if len(base) == 0:
                continue
            context = contexts.get(metric.column.contexts)
            metric.counter.add(*_series(base, context, chosen), now_ns)

    def _make_room(self) -> None:
        for column in self._columns.values():
            column.compact()
        if self._sides.is_full:
            self.forget_names()

    def forget_names(self) -> None:
        """References stand for something else from now on: another store."""
        self._sides.reset()
        self._world = np.zeros(0, dtype=np.bool_)
        for column in self._columns.values():
            column.forget_sides()

    def totals(self) -> list[FamilyTotals]:
        """Return every family."""
        return [metric.totals() for metric in self._metrics]
