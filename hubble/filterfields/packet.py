"""Questions about the packet: protocol, TCP flags, IP version.

Pure. Each function compiles the values of one field.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from hubble.filterfields.predicates import Predicate, View, constant, each, is_one_of
from hubble.filterfields.values import read_protocol
from hubble.flowtext import TCP_FLAG_BITS
from hubble.observingnode import ObservingNode
from hubble.rows import Mask, ip_versions
from palomar.verdict import IpProtocol
from palomar_pb.flow import flow_pb2


def protocols(values: Sequence[Any], _node: ObservingNode) -> Predicate:
    """IP protocols by name."""
    numbers = [number for known in each(values, read_protocol) for number in known]
    return lambda view: is_one_of(view.rows.column("protocol"), numbers)


def tcp_flags(values: Sequence[Any], _node: ObservingNode) -> Predicate:
    """TCP packets with at least the flags of one value."""
    wanted = [
        sum(bit for name, bit in TCP_FLAG_BITS.items() if getattr(value, name))
        for value in values
        if not value.NS  # no packet is recorded with it
    ]

    def match(view: View) -> Mask:
        seen = view.rows.column("l4_flags")
        result = np.zeros(len(seen), dtype=np.bool_)
        for bits in wanted:
            result |= (seen & bits) == bits
        return np.asarray(result & (view.rows.column("protocol") == IpProtocol.TCP))

    return match


def versions_of_ip(values: Sequence[Any], _node: ObservingNode) -> Predicate:
    """4, 6, or none for packets without an IP header."""
    numbers = {flow_pb2.IP_NOT_USED: 0, flow_pb2.IPv4: 4, flow_pb2.IPv6: 6}
    wanted = [numbers[value] for value in values if value in numbers]
    return lambda view: is_one_of(ip_versions(view.rows), wanted)


def encrypted(values: Sequence[Any], _node: ObservingNode) -> Predicate:
    """Encrypted or not."""
    return constant(False in values)  # nothing is encrypted between nodes
