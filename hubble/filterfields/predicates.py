"""A question about rows: from the values of a filter field to an answer per row of a block.

Pure. Which fields there are is `hubble.filterfields.compilers`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from hubble.flowendpoint import Names
from hubble.observingnode import ObservingNode
from hubble.rows import Column, Mask, Rows
from palomar.errors import InvalidInputError


@dataclass(frozen=True, slots=True)
class View:
    """A block of rows and the names its references stand for."""

    rows: Rows
    names: Names


Predicate = Callable[[View], Mask]
Compiler = Callable[[Sequence[Any], ObservingNode], Predicate]
"""Turns the values of one filter field into a question; the values are protobuf's."""


class BadValueError(Exception):
    """The value at `index` of a filter field cannot be used."""

    def __init__(self, index: int, message: str) -> None:
        self.index = index
        self.message = message
        super().__init__(message)


def each(values: Sequence[Any], read: Callable[[Any], Any]) -> list[Any]:
    """`read` every value; its InvalidInputError becomes one that knows which value it was."""
    result = []
    for index, value in enumerate(values):
        try:
            result.append(read(value))
        except InvalidInputError as error:
            raise BadValueError(index, error.reason) from error
    return result


def constant(answer: bool) -> Predicate:
    """The same answer for every row."""
    return lambda view: np.full(len(view.rows), answer, dtype=np.bool_)


def is_one_of(column: Column, values: Sequence[int]) -> Mask:
    """Per row: is the number one of `values`? Values the column cannot hold match nothing."""
    limit = np.iinfo(column.dtype).max
    possible = sorted({value for value in values if 0 <= value <= limit})
    if len(possible) == 1:
        return np.asarray(column == possible[0])
    return np.isin(column, np.array(possible, dtype=column.dtype))
