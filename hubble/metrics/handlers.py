"""Hubble's metric handlers: which rows count, under which labels of their own.

Pure. Input: a block of stored rows; output: a key of at most 22 bits per row that counts, and back from
keys to label values. What counts where is Hubble's: see docs/metrics.md. Contexts are not here
(`hubble.metrics.contexts`), nor the counting (`hubble.metrics.registry`).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
import numpy.typing as npt

from hubble import replies
from hubble.flowmetrics import drop_name, verdict_name
from hubble.flowtext import icmp_text
from hubble.metrics.contexts import Block
from hubble.metrics.sides import Codes
from hubble.metrics.spec import MetricSpec
from hubble.rows import Column
from palomar.drop import DropReason
from palomar.identity import Reserved
from palomar.verdict import (
    EventType,
    IpProtocol,
    ObservationPoint,
    PolicyMatchType,
    TrafficDirection,
    Verdict,
)

Base = npt.NDArray[np.uint32]
Indices = npt.NDArray[np.intp]
Labels = tuple[str, ...]

PROTOCOLS = ("Unknown L4", "TCP", "UDP", "ICMPv4", "ICMPv6", "SCTP")
UNKNOWN_FLOW = "Unknown flow"
_PROTOCOL_CODES = {
    IpProtocol.TCP: 1,
    IpProtocol.UDP: 2,
    IpProtocol.ICMP: 3,
    IpProtocol.ICMPV6: 4,
    IpProtocol.SCTP: 5,
}
_TCP, _ICMPV4, _ICMPV6 = 1, 3, 4
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
_FIN, _SYN, _RST, _ACK = 1, 2, 4, 16
_IPV6 = 0x01
_VERDICTS = 8
_DIRECTIONS = {TrafficDirection.INGRESS: "ingress", TrafficDirection.EGRESS: "egress"}


def _kind_table() -> Base:
    """By type << 8 | subtype: an index of _KIND_LABELS, or beyond them the number of an unknown type.

    Small numbers for what is frequent: keys of few bits sort faster.
    """
    table = np.zeros(1 << 16, dtype=np.uint32)
    for number in range(256):
        table[number << 8 : (number + 1) << 8] = len(_KIND_LABELS) + number
    for kind, name in _TYPES.items():
        table[kind << 8 : (kind + 1) << 8] = _KIND_LABELS.index((name, ""))
    for subtype in range(256):
        table[EventType.TRACE << 8 | subtype] = min(subtype, len(ObservationPoint))
    return table


def _protocol_table() -> npt.NDArray[np.uint8]:
    table = np.zeros(256, dtype=np.uint8)
    for protocol, code in _PROTOCOL_CODES.items():
        table[protocol] = code
    return table


_KINDS = _kind_table()
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

    def is_to_world(self) -> npt.NDArray[np.bool_]:
        """The destination is outside the cluster."""
        if self._world is None or self._destinations is None:
            return np.zeros(len(self.columns["type"]), dtype=np.bool_)
        return self._world.take(self._destinations)


@dataclass(frozen=True, slots=True)
class Family:
    """A metric as Prometheus knows it, without the labels of contexts."""

    name: str
    """With `_total`."""
    help: str
    before: Labels = ()
    """Labels before those of the contexts."""
    after: Labels = ()


class Handler(Protocol):
    """One metric family and how rows count for it."""

    family: Family
    asks_world: bool
    """Whether it needs to know which endpoints are outside."""

    def select(self, view: BlockView) -> tuple[Indices | None, Base]:
        """Return the rows that count (None: all) and their keys (below 1 << 22)."""
        ...

    def labels(self, base: int) -> Iterator[tuple[Labels, Labels]]:
        """Yield the values of the labels before and after the contexts' for what a key counts as."""
        ...


