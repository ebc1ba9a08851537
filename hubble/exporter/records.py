"""Stored rows and names in, OTLP log records out, encoded.

Pure. Input: rows of the flow store; output: one serialised opentelemetry LogRecord per row. What repeats
(kind of event, endpoints, addresses, policies, ports) is encoded once and joined as bytes, as
`hubble.flowbuilder` does for flows: building the same record from the SDK's objects costs about ten times
as much (docs/otlp.md).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address

import numpy as np

from hubble import flowuuid
from hubble.exporter import attributes as otel
from hubble.flowbatch import Batch, Indices, unpack_kind
from hubble.flowbuilder import CACHE_LIMIT, NO_RULE, FlowNames, Parts
from hubble.flowendpoint import FlowEndpoint, resolve
from hubble.flowmessages import Decision, Kind
from hubble.flowmetrics import drop_name, verdict_name
from hubble.flowtext import summary, tcp_flags_text
from hubble.flowuuid import StoreId
from hubble.names import PolicyName
from hubble.rows import REASON_MASK, Rows, reply_state
from hubble.wirebytes import delimited, number, tag
from palomar import drop
from palomar.drop import DropReason
from palomar.verdict import (
    EventType,
    IpProtocol,
    ObservationPoint,
    PolicyMatchType,
    TraceReason,
    TrafficDirection,
    Verdict,
)

EVENT_NAME = "palomar.flow"
# LogRecord's fields: fixed64 (wire type 1) for the times.
_TIME, _OBSERVED = bytes((1 << 3 | 1,)), bytes((11 << 3 | 1,))
_SEVERITY, _SEVERITY_TEXT = tag(2, delimited=False), tag(3, delimited=True)
_BODY, _EVENT_NAME = tag(5, delimited=True), tag(12, delimited=True)

INFO, WARN, ERROR = (9, "INFO"), (13, "WARN"), (17, "ERROR")
SEVERITY = {
    Verdict.DROPPED: WARN,
    Verdict.AUDIT: WARN,
    Verdict.ERROR: ERROR,
}
"""By verdict; all others are INFO. A refused packet is policy at work, so not an error."""
TRANSPORTS: dict[int, str] = {
    IpProtocol.TCP: "tcp",
    IpProtocol.UDP: "udp",
    IpProtocol.ICMP: "icmp",
    IpProtocol.ICMPV6: "icmpv6",
    IpProtocol.SCTP: "sctp",
}
_DIRECTIONS = {
    TrafficDirection.INGRESS: ("ingress", "receive", "transmit"),
    TrafficDirection.EGRESS: ("egress", "transmit", "receive"),
}
"""By the connection's direction: our word, and that of `network.io.direction` for requests and replies."""
_TYPES: dict[int, str] = {
    EventType.DROP: "Drop",
    EventType.TRACE: "Trace",
    EventType.POLICY_VERDICT: "PolicyVerdict",
    EventType.CAPTURE: "Capture",
}
_ICMP = (IpProtocol.ICMP, IpProtocol.ICMPV6)


@dataclass(frozen=True, slots=True)
class _KindPart:
    """What follows from the kind of event."""

    head: bytes
    """Everything but the body."""
    body: bytes
    """The end of the body: what happened."""


