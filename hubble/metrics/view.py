"""A block of rows with what several metrics ask of it, worked out once.

Pure. Input: a block of stored rows; output: columns of codes.
"""

from functools import cached_property

import numpy as np
import numpy.typing as npt

from hubble import replies
from hubble.metrics.contexts import Block
from hubble.metrics.sides import Codes
from hubble.rows import Column
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


def _protocol_table() -> npt.NDArray[np.uint8]:
    table = np.zeros(256, dtype=np.uint8)
    for protocol, code in _PROTOCOL_CODES.items():
        table[protocol] = code
    return table


_PROTOCOL_TABLE = _protocol_table()


class BlockView:
    """A block with what several handlers ask of it, worked out once."""

    def __init__(self, block: Block, world: npt.NDArray[np.bool_] | None, destinations: Codes | None) -> None:
        """`world` tells by the code of an endpoint whether it is outside; None where nobody asks."""
        self.block = block
        self.columns = block.columns
        self._world = world
        self._destinations = destinations

    @cached_property
    def protocols(self) -> npt.NDArray[np.uint8]:
        """Index in PROTOCOLS per row."""
        return _PROTOCOL_TABLE.take(self.columns["protocol"])

    @cached_property
    def verdicts(self) -> Column:
        """A verdict, or 0 for one that is not known."""
        verdicts = self.columns["verdict"]
        return np.where(verdicts < _VERDICTS, verdicts, np.uint8(0))

    @cached_property
    def is_passed(self) -> npt.NDArray[np.bool_]:
        """The packet went on."""
        verdicts = self.columns["verdict"]
        return np.asarray((verdicts == Verdict.FORWARDED) | (verdicts == Verdict.REDIRECTED))

    @cached_property
    def reply_codes(self) -> npt.NDArray[np.uint8]:
        """See `hubble.replies`."""
        return replies.reply_codes(self.columns["type"], self.columns["trace_reason"])

    def rows_to_world(self) -> npt.NDArray[np.intp]:
        """Rows whose destination is outside the cluster."""
        if self._world is None or self._destinations is None:
            return np.zeros(0, dtype=np.intp)
        return np.flatnonzero(self._world.take(self._destinations))
