"""FlowFilters as vectorised questions: which rows of a block does a client want?

Pure. Input: the whitelist and blacklist of a GetFlowsRequest, and blocks of stored records; output: a
mask per block. What a filter means is the flow API's: it matches when all its fields do, a field when
one of its values does (the fields: `hubble.filterfields`). A malformed value is an InvalidInputError
that names it. Not here: time and count limits (`hubble.observer`), and CEL, which is refused rather
than guessed.
"""

from collections.abc import Iterable

import numpy as np
from google.protobuf.unknown_fields import UnknownFieldSet

from hubble.filterfields import COMPILERS, BadValueError, ObservingNode, Predicate, View
from hubble.rows import Mask
from palomar.errors import InvalidInputError
from palomar_pb.flow import flow_pb2


class FlowMatcher:
    """A compiled pair of whitelist and blacklist. Keeps tables of answers: use one per request."""

    def __init__(self, allow: list[list[Predicate]], deny: list[list[Predicate]]) -> None:
        """Each inner list is one filter: all of its predicates must hold."""
        self._allow = allow
        self._deny = deny

    @property
    def matches_all(self) -> bool:
        """No row is left out."""
        return not self._allow and not self._deny

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
    whitelist: Iterable[flow_pb2.FlowFilter],
    blacklist: Iterable[flow_pb2.FlowFilter],
    node: ObservingNode,
) -> FlowMatcher:
    """Compile both lists; InvalidInputError names the wrong value: `whitelist[0].source_ip[1]`."""
    return FlowMatcher(
        [compile_filter(item, f"whitelist[{i}]", node) for i, item in enumerate(whitelist)],
        [compile_filter(item, f"blacklist[{i}]", node) for i, item in enumerate(blacklist)],
    )


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
