"""The context of every row of a block as one number: source value, destination value, direction.

Pure. Input: blocks and the endpoints of their sides; output: codes that fit beside a metric's own key, and
back from codes to label values. Endpoints are asked once each, not once a row; only the `ip` identifier
looks at addresses.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from hubble.flowendpoint import FlowEndpoint
from hubble.keycounter import Keys, distinct
from hubble.metrics.numbertable import DenseNumbers
from hubble.metrics.rowcontexts import (
    DIRECTION_SHIFT,
    VALUE_BITS,
    Packing,
    RowContexts,
    ValueCodes,
    row_contexts,
)
from hubble.metrics.series import SeriesCounter
from hubble.metrics.sides import Codes
from hubble.metrics.spec import Contexts, SideContext
from hubble.metrics.values import address_text, context_value, label_value
from hubble.replies import traffic_directions
from hubble.rows import Column
from palomar.verdict import TrafficDirection

_VALUE_MASK = (1 << VALUE_BITS) - 1
MAX_VALUES = 1 << 16
"""More values of one side than this are looked through for those still in use."""
MAX_BLOCK = 1 << 18
"""Rows of a block: so many new values fit beside MAX_VALUES."""
_KNOWN_DIRECTIONS = 3

Values = tuple[str, ...]
Indices = npt.NDArray[np.intp]


class Block(Protocol):
    """Rows next to each other in the store."""

    @property
    def columns(self) -> dict[str, Column]:
        """The hot columns."""
        ...

    def column(self, name: str) -> Column:
        """Any field of the same rows; one that is not hot costs the more, the more rows there are."""
        ...


@dataclass(frozen=True, slots=True)
class BlockEnds:
    """A block and who is at both ends of each of its rows."""

    block: Block
    source: Codes
    destination: Codes
    endpoints: Sequence[FlowEndpoint]
    """By code."""


def _of(column: npt.NDArray[Any], rows: Indices | None) -> npt.NDArray[Any]:
    return column if rows is None else column.take(rows)


class SideValues:
    """One side's label values, as codes."""

    def __init__(self, labels: Sequence[str], context: SideContext) -> None:
        """`labels` as `Contexts.side_labels` gives them."""
        self._labels = tuple(labels)
        self._context = context
        variants = context.variants
        self.by_direction = len(set(variants)) > 1
        self._variants = variants if self.by_direction else variants[:1]
        self.needs_address = "ip" in self._labels or any("ip" in variant for variant in variants)
        self.values: list[Values] = []
        """By code."""
        self._codes: dict[Values, int] = {}
        self._tables: list[ValueCodes] = []
        self._addressed: dict[tuple[int, int, bytes], int] = {}
        self.forget_sides()

    def forget_sides(self) -> None:
        """Codes of sides begin again; the values stay."""
        self._tables = [np.zeros(0, dtype=np.uint32) for _ in self._variants]
        self._addressed.clear()

    def codes(self, sides: Codes, directions: Column, endpoints: Sequence[FlowEndpoint]) -> ValueCodes:
        """Return the value code per row, from what the endpoints alone say."""
        for variant, table in enumerate(self._tables):
            if len(table) < len(endpoints):
                new = [self._intern(variant, endpoint, "") for endpoint in endpoints[len(table) :]]
                self._tables[variant] = np.append(table, np.array(new, dtype=np.uint32))
        codes = self._tables[0].take(sides)
        for variant in range(1, len(self._tables)):
            rows = np.flatnonzero(directions == variant)
            codes[rows] = self._tables[variant].take(sides[rows])
        return codes

    def addressed_codes(
        self, sides: Codes, directions: Column, endpoints: Sequence[FlowEndpoint], addresses: Column
    ) -> ValueCodes:
        """The same where addresses matter; `addresses` is of shape (n, 16) as stored."""
        if len(sides) == 0:
            return np.zeros(0, dtype=np.uint32)
        packed = np.ascontiguousarray(addresses).view(np.dtype("V16")).reshape(-1)
        variants = np.where(directions < len(self._variants), directions, 0)
        words = np.ascontiguousarray(addresses).view(np.uint64).reshape(-1, 2)
        # Equal keys are most likely the same row; unequal ones never are: the dictionary decides.
        mixed = words[:, 0] * np.uint64(0x9E3779B97F4A7C15) ^ words[:, 1]
        keys = mixed * np.uint64(31) ^ (sides.astype(np.uint64) << np.uint64(2) | variants.astype(np.uint64))
        _, first, inverse = np.unique(keys, return_index=True, return_inverse=True)
        same = (
            (words == words[first][inverse]).all(axis=1)
            & (sides == sides[first][inverse])
            & (variants == variants[first][inverse])
        )
        known = [
            self._of_address(int(variants[r]), int(sides[r]), packed[r].tobytes(), endpoints) for r in first
        ]
        codes = np.array(known, dtype=np.uint32)[inverse]
        for row in np.flatnonzero(~same).tolist():
            codes[row] = self._of_address(
                int(variants[row]), int(sides[row]), packed[row].tobytes(), endpoints
            )
        return codes

    def _of_address(self, variant: int, side: int, address: bytes, endpoints: Sequence[FlowEndpoint]) -> int:
        key = (variant, side, address)
        code = self._addressed.get(key)
        if code is None:
            if len(self._addressed) >= MAX_VALUES:
                self._addressed.clear()
            code = self._intern(variant, endpoints[side], address_text(address))
            self._addressed[key] = code
        return code

    def _intern(self, variant: int, endpoint: FlowEndpoint, address: str) -> int:
        labels = [label_value(label, endpoint, address) for label in self._labels]
        alternatives = self._variants[variant]
        context = [context_value(alternatives, endpoint, address)] if self._context.is_used else []
        # Half a surrogate pair, which JSON can carry, cannot be written down.
        values = tuple(text.encode("utf-8", "replace").decode() for text in (*labels, *context))
        code = self._codes.setdefault(values, len(self.values))
        if code == len(self.values):
            self.values.append(values)
        return code

    def keep(self, used: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
        """Forget all values but the `used` codes; return the new code by the old one."""
        renamed = np.zeros(len(self.values), dtype=np.uint64)
        renamed[used] = np.arange(len(used), dtype=np.uint64)
        self.values = [self.values[code] for code in used.tolist()]
        self._codes = {values: code for code, values in enumerate(self.values)}
        self.forget_sides()
        return renamed


class ContextColumn:
    """The contexts of one or more metrics that have the same ones."""

    def __init__(self, contexts: Contexts) -> None:
        """Nothing is known yet."""
        self.contexts = contexts
        self.source = SideValues(contexts.side_labels("source"), contexts.source)
        self.destination = SideValues(contexts.side_labels("destination"), contexts.destination)
        self.is_empty = not contexts.label_names
        by_direction = self.source.by_direction or self.destination.by_direction
        self._asks_direction = contexts.has_direction or by_direction
        self._packing = Packing(0, 0, False)
        self._numbers = DenseNumbers()
        """Of the contexts met, packed so."""
        self.counters: list[SeriesCounter] = []
        """Everything counted by these codes."""

    def contexts_of(self, ends: BlockEnds, rows: Indices | None) -> RowContexts:
        """Return the context of every row of a block, or of some rows."""
        columns = ends.block.columns
        directions = _of(columns["direction"], rows)
        if self._asks_direction:
            kinds = _of(columns["type"], rows), _of(columns["trace_reason"], rows)
            directions = traffic_directions(*kinds, directions)
        codes = []
        for values, whole, field in (
            (self.source, ends.source, "saddr"),
            (self.destination, ends.destination, "daddr"),
        ):
            side = _of(whole, rows)
            if values.needs_address:
                addresses = ends.block.column(field)
                some = addresses if rows is None else addresses[rows]
                codes.append(values.addressed_codes(side, directions, ends.endpoints, some))
            else:
                codes.append(values.codes(side, directions, ends.endpoints))
        known = None
        if self.contexts.has_direction:
            known = np.where(directions < _KNOWN_DIRECTIONS, directions, 0).astype(np.uint32)
        packing = Packing.of(len(self.source.values), len(self.destination.values), known is not None)
        if packing != self._packing:
            self._packing, self._numbers = packing, DenseNumbers()
        return row_contexts(packing, packing.pack(codes[0], codes[1], known), self._numbers)

    def forget_sides(self) -> None:
        """Codes of sides begin again."""
        self.source.forget_sides()
        self.destination.forget_sides()

    @property
    def is_full(self) -> bool:
        """Many values were seen: time to `compact`."""
        return max(len(self.source.values), len(self.destination.values)) > MAX_VALUES

    def compact(self) -> None:
        """Keep the values that series still use."""
        keys = np.concatenate([counter.keys() for counter in self.counters])
        shifts = (np.uint64(VALUE_BITS), np.uint64(0))
        mask = np.uint64(_VALUE_MASK)
        source, destination = (
            values.keep(distinct(keys >> shift & mask)[0])
            for values, shift in zip((self.source, self.destination), shifts, strict=True)
        )

        def renamed(old: Keys) -> Keys:
            sides: Keys = source[old >> shifts[0] & mask] << shifts[0] | destination[old & mask]
            upper: Keys = old >> np.uint64(DIRECTION_SHIFT) << np.uint64(DIRECTION_SHIFT)
            return upper | sides

        for counter in self.counters:
            counter.rename(renamed)
        self._numbers = DenseNumbers()

    def label_values(self, key: int) -> Values:
        """Return the values of `Contexts.label_names` for a series key."""
        if self.is_empty:
            return ()
        source = self.source.values[key >> VALUE_BITS & _VALUE_MASK]
        destination = self.destination.values[key & _VALUE_MASK]
        labels = (
            *source[: len(self.contexts.side_labels("source"))],
            *destination[: len(self.contexts.side_labels("destination"))],
        )
        if self.contexts.has_direction:
            direction = TrafficDirection(key >> DIRECTION_SHIFT & 3)
            labels += (direction.name.lower(),)
        own = (self.contexts.source, source), (self.contexts.destination, destination)
        return (*labels, *(values[-1] for side, values in own if side.is_used))
