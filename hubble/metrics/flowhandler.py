"""The metric of every flow, by kind of event and verdict.

Pure. What counts where is Hubble's: see docs/flow-metrics.md.
"""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from hubble import replies
from hubble.flowmetrics import verdict_name
from hubble.metrics.contexts import Indices
from hubble.metrics.family import Base, Family, Labels
from hubble.metrics.view import PASSED, PROTOCOLS, BlockView
from palomar.verdict import EventType, ObservationPoint

UNKNOWN_FLOW = "Unknown flow"
_TRACE = "Trace"
_TYPES = {
    EventType.DROP: "Drop",
    EventType.CAPTURE: "Capture",
    EventType.POLICY_VERDICT: "PolicyVerdict",
    EventType.L7: "L7",
}
"""All but traces, which have subtypes."""
_KIND_LABELS = (
    *((_TRACE, point.display) for point in ObservationPoint),
    (_TRACE, "unknown"),
    *((name, "") for name in _TYPES.values()),
)
"""Labels type and subtype; the traces' come first, by observation point."""


def _kind_table() -> npt.NDArray[np.uint16]:
    """By type << 8 | subtype: index of _KIND_LABELS, or beyond them the number of an unknown type; << 6."""
    table = np.zeros(1 << 16, dtype=np.uint16)
    for number in range(256):
        table[number << 8 : (number + 1) << 8] = len(_KIND_LABELS) + number
    for kind, name in _TYPES.items():
        table[kind << 8 : (kind + 1) << 8] = _KIND_LABELS.index((name, ""))
    for subtype in range(256):
        table[EventType.TRACE << 8 | subtype] = min(subtype, len(ObservationPoint))
    return table << np.uint16(6)


_KINDS = _kind_table()


class FlowHandler:
    """Every flow."""

    family = Family(
        "hubble_flows_processed_total", "Flows seen.", before=("protocol", "type", "subtype", "verdict")
    )
    key_bits = 15
    asks_world = False

    def select(self, view: BlockView) -> tuple[Indices | None, Base]:
        """All rows: kind (9 bits), verdict (3), protocol (3)."""
        keys = _KINDS.take(replies.pair(view.columns["type"], view.columns["subtype"]))
        keys |= view.outcomes & np.uint8(PASSED - 1)
        return None, keys

    def labels(self, base: int) -> Iterator[tuple[Labels, Labels]]:
        """Yield one."""
        kind, verdict = base >> 6, verdict_name(base >> 3 & 7)
        if kind < len(_KIND_LABELS):
            yield (PROTOCOLS[base & 7], *_KIND_LABELS[kind], verdict), ()
        else:
            yield (UNKNOWN_FLOW, "Unknown", str(kind - len(_KIND_LABELS)), verdict), ()
