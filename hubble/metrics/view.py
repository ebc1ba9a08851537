"""A block of rows with what several metrics ask of it, worked out once.

Pure. Input: a block of stored rows; output: columns of codes.
"""

from functools import cached_property

import numpy as np
import numpy.typing as npt

from hubble import replies
from hubble.metrics.contexts import Block
from hubble.metrics.sides import Codes
from palomar.verdict import IpProtocol, Verdict

PROTOCOLS = ("Unknown L4", "TCP", "UDP", "ICMPv4", "ICMPv6", "SCTP")
TCP, ICMPV4, ICMPV6 = 1, 3, 4
"""Indices of PROTOCOLS."""
_PROTOCOL_CODES = {
    IpProtocol.TCP: 1,
    IpProtocol.UDP: 2,
    IpProtocol.ICMP: 3,
    IpProtocol.ICMPV6: 4,
    IpProtocol.SCTP: 5,
}
_VERDICTS = 8
_PROTOCOL_MASK = 7
PASSED = 0x40
"""In an outcome: the packet went on."""


def _outcome_table() -> npt.NDArray[np.uint8]:
    """By verdict << 8 | protocol: PASSED, verdict (3 bits; 0 for one that is not known), protocol (3)."""
    table = np.zeros(1 << 16, dtype=np.uint8)
    for verdict in range(_VERDICTS):
        passed = PASSED if verdict in (Verdict.FORWARDED, Verdict.REDIRECTED) else 0
        table[verdict << 8 : (verdict + 1) << 8] = passed | verdict << 3
    for protocol, code in _PROTOCOL_CODES.items():
        table[protocol::256] |= code
    return table


_OUTCOMES = _outcome_table()


class BlockView:
    """A block with what several handlers ask of it, worked out once."""

    def __init__(self, block: Block, world: npt.NDArray[np.bool_] | None, destinations: Codes | None) -> None:
        """`world` tells by the code of an endpoint whether it is outside; None where nobody asks."""
        self.block = block
        self.columns = block.columns
        self._world = world
        self._destinations = destinations

    @cached_property
    def outcomes(self) -> npt.NDArray[np.uint8]:
        """PASSED or not, verdict (3 bits), index in PROTOCOLS (3 bits) per row."""
        return _OUTCOMES.take(replies.pair(self.columns["verdict"], self.columns["protocol"]))

    @cached_property
    def protocols(self) -> npt.NDArray[np.uint8]:
        """Index in PROTOCOLS per row."""
        return self.outcomes & np.uint8(_PROTOCOL_MASK)

    @cached_property
    def verdicts(self) -> npt.NDArray[np.uint8]:
        """A verdict, or 0 for one that is not known."""
        return self.outcomes >> np.uint8(3) & np.uint8(_VERDICTS - 1)

    @cached_property
    def reply_codes(self) -> npt.NDArray[np.uint8]:
        """See `hubble.replies`."""
        return replies.reply_codes(self.columns["type"], self.columns["trace_reason"])

    def rows_to_world(self) -> npt.NDArray[np.intp]:
        """Rows whose destination is outside the cluster."""
        if self._world is None or self._destinations is None:
            return np.zeros(0, dtype=np.intp)
        return np.flatnonzero(self._world.take(self._destinations))