class FlowHandler:
    """Every flow."""

    family = Family(
        "hubble_flows_processed_total", "Flows seen.", before=("protocol", "type", "subtype", "verdict")
    )
    asks_world = False

    def select(self, view: BlockView) -> tuple[Indices | None, Base]:
        """All rows: kind (9 bits), verdict (3), protocol (3)."""
        keys = _KINDS.take(replies.pair(view.columns["type"], view.columns["subtype"]))
        keys <<= np.uint32(6)
        keys |= view.verdicts << 3 | view.protocols
        return None, keys

    def labels(self, base: int) -> Iterator[tuple[Labels, Labels]]:
        """Yield one."""
        kind, verdict = base >> 6, verdict_name(base >> 3 & 7)
        if kind < len(_KIND_LABELS):
            yield (PROTOCOLS[base & 7], *_KIND_LABELS[kind], verdict), ()
        else:
            yield (UNKNOWN_FLOW, "Unknown", str(kind - len(_KIND_LABELS)), verdict), ()


class DropHandler:
    """Rows with the verdict DROPPED: a drop event and the verdict that caused it are two."""

    family = Family("hubble_drop_total", "Flows dropped.", after=("reason", "protocol"))
    asks_world = False

    def select(self, view: BlockView) -> tuple[Indices | None, Base]:
        """Reason (8 bits), protocol (3)."""
        rows = np.flatnonzero(view.columns["verdict"] == Verdict.DROPPED)
        reasons = view.columns["drop_reason"][rows].astype(np.uint32)
        return rows, reasons << np.uint32(3) | view.protocols[rows]

    def labels(self, base: int) -> Iterator[tuple[Labels, Labels]]:
        """Yield one."""
        yield (), (drop_name(base >> 3), PROTOCOLS[base & 7])


class TcpHandler:
    """TCP flags of packets that went on; a packet counts once for each of its flags."""

    family = Family("hubble_tcp_flags_total", "Flows with these TCP flags.", before=("flag", "family"))
    asks_world = False

    def select(self, view: BlockView) -> tuple[Indices | None, Base]:
        """Family (1 bit), flags (5)."""
        flags = view.columns["l4_flags"]
        chosen = view.protocols == _TCP
        chosen &= flags & (_FIN | _SYN | _RST) != 0
        chosen &= view.is_passed
        rows = np.flatnonzero(chosen)
        keys = (view.columns["flags"][rows] & _IPV6).astype(np.uint32) << np.uint32(5)
        keys |= flags[rows] & (_FIN | _SYN | _RST | _ACK)
        return rows, keys

    def labels(self, base: int) -> Iterator[tuple[Labels, Labels]]:
        """Yield one per flag."""
        family = "IPv6" if base >> 5 else "IPv4"
        if base & _FIN:
            yield ("FIN", family), ()
        if base & _SYN:
            yield ("SYN-ACK" if base & _ACK else "SYN", family), ()
        if base & _RST:
            yield ("RST", family), ()


class IcmpHandler:
    """ICMP messages by type. Says family IPv4 for ICMPv6 too, as the field does: dashboards rely on it."""

    family = Family("hubble_icmp_total", "ICMP messages.", before=("family", "type"))
    asks_world = False

    def select(self, view: BlockView) -> tuple[Indices | None, Base]:
        """Version 6 (1 bit), type (8), code (8)."""
        six = view.protocols == _ICMPV6
        rows = np.flatnonzero(six | (view.protocols == _ICMPV4))
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
        return rows, _port_keys(view, rows)

    def labels(self, base: int) -> Iterator[tuple[Labels, Labels]]:
        """Yield one."""
        yield (PROTOCOLS[base >> 16], str(base & 0xFFFF)), ()


def _port_keys(view: BlockView, rows: Indices) -> Base:
    protocols = view.protocols[rows].astype(np.uint32)
    ports = view.columns["dport"][rows].astype(np.uint32)
    ports[(protocols == _ICMPV4) | (protocols == _ICMPV6)] = 0
    return protocols << np.uint32(16) | ports


