"""FlowFilters as vectorised questions: which rows of a block does a client want?

Pure. Input: the whitelist and blacklist of a GetFlowsRequest, and blocks of stored records; output: a
mask per block. What a filter means is the flow API's: it matches when all its fields do, a field when
one of its values does (the fields: `hubble.filterfields`). A malformed value is an InvalidInputError
that names it. Not here: time and count limits (`hubble.observer`), and CEL, which is refused rather
than guessed.
"""

from collections.abc import Iterator, Sequence

import numpy as np
from google.protobuf.unknown_fields import UnknownFieldSet

from hubble.filterfields.compilers import COMPILERS
from hubble.filterfields.predicates import BadValueError, Predicate, View
from hubble.observingnode import ObservingNode
from hubble.rows import Mask
from palomar.errors import InvalidInputError
from palomar_pb.flow import flow_pb2

MAX_FILTERS = 128
"""In a whitelist, and in a blacklist: each is asked about every row."""
MAX_VALUES = 1_000
"""Of all fields of all filters of a list."""
MAX_TEXT_CHARS = 2_048
"""Of one value: a regular expression, a label selector, a name."""


class FlowMatcher:
    """A compiled pair of whitelist and blacklist. Keeps tables of answers: use one per request."""

    def __init__(self, allow: list[list[Predicate]], deny: list[list[Predicate]]) -> None:
        """Each inner list is one filter: all of its predicates must hold."""
        self._allow = allow
        self._deny = deny

    def mask(self, view: View) -> Mask:
        """Tell per row whether the client wants it."""
        count = len(view.rows)
        wanted = _any_filter(self._allow, view) if self._allow else np.ones(count, dtype=np.bool_)
        if self._deny and wanted.any():
            wanted &= ~_any_filter(self._deny, view)
        return wanted


def _any_filter(filters: list[list[Predicate]], view: View) -> Mask:
    result = np.zeros(len(view.rows), dtype=np.bool_)
    for predicates in filters:
        matched = np.ones(len(view.rows), dtype=np.bool_)
        for predicate in predicates:
            matched &= predicate(view)
            if not matched.any():
                break
        result |= matched
    return result


def compile_filters(
    whitelist: Sequence[flow_pb2.FlowFilter],
    blacklist: Sequence[flow_pb2.FlowFilter],
    node: ObservingNode,
) -> FlowMatcher:
    """Compile both lists; InvalidInputError names the wrong value: `whitelist[0].source_ip[1]`.

    So much is refused that answering it would keep everybody else waiting.
    """
    _check_size(whitelist, "whitelist")
    _check_size(blacklist, "blacklist")
    return FlowMatcher(
        [compile_filter(item, f"whitelist[{i}]", node) for i, item in enumerate(whitelist)],
        [compile_filter(item, f"blacklist[{i}]", node) for i, item in enumerate(blacklist)],
    )


def _check_size(filters: Sequence[flow_pb2.FlowFilter], path: str) -> None:
    if len(filters) > MAX_FILTERS:
        raise InvalidInputError(
            f"{len(filters)} filters, at most {MAX_FILTERS} are answered: name several values in one", path
        )
    count = 0
    for number, item in enumerate(filters):
        for field, index, value in _values(item):
            count += 1
            if isinstance(value, str) and len(value) > MAX_TEXT_CHARS:
                where = f"{path}[{number}].{field}[{index}]"
                raise InvalidInputError(f"{len(value)} characters, at most {MAX_TEXT_CHARS} are read", where)
    if count > MAX_VALUES:
        raise InvalidInputError(f"{count} values, at most {MAX_VALUES} are answered", path)


def _values(item: flow_pb2.FlowFilter) -> Iterator[tuple[str, int, object]]:
    """Field, index and value of everything that a filter asks for."""
    for name in COMPILERS:
        for index, value in enumerate(getattr(item, name)):
            yield name, index, value


def compile_filter(item: flow_pb2.FlowFilter, path: str, node: ObservingNode) -> list[Predicate]:
    """Compile one filter into the questions that must all be answered with yes."""
    extra = UnknownFieldSet(item)
    unknown = [extra[i].field_number for i in range(len(extra))]
    if unknown:
        raise InvalidInputError(f"this server does not know the filter fields {unknown}", path)
    if item.experimental.cel_expression:
        raise InvalidInputError(
            "CEL expressions are not supported: use the other fields", f"{path}.experimental.cel_expression"
        )
    predicates = []
    for name, compiler in COMPILERS.items():
        values = getattr(item, name)
        if values:
            try:
                predicates.append(compiler(values, node))
            except BadValueError as error:
                raise InvalidInputError(error.message, f"{path}.{name}[{error.index}]") from error
    return predicates