class RecordBuilder:
    """Encodes rows of one store; keeps the parts it has made."""

    def __init__(self, names: FlowNames, store_id: int) -> None:
        """`names` is asked once per reference, cookie and interface that it knows."""
        self._names = names
        self._uuid = otel.FixedText(otel.FLOW_UUID, flowuuid.LENGTH)
        self._uuid_head = self._uuid.head + flowuuid.prefix(StoreId(store_id)).encode()
        self._body_heads = otel.TextHeads(_BODY)
        self._kinds: dict[int, _KindPart] = {}
        self._addresses = Parts[bytes](self._make_addresses)
        self._sources = Parts[int](lambda key: self._make_side("source", key))
        self._destinations = Parts[int](lambda key: self._make_side("destination", key))
        self._called = Parts[int](self._make_called)
        self._interfaces = Parts[int](self._make_interface)
        self._policies = Parts[int](self._make_policies)
        self._numbers = {
            key: otel.Numbers(key)
            for key in (
                otel.SOURCE_PORT,
                otel.DESTINATION_PORT,
                otel.FLOW_PACKETS,
                otel.FLOW_BYTES,
                otel.PACKET_SIZE,
                otel.RTT,
            )
        }

    def forget_names(self) -> None:
        """Names were said again: encode them anew."""
        for parts in (self._sources, self._destinations, self._called, self._interfaces, self._policies):
            parts.clear()

    def records(self, rows: Rows, indices: Indices, observed_ns: int) -> list[bytes]:
        """Return the serialised LogRecords of the rows at `indices`; `observed_ns` is now."""
        batch = Batch(rows, indices)
        observed = _OBSERVED + observed_ns.to_bytes(8, "little")
        times = batch.column("time_ns").astype("<u8").tobytes()
        kinds = [self._kind(key) for key in batch.kinds.tolist()]
        source_keys, destination_keys = batch.endpoint_keys("src"), batch.endpoint_keys("dst")
        parts = zip(
            kinds,
            self._bodies(batch, kinds, source_keys.tolist(), destination_keys.tolist()),
            [self._addresses[key] for key in batch.address_keys()],
            self._counted(otel.SOURCE_PORT, batch.column("sport").tolist()),
            self._counted(otel.DESTINATION_PORT, batch.column("dport").tolist()),
            self._sources.of(source_keys),
            self._destinations.of(destination_keys),
            self._interfaces.of(batch.column("ifindex")),
            self._policies.of(batch.policy_keys),
            [self._uuid_head + flowuuid.tail(position) for position in batch.positions.tolist()],
            *self._counters(batch),
            strict=True,
        )
        return [
            b"".join((_TIME, times[at * 8 : at * 8 + 8], observed, kind.head, *rest))
            for at, (kind, *rest) in enumerate(parts)
        ]

    def _counted(self, key: str, values: list[int]) -> list[bytes]:
        numbers = self._numbers[key]
        return [numbers[value] for value in values]

    def _counters(self, batch: Batch) -> list[list[bytes]]:
        has_macs = batch.has_macs
        return [
            self._counted(key, np.where(has_macs & is_overlaid, 0, batch.column(column)).tolist())
            for key, column, is_overlaid in (
                # MAC addresses of drops lie over these two.
                (otel.FLOW_PACKETS, "packets", True),
                (otel.FLOW_BYTES, "bytes", True),
                (otel.PACKET_SIZE, "length", False),
                (otel.RTT, "rtt_us", False),
            )
        ]

    def _bodies(
        self, batch: Batch, kinds: list[_KindPart], sources: list[int], destinations: list[int]
    ) -> list[bytes]:
        """`demo/web-1:40912 -> demo/db-1:5432 to-endpoint FORWARDED (TCP Flags: SYN)`."""
        called, heads = self._called, self._body_heads
        addresses = batch.address_keys()
        bodies = []
        for kind, source, destination, address, sport, dport in zip(
            kinds,
            sources,
            destinations,
            addresses,
            batch.column("sport").tolist(),
            batch.column("dport").tolist(),
            strict=True,
        ):
            left = called[source] or _address_text(address[0], address[1:17]).encode()
            right = called[destination] or _address_text(address[0], address[17:33]).encode()
            if sport or dport:
                text = b"%b:%d -> %b:%d %b" % (left, sport, right, dport, kind.body)
            else:
                text = b"%b -> %b %b" % (left, right, kind.body)
            bodies.append(heads[len(text)] + text)
        return bodies

    # Parts that are made once and kept

    def _kind(self, key: int) -> _KindPart:
        part = self._kinds.get(key)
        if part is None:
            part = _kind_part(unpack_kind(key))
            if len(self._kinds) >= CACHE_LIMIT:
                self._kinds.clear()
            self._kinds[key] = part
        return part

    def _make_addresses(self, key: bytes) -> tuple[bytes, bool]:
        version = key[0]
        if not version:
            return b"", True
        return b"".join(
            (
                otel.text(otel.SOURCE_ADDRESS, _address_text(version, key[1:17])),
                otel.text(otel.DESTINATION_ADDRESS, _address_text(version, key[17:33])),
            )
        ), True

    def _endpoint(self, key: int) -> tuple[FlowEndpoint, bool]:
        return resolve(self._names, key >> 32, key & 0xFFFFFFFF)

    def _make_side(self, side: str, key: int) -> tuple[bytes, bool]:
        endpoint, final = self._endpoint(key)
        parts = [
            otel.text(f"{side}.{otel.K8S_CLUSTER_NAME}", endpoint.cluster),
            otel.text(f"{side}.{otel.K8S_NAMESPACE_NAME}", endpoint.namespace),
            otel.text(f"{side}.{otel.K8S_POD_NAME}", endpoint.pod),
            otel.number(f"{side}.{otel.IDENTITY}", endpoint.identity),
            otel.texts(f"{side}.{otel.LABELS}", endpoint.labels),
        ]
        # Only the first of a kind: an attribute's name must not come twice.
        workloads = {
            otel.WORKLOAD_NAMES.get(workload.kind, otel.OTHER_WORKLOAD): workload.name
            for workload in reversed(endpoint.workloads)
        }
        parts += [otel.text(f"{side}.{key}", name) for key, name in workloads.items()]
        return b"".join(parts), final

    def _make_called(self, key: int) -> tuple[bytes, bool]:
        endpoint, final = self._endpoint(key)
        name = f"{endpoint.namespace}/{endpoint.pod}" if endpoint.namespace else endpoint.pod
        return otel.utf8(name if endpoint.pod else ""), final

    def _make_interface(self, index: int) -> tuple[bytes, bool]:
        name = self._names.interface(index) if index else ""
        return otel.text(otel.NETWORK_INTERFACE_NAME, name or ""), name is not None

    def _make_policies(self, key: int) -> tuple[bytes, bool]:
        cookie = key >> 32
        found = self._names.policy(cookie) if cookie else NO_RULE
        decision = Decision.unpack(key)
        policies = found.policies if found else ()
        return _policy_part(decision, policies), found is not None


