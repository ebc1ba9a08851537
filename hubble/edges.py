"""Service edges: who talked to whom on which port, and what became of it. Counted for blocks of rows.

Pure. An edge runs from the side that asked to the side that was asked: a row known to be a reply is turned
round and counts for the same edge. Rows whose reply state is unknown (from-* points at aggregation none)
would make an edge of every ephemeral port and are left out; drops are requests. Names are references, so an
edge keeps its meaning when addresses move.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from hubble import replies
from hubble.keycounter import KeyCounter, distinct
from palomar.verdict import EventType, Verdict

Column = npt.NDArray[Any]

MAX_EDGES = 65536
_REF_BITS = 18
_HIGHEST_REF = (1 << _REF_BITS) - 1
"""Rows with higher references than a key has room for count as overflow."""
# The key: source (18 bits), destination (18), port (16), protocol (8), verdict (3).
_DST_SHIFT, _PORT_SHIFT, _PROTOCOL_SHIFT = np.uint64(27), np.uint64(11), np.uint64(3)
_SRC_SHIFT = np.uint64(27 + _REF_BITS)


@dataclass(frozen=True, slots=True)
class Edge:
    """One edge; `flows` counts rows of both directions."""

    src_ref: int
    dst_ref: int
    dport: int
    protocol: int
    verdict: Verdict
    flows: int


class Edges:
    """All edges since the counters were made, at most `limit`."""

    def __init__(self, limit: int = MAX_EDGES) -> None:
        """None yet."""
        self._counter = KeyCounter(limit)
        self._out_of_range = 0

    def __len__(self) -> int:
        return len(self._counter)

    @property
    def overflow(self) -> int:
        """Rows that belong to no counted edge, for want of room."""
        return self._counter.overflow + self._out_of_range

    def count(self, columns: dict[str, Column]) -> None:
        """Add a block. Small blocks cost more per row: hand over 8,192 and more."""
        codes = replies.reply_codes(columns["type"], columns["trace_reason"])
        codes[columns["type"] == EventType.DROP] = replies.REQUEST
        src, dst, port = columns["src_ref"], columns["dst_ref"], columns["dport"]
        turned = codes == replies.REPLY
        if turned.any():
            src, dst = np.where(turned, dst, src), np.where(turned, src, dst)
            port = np.where(turned, columns["sport"], port)
        keys = src.astype(np.uint64) << _SRC_SHIFT
        keys |= dst.astype(np.uint64) << _DST_SHIFT
        keys |= port.astype(np.uint64) << _PORT_SHIFT
        # Protocol and verdict are put together while they are narrow.
        low = columns["protocol"].astype(np.uint16) << np.uint16(3)
        low |= columns["verdict"] & np.uint8(7)
        keys |= low
        counted = codes != replies.UNKNOWN
        if max(int(src.max()), int(dst.max())) > _HIGHEST_REF:
            fits = (src <= _HIGHEST_REF) & (dst <= _HIGHEST_REF)
            self._out_of_range += int(np.count_nonzero(counted & ~fits))
            counted &= fits
        self._counter.add(*distinct(keys if counted.all() else keys[counted]))

    def items(self) -> list[Edge]:
        """Return every edge."""
        return [
            Edge(
                src_ref=key >> int(_SRC_SHIFT),
                dst_ref=key >> int(_DST_SHIFT) & _HIGHEST_REF,
                dport=key >> int(_PORT_SHIFT) & 0xFFFF,
                protocol=key >> 3 & 0xFF,
                verdict=Verdict(key & 7),
                flows=flows,
            )
            for key, flows in self._counter.items()
        ]
