"""A metric family, and what it takes to count one: which rows count, under which labels of their own.

Pure. Implemented by the handlers (`hubble.metrics.handlers`), used by `hubble.metrics.metric`.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy.typing as npt

from hubble.metrics.contexts import Indices
from hubble.metrics.view import BlockView

Base = npt.NDArray[Any]
"""Unsigned."""
Labels = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Family:
    """A metric as Prometheus knows it, without the labels of contexts."""

    name: str
    """With `_total`."""
    help: str
    before: Labels = ()
    """Labels before those of the contexts."""
    after: Labels = ()


class Handler(Protocol):
    """One metric family and how rows count for it."""

    family: Family
    key_bits: int
    """Of its keys."""
    asks_world: bool
    """Whether it needs to know which endpoints are outside."""

    def select(self, view: BlockView) -> tuple[Indices | None, Base]:
        """Return the rows that count (None: all) and their keys (22 bits at most)."""
        ...

    def labels(self, base: int) -> Iterator[tuple[Labels, Labels]]:
        """Yield the values of the labels before and after the contexts' for what a key counts as."""
        ...