class FlowsToWorldHandler:
    """Flows that leave the cluster, and those that policy keeps from it."""

    asks_world = True

    def __init__(self, options: frozenset[str]) -> None:
        """`any-drop`, `port`, `syn-only`."""
        self._options = options
        before = ("protocol", "verdict", "port") if "port" in options else ("protocol", "verdict")
        self.family = Family("hubble_flows_to_world_total", "Flows out of the cluster.", before=before)

    def select(self, view: BlockView) -> tuple[Indices | None, Base]:
        """Verdict (3 bits), protocol (3), port (16)."""
        chosen = view.is_to_world()
        if not chosen.any():
            return np.zeros(0, dtype=np.intp), np.zeros(0, dtype=np.uint32)
        chosen &= view.protocols > 0
        chosen &= view.reply_codes != replies.REPLY
        if "any-drop" not in self._options:
            dropped = view.columns["verdict"] == Verdict.DROPPED
            chosen &= ~dropped | (view.columns["drop_reason"] == DropReason.POLICY_DENIED)
        if "syn-only" in self._options:
            is_first = view.columns["l4_flags"] & (_SYN | _ACK) == _SYN
            chosen &= (view.protocols != _TCP) | is_first
        rows = np.flatnonzero(chosen)
        keys = view.verdicts[rows].astype(np.uint32) << np.uint32(19) | _port_keys(view, rows)
        return rows, keys if "port" in self._options else keys & ~np.uint32(0xFFFF)

    def labels(self, base: int) -> Iterator[tuple[Labels, Labels]]:
        """Yield one."""
        labels = (PROTOCOLS[base >> 16 & 7], verdict_name(base >> 19))
        yield (*labels, str(base & 0xFFFF)) if "port" in self._options else labels, ()


class PolicyHandler:
    """Policy verdicts, but for those on packets of the host itself."""

    family = Family(
        "hubble_policy_verdicts_total", "Policy verdicts.", before=("direction", "match", "action")
    )
    asks_world = False

    def select(self, view: BlockView) -> tuple[Indices | None, Base]:
        """Direction (2 bits), match type (8), verdict (3)."""
        columns = view.columns
        chosen = columns["type"] == EventType.POLICY_VERDICT
        chosen &= columns["src_identity"] != Reserved.HOST
        rows = np.flatnonzero(chosen)
        if len(rows) == 0:
            return rows, np.zeros(0, dtype=np.uint32)
        keys = (columns["direction"][rows] & 3).astype(np.uint32) << np.uint32(11)
        keys |= view.block.records["match_type"][rows].astype(np.uint32) << np.uint32(3)
        return rows, keys | view.verdicts[rows]

    def labels(self, base: int) -> Iterator[tuple[Labels, Labels]]:
        """Yield one."""
        match = base >> 3 & 0xFF
        known = match < len(PolicyMatchType)
        yield (
            (
                _DIRECTIONS.get(TrafficDirection(base >> 11), "unknown") if base >> 11 < 3 else "unknown",
                PolicyMatchType(match).display.lower() if known else str(match),
                verdict_name(base & 7).lower(),
            ),
            (),
        )


class SilentHandler:
    """A family that has no data yet: it is announced, so that dashboards find it."""

    asks_world = False

    def __init__(self, family: Family) -> None:
        """Announce `family`."""
        self.family = family

    def select(self, view: BlockView) -> tuple[Indices | None, Base]:
        """No row."""
        return np.zeros(0, dtype=np.intp), np.zeros(0, dtype=np.uint32)

    def labels(self, base: int) -> Iterator[tuple[Labels, Labels]]:
        """Yield nothing."""
        yield from ()


def _dns_handlers(options: frozenset[str]) -> list[Handler]:
    query = ("query",) if "query" in options else ()
    return [
        SilentHandler(
            Family(
                "hubble_dns_queries_total", "DNS queries.", after=("rcode", "qtypes", "ips_returned", *query)
            )
        ),
        SilentHandler(
            Family(
                "hubble_dns_responses_total",
                "DNS responses.",
                after=("rcode", "qtypes", "ips_returned", *query),
            )
        ),
        SilentHandler(
            Family(
                "hubble_dns_response_types_total", "DNS answers by type.", after=("type", "qtypes", *query)
            )
        ),
    ]


def make_handlers(spec: MetricSpec) -> list[Handler]:
    """Return the handlers of a metric."""
    match spec.name:
        case "flow":
            return [FlowHandler()]
        case "drop":
            return [DropHandler()]
        case "tcp":
            return [TcpHandler()]
        case "icmp":
            return [IcmpHandler()]
        case "port-distribution":
            return [PortDistributionHandler()]
        case "flows-to-world":
            return [FlowsToWorldHandler(spec.options)]
        case "policy":
            return [PolicyHandler()]
        case "dns":
            return _dns_handlers(spec.options)
        case _:
            raise ValueError(spec.name)
