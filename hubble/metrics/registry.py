"""The configured flow metrics of a node: blocks in, series out.

Pure. Input: blocks of the flow store, in order; output: families with label values and totals, for
`/metrics` and for OTLP. Cost: see docs/flow-metrics.md; blocks of 8,192 rows and more are cheapest per row.
"""

from collections.abc import Sequence

import numpy as np

from hubble.flowendpoint import Names
from hubble.metrics.contexts import Block, BlockEnds, ContextColumn
from hubble.metrics.group import MetricGroup
from hubble.metrics.handlers import make_handlers
from hubble.metrics.metric import FamilyTotals, Metric
from hubble.metrics.sides import Sides
from hubble.metrics.spec import Contexts, MetricSpec
from hubble.metrics.values import is_world
from hubble.metrics.view import BlockView

__all__ = ["DEFAULT_BUDGET", "FamilyTotals", "FlowMetricsRegistry"]

DEFAULT_BUDGET = 10_000


class FlowMetricsRegistry:
    """All configured metrics. One block at a time."""

    def __init__(self, specs: Sequence[MetricSpec], names: Names, budget: int = DEFAULT_BUDGET) -> None:
        """`budget` series are kept apart per family."""
        self._columns: dict[Contexts, ContextColumn] = {}
        self._groups: dict[Contexts, MetricGroup] = {}
        self._metrics: list[Metric] = []
        for spec in specs:
            column = self._columns.setdefault(spec.contexts, ContextColumn(spec.contexts))
            group = self._groups.setdefault(spec.contexts, MetricGroup(column))
            self._metrics += [group.add(handler, budget) for handler in make_handlers(spec)]
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
        ends: BlockEnds | None = None
        view = BlockView(block, None, None)
        if self._asks_sides:
            columns = block.columns
            source, destination = self._sides.codes(
                np.concatenate((columns["src_ref"], columns["dst_ref"])),
                np.concatenate((columns["src_identity"], columns["dst_identity"])),
            ).reshape(2, rows)
            ends = BlockEnds(block, source, destination, self._sides.endpoints)
            if self._asks_world:
                new = [is_world(endpoint) for endpoint in self._sides.endpoints[len(self._world) :]]
                if new:
                    self._world = np.append(self._world, np.array(new, dtype=np.bool_))
                view = BlockView(block, self._world, destination)
        for group in self._groups.values():
            group.count(view, ends, now_ns)

    def _make_room(self) -> None:
        for group in self._groups.values():
            group.make_room()
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
        for group in self._groups.values():
            group.settle()
        return [metric.totals() for metric in self._metrics]
