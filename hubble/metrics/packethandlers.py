"""Metrics of what packets were: TCP flags, ICMP messages, destination ports.

Pure. What counts where is Hubble's: see docs/flow-metrics.md.
"""

from collections.abc import Iterator

import numpy as np

from hubble import replies
from hubble.flowtext import icmp_text
from hubble.metrics.contexts import Indices
from hubble.metrics.family import Base, Family, Labels
from hubble.metrics.view import ICMPV4, ICMPV6, PASSED, PROTOCOLS, TCP, BlockView

FIN, SYN, RST, ACK = 1, 2, 4, 16
_IPV6 = 0x01
_PASSED_PROTOCOL = np.uint8(PASSED | 7)
"""Of an outcome: whether the packet went on, and its protocol."""


class TcpHandler:
    """TCP flags of packets that went on; a packet counts once for each of its flags."""

    family = Family("hubble_tcp_flags_total", "Flows with these TCP flags.", before=("flag", "family"))
    key_bits = 6
    asks_world = False

    def select(self, view: BlockView) -> tuple[Indices | None, Base]:
        """Family (1 bit), flags (5)."""
        flags = view.columns["l4_flags"]
        chosen = view.outcomes & _PASSED_PROTOCOL == PASSED | TCP
        chosen &= flags & np.uint8(FIN | SYN | RST) != 0
        rows = np.flatnonzero(chosen)
        keys = view.columns["flags"].take(rows) & np.uint8(_IPV6)
        keys <<= np.uint8(5)
        keys |= flags.take(rows) & np.uint8(FIN | SYN | RST | ACK)
        return rows, keys

    def labels(self, base: int) -> Iterator[tuple[Labels, Labels]]:
        """Yield one per flag."""
        family = "IPv6" if base >> 5 else "IPv4"
        if base & FIN:
            yield ("FIN", family), ()
        if base & SYN:
            yield ("SYN-ACK" if base & ACK else "SYN", family), ()
        if base & RST:
            yield ("RST", family), ()


class IcmpHandler:
    """ICMP messages by type. Says family IPv4 for ICMPv6 too, as the field does: dashboards rely on it."""

    family = Family("hubble_icmp_total", "ICMP messages.", before=("family", "type"))
    key_bits = 17
    asks_world = False

    def select(self, view: BlockView) -> tuple[Indices | None, Base]:
        """Version 6 (1 bit), type (8), code (8)."""
        six = view.protocols == ICMPV6
        rows = np.flatnonzero(six | (view.protocols == ICMPV4))
        if len(rows) == 0:
            return rows, np.zeros(0, dtype=np.uint32)
        keys = six[rows].astype(np.uint32) << np.uint32(16)
        keys |= view.columns["l4_flags"][rows].astype(np.uint32) << np.uint32(8)
        return rows, keys | view.block.column("icmp_code")[rows]

    def labels(self, base: int) -> Iterator[tuple[Labels, Labels]]:
        """Yield one."""
        yield ("IPv4", icmp_text(base >> 8 & 0xFF, base & 0xFF, 6 if base >> 16 else 4)), ()


class PortDistributionHandler:
    """Destination ports of packets that went on and are known to be no replies."""

    family = Family(
        "hubble_port_distribution_total", "Flows by destination port.", before=("protocol", "port")
    )
    key_bits = 19
    asks_world = False

    def select(self, view: BlockView) -> tuple[Indices | None, Base]:
        """Protocol (3 bits), port (16)."""
        chosen = view.outcomes & _PASSED_PROTOCOL > PASSED
        chosen &= view.reply_codes == replies.REQUEST
        rows = np.flatnonzero(chosen)
        return rows, port_keys(view, rows)

    def labels(self, base: int) -> Iterator[tuple[Labels, Labels]]:
        """Yield one."""
        yield (PROTOCOLS[base >> 16], str(base & 0xFFFF)), ()


def port_keys(view: BlockView, rows: Indices) -> Base:
    """Protocol (3 bits) and destination port (16) of some rows; 0 for the port where there is none."""
    protocols = view.protocols.take(rows)
    keys = protocols.astype(np.uint32)
    keys <<= np.uint32(16)
    keys |= view.columns["dport"].take(rows)
    is_icmp = (protocols == ICMPV4) | (protocols == ICMPV6)
    if is_icmp.any():
        keys[is_icmp] &= ~np.uint32(0xFFFF)
    return keys
