"""Counters of flows by Hubble's labels, for blocks of stored rows.

Pure. Input: hot columns and, where there is ICMP, records; output: totals by label. Each counter asks per
block, through tables over pairs of bytes, never per row. The metrics are those of the field's handlers flow,
drop, tcp, icmp and port-distribution without contexts; who serves them is the agent (`/metrics`).

What counts where, as there: flows all rows; drops the rows with verdict DROPPED (a drop event and the verdict
that caused it are two); TCP flags and ports only rows with verdict FORWARDED or REDIRECTED; ports only rows
known to be no replies. Port numbers are bounded to `MAX_PORTS` pairs of protocol and port, the rest counts as
`other`.
"""

from collections import Counter
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from hubble import replies
from hubble.flowtext import icmp_text
from hubble.keycounter import KeyCounter, distinct
from palomar.drop import DropReason
from palomar.verdict import EventType, IpProtocol, ObservationPoint, Verdict

Column = npt.NDArray[Any]

MAX_PORTS = 4096
OTHER_PORT = "other"

_PROTOCOLS = ("Unknown L4", "TCP", "UDP", "ICMPv4", "ICMPv6", "SCTP", "Unknown flow")
_UNKNOWN_FLOW = 6
_PROTOCOL_CODES = {
    IpProtocol.TCP: 1,
    IpProtocol.UDP: 2,
    IpProtocol.ICMP: 3,
    IpProtocol.ICMPV6: 4,
    IpProtocol.SCTP: 5,
}
_TYPES = ("Unknown", "Drop", "Capture", "Trace", "PolicyVerdict")
_TYPE_CODES = {EventType.DROP: 1, EventType.CAPTURE: 2, EventType.TRACE: 3, EventType.POLICY_VERDICT: 4}
_TRACE_CODE = 3
_POINTS = 16
_SUBTYPE_OTHER = 15
_FIN, _SYN, _RST, _ACK = 1, 2, 4, 16
_IPV6 = 0x01

# The key of a flow: type code (3 bits), subtype (4), verdict (3), protocol code (3).
_KEY_BITS = 13


def _kind_table() -> npt.NDArray[np.uint16]:
    """By type << 8 | subtype: the upper seven bits of the key."""
    table = np.zeros(1 << 16, dtype=np.uint16)
    for kind, code in _TYPE_CODES.items():
        table[kind << 8 : (kind + 1) << 8] = code << 10
    for subtype in range(256):
        point = subtype if subtype < len(ObservationPoint) else _SUBTYPE_OTHER
        table[EventType.TRACE << 8 | subtype] |= point << 6
    return table


def _outcome_table() -> npt.NDArray[np.uint16]:
    """By verdict << 8 | protocol: the lower six bits of the key."""
    table = np.zeros(1 << 16, dtype=np.uint16)
    for verdict in range(256):
        known = verdict if verdict < 8 else 0
        table[verdict << 8 : (verdict + 1) << 8] = known << 3
        for protocol, code in _PROTOCOL_CODES.items():
            table[verdict << 8 | protocol] = known << 3 | code
    return table


def _passed_table() -> npt.NDArray[np.uint16]:
    """By verdict << 8 | protocol: the protocol's code + 1 where the verdict let the packet pass, else 0."""
    table = np.zeros(1 << 16, dtype=np.uint16)
    for verdict in (Verdict.FORWARDED, Verdict.REDIRECTED):
        table[verdict << 8 : (verdict + 1) << 8] = 1
        for protocol, code in _PROTOCOL_CODES.items():
            table[verdict << 8 | protocol] = code + 1
    return table


_KINDS = _kind_table()
_OUTCOMES = _outcome_table()
_PASSED = _passed_table()


class Rows(Protocol):
    """A block of rows next to each other in the store."""

    @property
    def columns(self) -> dict[str, Column]:
        """The hot columns."""
        ...

    @property
    def records(self) -> Column:
        """The whole records of the same rows."""
        ...


