"""Metrics of what packets were: TCP flags, ICMP messages, destination ports.

Pure. What counts where is Hubble's: see docs/flow-metrics.md.
"""

from collections.abc import Iterator

import numpy as np

from hubble import replies
from hubble.flowtext import icmp_text
from hubble.metrics.family import Base, Family, Indices, Labels
from hubble.metrics.view import ICMPV4, ICMPV6, PROTOCOLS, TCP, BlockView

FIN, SYN, RST, ACK = 1, 2, 4, 16
_IPV6 = 0x01


class TcpHandler:
    """TCP flags of packets that went on; a packet counts once for each of its flags."""

    family = Family("hubble_tcp_flags_total", "Flows with these TCP flags.", before=("flag", "family"))
    asks_world = False

    def select(self, view: BlockView) -> tuple[Indices | None, Base]:
        """Family (1 bit), flags (5)."""
        flags = view.columns["l4_flags"]
        chosen = view.protocols == TCP
        chosen &= flags & (FIN | SYN | RST) != 0
        chosen &= view.is_passed
        rows = np.flatnonzero(chosen)
        keys = (view.columns["flags"][rows] & _IPV6).astype(np.uint32) << np.uint32(5)
        keys |= flags[rows] & (FIN | SYN | RST | ACK)
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
    asks_world = False

    def select(self, view: BlockView) -> tuple[Indices | None, Base]:
        """Version 6 (1 bit), type (8), code (8)."""
        six = view.protocols == ICMPV6
        rows = np.flatnonzero(six | (view.protocols == ICMPV4))
        if len(rows) == 0:
            return rows, np.zeros(0, dtype=np.uint32)
        keys = six[rows].astype(np.uint32) << np.uint32(16)
        keys |= view.columns["l4_flags"][rows].astype(np.uint32) << np.uint32(8)
        return rows, keys | view.block.records["icmp_code"][rows]

    def labels(self, base: int) -> Iterator[tuple[Labels, Labels]]:
        """Yield one."""
        yield ("IPv4", icmp_text(base >> 8 & 0xFF, base & 0xFF, 6 if base >> 16 else 4)), ()


class PortDistributionHandler:
    """Destination ports of packets that went on and are known to be no replies."""

    family = Family(
        "hubble_port_distribution_total", "Flows by destination port.", before=("protocol", "port")
    )
    asks_world = False

    def select(self, view: BlockView) -> tuple[Indices | None, Base]:
        """Protocol (3 bits), port (16)."""
        chosen = (view.protocols > 0) & view.is_passed
        chosen &= view.reply_codes == replies.REQUEST
        rows = np.flatnonzero(chosen)
        return rows, port_keys(view, rows)

    def labels(self, base: int) -> Iterator[tuple[Labels, Labels]]:
        """Yield one."""
        yield (PROTOCOLS[base >> 16], str(base & 0xFFFF)), ()


def port_keys(view: BlockView, rows: Indices) -> Base:
    """Protocol (3 bits) and destination port (16) of some rows; 0 for the port where there is none."""
    protocols = view.protocols[rows].astype(np.uint32)
    ports = view.columns["dport"][rows].astype(np.uint32)
    ports[(protocols == ICMPV4) | (protocols == ICMPV6)] = 0
    return protocols << np.uint32(16) | ports
