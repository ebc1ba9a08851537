"""Is a row a request, a reply, or not known, and in which direction was its connection judged? By table.

Pure, for whole columns. The meaning is the flow API's `is_reply` (see also `hubble.rows`, which the flow
server uses): known for traces with a trace reason and for policy verdicts, unknown otherwise. Drops count as
requests here only where a caller says so.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from palomar.verdict import EventType, TraceReason, TrafficDirection

UNKNOWN, REQUEST, REPLY = 0, 1, 2
_ENCRYPTED = 0x80


def _table() -> npt.NDArray[np.uint8]:
    codes = np.zeros(1 << 16, dtype=np.uint8)
    known = (TraceReason.NEW, TraceReason.ESTABLISHED, TraceReason.RELATED, TraceReason.REOPENED)
    for bit in (0, _ENCRYPTED):
        for reason in known:
            codes[EventType.TRACE << 8 | reason | bit] = REQUEST
        codes[EventType.TRACE << 8 | TraceReason.REPLY | bit] = REPLY
    codes[EventType.POLICY_VERDICT << 8 : (EventType.POLICY_VERDICT + 1) << 8] = REQUEST
    return codes


_CODES = _table()


def reply_codes(event_type: npt.NDArray[Any], trace_reason: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    """Return UNKNOWN, REQUEST or REPLY per row. A policy verdict is REQUEST, also one that denied."""
    return _CODES.take(pair(event_type, trace_reason))


_OPPOSITES = np.arange(256, dtype=np.uint8)
_OPPOSITES[[TrafficDirection.INGRESS, TrafficDirection.EGRESS]] = (
    TrafficDirection.EGRESS,
    TrafficDirection.INGRESS,
)
"""By direction."""


def traffic_directions(
    event_type: npt.NDArray[Any], trace_reason: npt.NDArray[Any], direction: npt.NDArray[np.uint8]
) -> npt.NDArray[np.uint8]:
    """Return per row the flow API's `traffic_direction`: that of the connection, seen from the endpoint.

    A row says in which direction its packet went; a reply goes the other way than its connection.
    """
    is_reply = reply_codes(event_type, trace_reason) == REPLY
    return np.where(is_reply, _OPPOSITES.take(direction), direction) if is_reply.any() else direction


def pair(high: npt.NDArray[Any], low: npt.NDArray[Any]) -> npt.NDArray[np.uint16]:
    """Return `high << 8 | low` of two u8 columns: the index of a table over both."""
    both = high.astype(np.uint16)
    both <<= np.uint16(8)
    both |= low
    return both