@dataclass(frozen=True, slots=True)
class FlowTotals:
    """Totals since the counters were made, in the shapes the agent is told."""

    flows_processed: list[tuple[str, str, str, str, int]]
    """(protocol, type, subtype, verdict, count)."""
    drop: list[tuple[str, str, int]]
    """(reason, protocol, count)."""
    tcp: list[tuple[str, str, int]]
    """(flag, family, count)."""
    icmp: list[tuple[str, str, int]]
    """(type, family, count)."""
    port_distribution: list[tuple[str, str, int]]
    """(protocol, port, count)."""


class FlowMetrics:
    """The counters."""

    def __init__(self) -> None:
        """All zero."""
        self._flows = np.zeros(1 << _KEY_BITS, dtype=np.int64)
        self._unknown_types: Counter[tuple[int, int]] = Counter()
        self._drops = np.zeros((256, len(_PROTOCOLS)), dtype=np.int64)
        self._tcp = np.zeros((2, 256), dtype=np.int64)
        self._icmp: Counter[tuple[int, int, int]] = Counter()
        self._ports = KeyCounter(MAX_PORTS)

    def count(self, rows: Rows) -> None:
        """Add a block. Small blocks cost more per row: hand over 8,192 and more."""
        columns = rows.columns
        kinds = _KINDS.take(replies.pair(columns["type"], columns["subtype"]))
        outcomes = replies.pair(columns["verdict"], columns["protocol"])
        keys = kinds | _OUTCOMES.take(outcomes)
        block = np.bincount(keys, minlength=1 << _KEY_BITS)
        self._flows += block
        by_protocol = block.reshape(-1, 8).sum(axis=0)
        if block[: 1 << 10].any():
            self._count_unknown_types(columns)
        if block.reshape(-1, 8, 8)[:, Verdict.DROPPED].any():
            self._count_drops(columns, keys)
        passed = _PASSED.take(outcomes)
        if by_protocol[_PROTOCOL_CODES[IpProtocol.TCP]]:
            self._count_tcp(columns, passed)
        if by_protocol[3] or by_protocol[4]:
            self._count_icmp(rows)
        self._count_ports(columns, passed)

    def _count_unknown_types(self, columns: dict[str, Column]) -> None:
        types = columns["type"]
        rows = np.flatnonzero(~np.isin(types, list(_TYPE_CODES)))
        pairs, counts = distinct(replies.pair(types[rows], columns["verdict"][rows]))
        for key, count in zip(pairs.tolist(), counts.tolist(), strict=True):
            self._unknown_types[key >> 8, key & 7] += count

    def _count_drops(self, columns: dict[str, Column], keys: Column) -> None:
        rows = np.flatnonzero(columns["verdict"] == Verdict.DROPPED)
        pairs = columns["drop_reason"][rows].astype(np.uint16) << 3 | (keys[rows] & 7)
        self._drops += np.bincount(pairs, minlength=256 * 8).reshape(256, 8)[:, : len(_PROTOCOLS)]

    def _count_tcp(self, columns: dict[str, Column], passed: Column) -> None:
        # Rows that do not count get flags 0, which name nothing.
        flags = columns["l4_flags"] * (passed == _PROTOCOL_CODES[IpProtocol.TCP] + 1)
        six = columns["flags"] & _IPV6
        if six.any():
            self._tcp[1] += np.bincount(flags * six, minlength=256)
            flags *= six ^ np.uint8(1)
        self._tcp[0] += np.bincount(flags, minlength=256)

    def _count_icmp(self, rows: Rows) -> None:
        protocol = rows.columns["protocol"]
        four = protocol == IpProtocol.ICMP
        chosen = np.flatnonzero(four | (protocol == IpProtocol.ICMPV6))
        keys = np.where(four[chosen], np.uint32(4 << 16), np.uint32(6 << 16))
        keys |= rows.columns["l4_flags"][chosen].astype(np.uint32) << 8
        keys |= rows.records["icmp_code"][chosen]
        found, counts = distinct(keys)
        for key, count in zip(found.tolist(), counts.tolist(), strict=True):
            self._icmp[key >> 16, key >> 8 & 0xFF, key & 0xFF] += count

    def _count_ports(self, columns: dict[str, Column], passed: Column) -> None:
        codes = replies.reply_codes(columns["type"], columns["trace_reason"])
        # Code + 1 of the protocol: 0 did not pass, 1 is no layer 4 we know.
        known = (codes == replies.REQUEST) & (passed > 1)
        keys = passed.astype(np.uint32) << 16 | columns["dport"]
        found, counts = distinct(keys if known.all() else keys[known])
        self._ports.add(found, counts)

    def totals(self) -> FlowTotals:
        """Return all totals that are not zero."""
        return FlowTotals(
            flows_processed=self._flow_totals(),
            drop=[
                (drop_name(int(reason)), _PROTOCOLS[code], int(self._drops[reason, code]))
                for reason, code in np.argwhere(self._drops)
            ],
            tcp=self._tcp_totals(),
            icmp=self._icmp_totals(),
            port_distribution=self._port_totals(),
        )

    def _flow_totals(self) -> list[tuple[str, str, str, str, int]]:
        totals = []
        for key in np.flatnonzero(self._flows).tolist():
            kind, point, verdict, protocol = key >> 10, key >> 6 & 15, key >> 3 & 7, key & 7
            if kind:
                subtype = _subtype_name(point) if kind == _TRACE_CODE else ""
                row = (_PROTOCOLS[protocol], _TYPES[kind], subtype, verdict_name(verdict))
                totals.append((*row, int(self._flows[key])))
        for (number, verdict), count in self._unknown_types.items():
            totals.append((_PROTOCOLS[_UNKNOWN_FLOW], _TYPES[0], str(number), verdict_name(verdict), count))
        return totals

    def _tcp_totals(self) -> list[tuple[str, str, int]]:
        flags = np.arange(256)
        of_flag = (
            ("FIN", flags & _FIN != 0),
            ("SYN", flags & (_SYN | _ACK) == _SYN),
            ("SYN-ACK", flags & (_SYN | _ACK) == _SYN | _ACK),
            ("RST", flags & _RST != 0),
        )
        totals = [
            (name, family, int(self._tcp[version][chosen].sum()))
            for name, chosen in of_flag
            for version, family in enumerate(("IPv4", "IPv6"))
        ]
        return [row for row in totals if row[2]]

    def _icmp_totals(self) -> list[tuple[str, str, int]]:
        # The field says family IPv4 for ICMPv6 too; dashboards rely on it.
        names: Counter[str] = Counter()
        for (version, kind, code), count in self._icmp.items():
            names[icmp_text(kind, code, version)] += count
        return [(name, "IPv4", count) for name, count in names.items()]

    def _port_totals(self) -> list[tuple[str, str, int]]:
        ports: Counter[tuple[str, str]] = Counter()
        for key, count in self._ports.items():
            code = (key >> 16) - 1
            has_ports = code not in (3, 4)
            ports[_PROTOCOLS[code], str(key & 0xFFFF if has_ports else 0)] += count
        totals = [(protocol, port, count) for (protocol, port), count in ports.items()]
        if self._ports.overflow:
            totals.append((OTHER_PORT, OTHER_PORT, self._ports.overflow))
        return totals


def _subtype_name(point: int) -> str:
    return ObservationPoint(point).display if point != _SUBTYPE_OTHER else "unknown"


def verdict_name(verdict: int) -> str:
    """Return the name in the flow API: `FORWARDED`, or `VERDICT_UNKNOWN`."""
    return Verdict(verdict).name if verdict else "VERDICT_UNKNOWN"


def drop_name(reason: int) -> str:
    """Return the name in the flow API: `POLICY_DENIED`, or `DROP_REASON_UNKNOWN`."""
    try:
        return DropReason(reason).name if reason else "DROP_REASON_UNKNOWN"
    except ValueError:
        return "DROP_REASON_UNKNOWN"
