"""One metric family of a node: rows that count, their series, and the totals.

Pure. Input: blocks and the contexts of their rows; output: label values and counts. A series key is 64 bits:
the handler's own key, the direction, the source's and the destination's values. Keys that fit in 32 bits are
looked up in a table of those met before, which costs a third of sorting them; what is new is sorted.
"""

from collections import Counter
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from hubble.keycounter import Keys, distinct
from hubble.metrics.contexts import BASE_SHIFT, NARROW_BITS, ContextColumn, RowContexts
from hubble.metrics.family import Base, Handler, Labels
from hubble.metrics.series import NO_SLOT, SeriesCounter
from hubble.metrics.view import BlockView
from hubble.reftable import RefTable


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
        self._known = RefTable()
        """Slot + 1 by narrow key."""
        self._known_for: tuple[int, tuple[int, ...]] = (0, ())
        """Generation of the slots and packing of the keys in there."""

    def count(self, view: BlockView, context: RowContexts | None, now_ns: int) -> None:
        """Add a block; `context` is None where the metric has none."""
        chosen, base = self.handler.select(view)
        if len(base) == 0:
            return
        if context is None:
            self._count_narrow(base, context, now_ns)
            return
        part = context.keys if chosen is None else context.keys[chosen]
        if int(base.max()).bit_length() + context.bits <= NARROW_BITS:
            narrow = base << np.uint32(context.bits)
            narrow |= part
            self._count_narrow(narrow, context, now_ns)
        else:
            wide: Keys = base.astype(np.uint64) << np.uint64(BASE_SHIFT)
            wide |= context.widen(part)
            self.counter.add(*distinct(wide), now_ns)

    def _count_narrow(self, keys: Base, context: RowContexts | None, now_ns: int) -> None:
        packing = () if context is None else context.packing
        if self._known_for != (self.counter.generation, packing):
            self._known = RefTable()
        known = self._known.lookup(keys)
        counts = np.bincount(known, minlength=len(self.counter) + 1)
        self.counter.add_slots(counts[1:], now_ns)
        if counts[0]:
            self._meet(keys[known == 0], context, now_ns)
        self._known_for = self.counter.generation, packing

    def _meet(self, keys: Base, context: RowContexts | None, now_ns: int) -> None:
        """Count keys that are not in the table, and put them there if they found room."""
        found, counts = distinct(keys)
        generation = self.counter.generation
        slots = self.counter.add(_widened(found, context), counts, now_ns)
        if generation != self.counter.generation:
            self._known = RefTable()
        for key, slot in zip(found.tolist(), slots.tolist(), strict=True):
            if slot != NO_SLOT:
                self._known.set(key, slot + 1)

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


def _widened(keys: npt.NDArray[np.uint32], context: RowContexts | None) -> Keys:
    """Series keys for narrow ones; the order stays."""
    shift = np.uint64(BASE_SHIFT)
    if context is None:
        return keys.astype(np.uint64) << shift
    upper = (keys >> np.uint32(context.bits)).astype(np.uint64) << shift
    return upper | context.widen(keys & np.uint32((1 << context.bits) - 1))
