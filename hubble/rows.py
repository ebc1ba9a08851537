"""What filters and the flow builder both derive from stored records, per column.

Pure. Input: blocks of the flow store; output: arrays, one value a row. Keeping these derivations in
one place is what makes "the filter matched" and "the flow says so" the same statement.
"""

from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from datapath.events import EventFlag
from palomar.verdict import EventType, TraceReason, Verdict

Mask = npt.NDArray[np.bool_]
Column = npt.NDArray[Any]

REASON_MASK = 0x7F
"""The upper bit of a trace reason says "encrypted"."""
KNOWN_REASONS = (
    TraceReason.NEW,
    TraceReason.ESTABLISHED,
    TraceReason.REPLY,
    TraceReason.RELATED,
    TraceReason.REOPENED,
)
PASSED = (Verdict.FORWARDED, Verdict.REDIRECTED, Verdict.AUDIT)


class Columns(Protocol):
    """Stored records, field by field."""

    def __len__(self) -> int:
        """How many rows."""
        ...

    def column(self, name: str) -> Column:
        """A field of the record by its name in the event layout, one value a row."""
        ...


class Rows(Columns, Protocol):
    """Stored records without gaps, oldest first."""

    @property
    def first(self) -> int:
        """Position of row 0 in the store."""
        ...


def reply_states(rows: Columns) -> tuple[Mask, Mask]:
    """Per row: is it known whether it is a reply, and is it one.

    Known for traces whose trace reason is known, and for policy verdicts that let the packet pass.
    """
    event_type = rows.column("type")
    reason = rows.column("trace_reason") & REASON_MASK
    trace = (event_type == EventType.TRACE) & np.isin(reason, KNOWN_REASONS)
    passed = np.isin(rows.column("verdict"), PASSED)
    known = trace | ((event_type == EventType.POLICY_VERDICT) & passed)
    return known, trace & (reason == TraceReason.REPLY)


def reply_state(event_type: int, trace_reason: int, verdict: int) -> bool | None:
    """The same for one record: True, False, or None where it is not known."""
    reason = trace_reason & REASON_MASK
    if event_type == EventType.TRACE and reason in KNOWN_REASONS:
        return reason == TraceReason.REPLY
    return False if event_type == EventType.POLICY_VERDICT and verdict in PASSED else None


def ip_versions(rows: Columns) -> npt.NDArray[np.uint8]:
    """Per row 4 or 6, or 0 for a packet that had no IP header (only drops can be of that kind)."""
    versions = np.where(rows.column("flags") & EventFlag.IPV6, np.uint8(6), np.uint8(4))
    drops = np.flatnonzero(rows.column("type") == EventType.DROP)
    if len(drops):
        halves = [address_words(rows, name, 8)[drops] for name in ("saddr", "daddr")]
        versions[drops[~np.hstack(halves).any(axis=1)]] = 0
    return versions


def address_words(rows: Columns, name: str, size: int) -> Column:
    """The 16 octets of an address per row, as words of `size` octets in the order they are stored in."""
    return np.ascontiguousarray(rows.column(name)).view(f"u{size}")
