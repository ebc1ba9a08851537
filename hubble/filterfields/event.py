"""Questions about the event: its type, verdict, reason, direction, interface, and which one it is.

Pure. Each function compiles the values of one field.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from hubble import flowuuid
from hubble.filterfields.predicates import Compiler, Predicate, View, each, is_one_of
from hubble.observingnode import ObservingNode
from hubble.replies import traffic_directions
from hubble.rows import Mask, reply_states
from palomar.drop import DropReason
from palomar.errors import InvalidInputError
from palomar_pb.flow import flow_pb2


def numbers(column: str) -> Compiler:
    """One of the numbers in a column."""

    def compiler(values: Sequence[Any], _node: ObservingNode) -> Predicate:
        return lambda view: is_one_of(view.rows.column(column), values)

    return compiler


def event_types(values: Sequence[Any], _node: ObservingNode) -> Predicate:
    """Type, and subtype where the value asks for it."""
    wanted = [(value.type, value.sub_type if value.match_sub_type else None) for value in values]

    def match(view: View) -> Mask:
        types, subtypes = view.rows.column("type"), view.rows.column("subtype")
        result = np.zeros(len(types), dtype=np.bool_)
        for number, subtype in wanted:
            same = is_one_of(types, (number,))
            result |= same if subtype is None else same & is_one_of(subtypes, (subtype,))
        return result

    return match


REASON_NUMBERS = np.array(
    [code if code in set(DropReason) else DropReason.UNKNOWN for code in range(256)], dtype=np.uint8
)
"""By datapath code: the number in `flow.DropReason`, which lacks some."""


def directions(values: Sequence[Any], _node: ObservingNode) -> Predicate:
    """Numbers of `flow.TrafficDirection`: the connection's direction, seen from the endpoint."""

    def match(view: View) -> Mask:
        type_, reason, direction = (view.rows.column(name) for name in ("type", "trace_reason", "direction"))
        return is_one_of(traffic_directions(type_, reason, direction), values)

    return match


def drop_reasons(values: Sequence[Any], _node: ObservingNode) -> Predicate:
    """Numbers of `flow.DropReason`."""
    return lambda view: is_one_of(REASON_NUMBERS[view.rows.column("drop_reason")], values)


def replies(values: Sequence[Any], _node: ObservingNode) -> Predicate:
    """Replies or not; rows of which that is not known are neither."""
    wanted = set(values)

    def match(view: View) -> Mask:
        known, reply = reply_states(view.rows)
        return known if len(wanted) > 1 else np.asarray(known & (reply == next(iter(wanted))))

    return match


def interfaces(values: Sequence[Any], _node: ObservingNode) -> Predicate:
    """Index, name, or both."""
    wanted = each(values, _interface)

    def match(view: View) -> Mask:
        indices = view.rows.column("ifindex")
        distinct = np.unique(indices)
        answers = [
            bool(index)
            and any(
                number in (0, index) and name in ("", view.names.interface(index) or "")
                for number, name in wanted
            )
            for index in distinct.tolist()
        ]
        return np.array(answers, dtype=np.bool_)[np.searchsorted(distinct, indices)]

    return match


def _interface(value: flow_pb2.NetworkInterface) -> tuple[int, str]:
    if not value.index and not value.name:
        raise InvalidInputError("an interface needs an index or a name")
    return value.index, value.name


def uuids(values: Sequence[Any], node: ObservingNode) -> Predicate:
    """Flows by their ids, which say store and position: no search."""
    found = [place for place in each(values, flowuuid.parse) if place is not None]
    positions = [position for store, position in found if store == node.store_id]

    def match(view: View) -> Mask:
        result = np.zeros(len(view.rows), dtype=np.bool_)
        for position in positions:
            if 0 <= position - view.rows.first < len(result):
                result[position - view.rows.first] = True
        return result

    return match
