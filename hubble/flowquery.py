"""A GetFlowsRequest understood: which flows, how many, from where, with which fields.

Pure. Input: the request as it came; output: a query, or an InvalidInputError that names what is wrong.
The meaning of `number`, `first`, `since`, `until` and `follow` is Hubble's. Carried out by
`hubble.flowstream`.
"""

from dataclasses import dataclass
from enum import Enum

import numpy as np
import numpy.typing as npt
from google.protobuf.timestamp_pb2 import Timestamp

from hubble.fieldmask import FlowMask, flow_mask
from hubble.filterfields.predicates import View
from hubble.filters import FlowMatcher, compile_filters
from hubble.observingnode import ObservingNode
from palomar.errors import InvalidInputError
from palomar_pb.observer import observer_pb2

NS_PER_S = 1_000_000_000
FOREVER_NS = (1 << 64) - 1


class Start(Enum):
    """Where an answer begins."""

    OLDEST = "oldest"
    """With the oldest flow that matches."""
    NEWEST = "newest"
    """With the oldest of the newest `number` flows that match."""
    NOW = "now"
    """With what comes from now on."""


@dataclass(frozen=True, slots=True)
class FlowQuery:
    """A request's selection."""

    start: Start
    number: int
    """How many flows of the past; 0 is no limit."""
    follow: bool
    since_ns: int
    until_ns: int
    matcher: FlowMatcher
    mask: FlowMask | None

    def wanted(self, view: View) -> npt.NDArray[np.intp]:
        """Rows of a block that match the filters and the time range, in order."""
        times = view.rows.column("time_ns")
        chosen = self.matcher.mask(view)
        if self.since_ns:
            chosen &= times >= np.uint64(self.since_ns)
        if self.until_ns != FOREVER_NS:
            chosen &= times <= np.uint64(self.until_ns)
        return np.flatnonzero(chosen)


def compile_query(request: observer_pb2.GetFlowsRequest, node: ObservingNode) -> FlowQuery:
    """Read `request`; raise InvalidInputError naming the first field that cannot be used."""
    since = nanoseconds(request.since, "since") if request.HasField("since") else 0
    until = nanoseconds(request.until, "until") if request.HasField("until") else FOREVER_NS
    return FlowQuery(
        start=start_of(request.number, request.first, request.follow, since > 0),
        number=request.number,
        follow=request.follow,
        since_ns=since,
        until_ns=until,
        matcher=compile_filters(request.whitelist, request.blacklist, node),
        mask=flow_mask(request),
    )


def start_of(number: int, first: bool, follow: bool, has_since: bool) -> Start:
    """Where to begin: a follower who asks for no past begins now."""
    if first:
        return Start.OLDEST
    if number:
        return Start.NEWEST
    return Start.NOW if follow and not has_since else Start.OLDEST


def nanoseconds(timestamp: Timestamp, path: str) -> int:
    """Nanoseconds since the epoch; times before it are the epoch."""
    if not 0 <= timestamp.nanos < NS_PER_S:
        raise InvalidInputError(f"{timestamp.nanos} nanoseconds in a second", path)
    return max(0, min(timestamp.seconds * NS_PER_S + timestamp.nanos, FOREVER_NS - 1))