def _address_text(version: int, stored: bytes) -> str:
    if not version:
        return "?"
    return str(IPv6Address(stored) if version == 6 else IPv4Address(stored[:4]))


def _policy_part(decision: Decision, policies: Sequence[PolicyName]) -> bytes:
    names = [f"{policy.namespace}/{policy.name}" if policy.namespace else policy.name for policy in policies]
    if decision.drop_reason == DropReason.POLICY_DENIED:
        return otel.texts(otel.DEFAULT_DENY_BY, names)
    rules = dict.fromkeys(policy.rule for policy in policies if policy.rule)
    return otel.texts(otel.POLICY_NAMES, names) + otel.text(otel.POLICY_RULE, ", ".join(rules))


def _kind_part(kind: Kind) -> _KindPart:
    verdict = verdict_name(kind.verdict if kind.verdict in Verdict._value2member_map_ else 0)
    severity, severity_text = SEVERITY.get(Verdict(kind.verdict), INFO) if kind.verdict < 8 else INFO
    parts = [
        number(_SEVERITY, severity),
        delimited(_SEVERITY_TEXT, severity_text.encode()),
        delimited(_EVENT_NAME, EVENT_NAME.encode()),
        otel.text(otel.VERDICT, verdict),
        otel.text(otel.EVENT_TYPE, _TYPES.get(kind.type, str(kind.type)) if kind.type else "Unknown"),
    ]
    if kind.ip_version:
        parts += [
            otel.text(otel.NETWORK_TYPE, f"ipv{kind.ip_version}"),
            otel.text(otel.NETWORK_TRANSPORT, TRANSPORTS.get(kind.protocol, "")),
        ]
        parts += _protocol_parts(kind)
    reply = reply_state(kind.type, kind.trace_reason, kind.verdict)
    if kind.direction in _DIRECTIONS:
        word, *ways = _DIRECTIONS[TrafficDirection(kind.direction)]
        parts += [otel.text(otel.DIRECTION, word), otel.text(otel.NETWORK_IO_DIRECTION, ways[bool(reply)])]
    where, more = _where(kind)
    if reply is not None:
        more += otel.flag(otel.IS_REPLY, reply)
    words = summary(kind.protocol, kind.l4_flags, kind.icmp_code, kind.ip_version)
    body = f"{where} {verdict} ({words})" if where else f"{verdict} ({words})"
    return _KindPart(b"".join((*parts, more)), body.encode())


def _protocol_parts(kind: Kind) -> list[bytes]:
    if kind.protocol == IpProtocol.TCP:
        return [otel.text(otel.TCP_FLAGS, tcp_flags_text(kind.l4_flags))]
    if kind.protocol in _ICMP:
        return [otel.number(otel.ICMP_TYPE, kind.l4_flags), otel.number(otel.ICMP_CODE, kind.icmp_code)]
    return []


def _where(kind: Kind) -> tuple[str, bytes]:
    """The observation point, or what else there is to say of this type; and the attributes for it."""
    reason = b""
    if kind.drop_reason:
        reason = otel.text(otel.DROP_REASON, drop_name(kind.drop_reason)) + otel.text(
            otel.DROP_REASON_TEXT, drop.display(kind.drop_reason)
        )
    match kind.type:
        case EventType.TRACE:
            known = kind.subtype < len(ObservationPoint)
            point = ObservationPoint(kind.subtype).display if known else "unknown"
            why = kind.trace_reason & REASON_MASK
            name = TraceReason(why).name.lower() if why < len(TraceReason) else "unknown"
            return point, reason + otel.text(otel.OBSERVATION_POINT, point) + otel.text(
                otel.TRACE_REASON, name
            )
        case EventType.POLICY_VERDICT:
            known = kind.match_type < len(PolicyMatchType)
            match = PolicyMatchType(kind.match_type).display.lower() if known else str(kind.match_type)
            return f"policy-verdict:{match}", reason + otel.text(otel.POLICY_MATCH, match)
        case EventType.DROP:
            return drop.display(kind.drop_reason), reason
        case _:
            return "", reason
