"""Metrics with the same contexts, counted together: rows that count for each, as one array of numbers.

Pure. Input: blocks and the contexts of their rows; output: counts by series key of each metric. What was met
before is looked up in a table, by the numbers that a metric's own key and the contexts got when they were
met; only what is new is sorted. One look-up for all metrics: in small blocks the calls cost more than the
rows. Counts wait here by slot and reach the series when somebody asks, or about once a second.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from hubble.keycounter import Keys, distinct
from hubble.metrics.contexts import BlockEnds, ContextColumn, Indices
from hubble.metrics.family import Base, Handler
from hubble.metrics.metric import Metric
from hubble.metrics.numbertable import DenseNumbers, Numbers, NumberTable
from hubble.metrics.rowcontexts import BASE_SHIFT, NARROW_BITS, RowContexts, RowNumbers
from hubble.metrics.series import NO_SLOT
from hubble.metrics.view import BlockView

WAIT_NS = 1_000_000_000
"""How long counts may wait: a series is that much younger than its last flow at most."""


class MetricGroup:
    """The metrics that share a column of contexts."""

    def __init__(self, column: ContextColumn) -> None:
        """`column` gives the contexts that `count` is called with."""
        self._column = column
        self.metrics: list[Metric] = []
        self._offsets: list[int] = []
        """By metric: where its own keys begin among those of all."""
        self._bases = DenseNumbers()
        """Of own keys, offset included."""
        self._waiting_since_ns = self._latest_ns = 0
        self._known_for: tuple[object, ...] = ()
        """What the numbers in `_known` mean: the same again, and they do."""
        self._known = NumberTable()
        self._slots: npt.NDArray[np.int64] = np.zeros(1, dtype=np.int64)
        """By number in `_known`, from 1 on: the slot in the metric's counter."""
        self._metric_of: npt.NDArray[np.intp] = np.full(1, NO_SLOT)
        self._waiting: npt.NDArray[np.int64] = np.zeros(1, dtype=np.int64)

    def add(self, handler: Handler, budget: int) -> Metric:
        """Count for this handler too; `budget` series are kept apart."""
        metric = Metric(handler, self._column, budget)
        before = self._offsets[-1] + (1 << self.metrics[-1].handler.key_bits) if self.metrics else 0
        self.metrics.append(metric)
        self._offsets.append(before)
        return metric

    def count(self, view: BlockView, ends: BlockEnds | None, now_ns: int) -> None:
        """Add a block; `ends` may be None where the metrics have no contexts."""
        if now_ns - self._waiting_since_ns >= WAIT_NS:
            self.settle()
            self._waiting_since_ns = now_ns
        self._latest_ns = now_ns
        which: list[int] = []
        bases: list[Base] = []
        chosen: list[Indices | None] = []
        for index, metric in enumerate(self.metrics):
            rows, base = metric.handler.select(view)
            if len(base):
                which.append(index)
                bases.append(base)
                chosen.append(rows)
        if not which:
            return
        numbers = np.concatenate(
            [base + np.uint32(self._offsets[index]) for index, base in zip(which, bases, strict=True)]
        )
        if self._column.is_empty or ends is None:
            self._count_narrow(numbers, None)
            return
        context, own = self._contexts(ends, chosen)
        numbers = self._bases.of(numbers)
        if self._bases.bits + context.bits > NARROW_BITS:
            self._count_wide(which, bases, own, context)
            return
        numbers <<= np.uint32(context.bits)
        numbers |= own
        self._count_narrow(numbers, context)

    def _contexts(self, ends: BlockEnds, chosen: Sequence[Indices | None]) -> tuple[RowContexts, RowNumbers]:
        """The contexts, and the numbers of all chosen rows, one choice after the other."""
        some = [rows for rows in chosen if rows is not None]
        if len(some) == len(chosen) and sum(map(len, some)) < len(ends.source):
            context = self._column.contexts_of(ends, np.concatenate(some))
            return context, context.numbers
        context = self._column.contexts_of(ends, None)
        numbers = context.numbers
        return context, np.concatenate([numbers if rows is None else numbers.take(rows) for rows in chosen])

    def _count_wide(
        self, which: Sequence[int], bases: Sequence[Base], numbers: RowNumbers, context: RowContexts
    ) -> None:
        self.settle()
        self._forget()
        widened = np.split(context.widen(numbers), np.cumsum([len(base) for base in bases])[:-1])
        for index, base, own in zip(which, bases, widened, strict=True):
            keys: Keys = base.astype(np.uint64) << np.uint64(BASE_SHIFT)
            keys |= own
            self.metrics[index].counter.add(*distinct(keys), self._latest_ns)

    def _count_narrow(self, numbers: Numbers, context: RowContexts | None) -> None:
        meaning = () if context is None else (context.bits, context.packing)
        if self._known_for != meaning:
            self.settle()
            self._forget()
            self._known_for = meaning
        known = self._known.lookup(numbers)
        counts = np.bincount(known, minlength=len(self._waiting))
        self._waiting += counts
        if counts[0]:
            self._waiting[0] = 0
            self.settle()
            self._meet(numbers[known == 0], context)

    def _meet(self, numbers: Numbers, context: RowContexts | None) -> None:
        """Count what is not in the table, and put it there if it found room."""
        found, counts = distinct(numbers)
        which, keys = self._series_keys(found, context)
        generations = [metric.counter.generation for metric in self.metrics]
        for index in np.unique(which).tolist():
            mine = np.flatnonzero(which == index)
            mine = mine[np.argsort(keys[mine])]
            slots = self.metrics[index].counter.add(keys[mine], counts[mine], self._latest_ns)
            there = slots != NO_SLOT
            first = len(self._waiting)
            self._slots = np.append(self._slots, slots[there])
            self._metric_of = np.append(self._metric_of, np.full(len(self._slots) - first, index))
            self._waiting = np.zeros(len(self._slots), dtype=np.int64)
            self._known.set(found[mine[there]], np.arange(first, len(self._slots)))
        if generations != [metric.counter.generation for metric in self.metrics]:
            self._forget()

    def _series_keys(
        self, numbers: Numbers, context: RowContexts | None
    ) -> tuple[npt.NDArray[np.intp], Keys]:
        """The metric and the series key for each of `numbers`."""
        own: Numbers = numbers
        if context is not None:
            own = self._bases.keys[numbers >> np.uint32(context.bits)]
        which = np.searchsorted(self._offsets, own, side="right") - 1
        own = own - np.array(self._offsets, dtype=np.uint32)[which]
        keys: Keys = own.astype(np.uint64) << np.uint64(BASE_SHIFT)
        if context is not None:
            keys |= context.widen(numbers & np.uint32((1 << context.bits) - 1))
        return which, keys

    def settle(self) -> None:
        """Have the series count what waits."""
        for index, metric in enumerate(self.metrics):
            mine = np.flatnonzero((self._metric_of == index) & (self._waiting > 0))
            metric.counter.add_slots(self._slots[mine], self._waiting[mine], self._latest_ns)
        self._waiting[:] = 0

    def _forget(self) -> None:
        """Nothing was met; nothing may wait when this is called."""
        self._known = NumberTable()
        self._slots, self._metric_of, self._waiting = self._slots[:1], self._metric_of[:1], self._waiting[:1]

    def make_room(self) -> None:
        """When many label values were seen, keep those in use."""
        if self._column.is_full:
            self.settle()
            self._column.compact()
            self._forget()
