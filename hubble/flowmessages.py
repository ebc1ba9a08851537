"""Parts of a `flow.Flow` as messages: what each part says, without any thought of speed.

Pure. Input: numbers of a stored record and names; output: protobuf messages with only that part set.
The rules are Hubble's; what it leaves out and we say: `*_denied_by` also on drop events, `*_allowed_by` also
on traces, and in our extension the rule that decided, or the policies whose default deny did.
`hubble.flowbuilder` encodes each part once and joins the bytes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import Any, Self

from hubble.flowendpoint import FlowEndpoint
from hubble.flowtext import TCP_FLAG_BITS, summary
from hubble.names import PolicyName
from hubble.observingnode import ObservingNode
from hubble.rows import REASON_MASK, reply_state
from palomar.drop import DropReason
from palomar.verdict import (
    EventType,
    IpProtocol,
    ObservationPoint,
    TraceReason,
    TrafficDirection,
    Verdict,
)
from palomar_pb.flow import flow_pb2
from palomar_pb.palomar.v1 import flow_ext_pb2

_POINTS = {int(point): point.flow_number for point in ObservationPoint}
_REASONS = {int(reason): reason.flow_number for reason in TraceReason}
_IP_NUMBERS = {0: flow_pb2.IP_NOT_USED, 4: flow_pb2.IPv4, 6: flow_pb2.IPv6}


IPV4 = 4


@dataclass(frozen=True, slots=True)
class Kind:
    """What a record's event is; everything in a flow that neither names nor addresses decide."""

    type: int
    subtype: int
    verdict: int
    direction: int
    drop_reason: int
    trace_reason: int
    match_type: int
    protocol: int
    l4_flags: int
    icmp_code: int
    ip_version: int
    """4, 6, or 0 for a packet without an IP header."""


@dataclass(frozen=True, slots=True)
class Decision:
    """What of a record says how a policy took part."""

    direction: int
    """Of the connection, which policy was asked about."""
    verdict: int
    drop_reason: int

    @classmethod
    def unpack(cls, key: int) -> Self:
        """Read the lower half of one of `hubble.flowbatch.Batch.policy_keys`."""
        return cls(direction=key >> 16 & 0xFF, verdict=key >> 8 & 0xFF, drop_reason=key & 0xFF)


def _known(numbers: Any, value: int) -> Any:
    """`value` when `numbers` (a protobuf enum) has it, else its default 0."""
    return value if value in numbers.values() else 0


def kind_flow(kind: Kind, node: ObservingNode) -> flow_pb2.Flow:
    """The part of a flow that follows from its kind and its node."""
    flow = flow_pb2.Flow(
        Type=flow_pb2.L3_L4,
        node_name=node.name,
        node_labels=node.labels,
        verdict=_known(flow_pb2.Verdict, kind.verdict),
        drop_reason=kind.drop_reason,
        drop_reason_desc=_known(flow_pb2.DropReason, kind.drop_reason),
        event_type=flow_pb2.CiliumEventType(type=kind.type, sub_type=kind.subtype),
        traffic_direction=_known(flow_pb2.TrafficDirection, kind.direction),
        Summary=summary(kind.protocol, kind.l4_flags, kind.icmp_code, kind.ip_version),
    )
    if kind.type == EventType.POLICY_VERDICT:
        flow.policy_match_type = kind.match_type
    if kind.type == EventType.TRACE:
        point, reason = kind.subtype, kind.trace_reason & REASON_MASK
        if point in _POINTS:
            flow.trace_observation_point = _known(flow_pb2.TraceObservationPoint, _POINTS[point])
        flow.trace_reason = _known(flow_pb2.TraceReason, _REASONS.get(reason, reason))
    reply = reply_state(kind.type, kind.trace_reason, kind.verdict)
    if reply is not None:
        flow.is_reply.value = reply
        flow.reply = reply
    return flow


def ip_message(version: int, source: bytes, destination: bytes) -> flow_pb2.IP:
    """The IP part; addresses as stored, in network order, 16 octets of which IPv4 uses the first four."""
    if version == IPV4:
        texts = str(IPv4Address(source[:4])), str(IPv4Address(destination[:4]))
    else:
        texts = str(IPv6Address(source)), str(IPv6Address(destination))
    return flow_pb2.IP(source=texts[0], destination=texts[1], ipVersion=_IP_NUMBERS[version])


def l4_message(protocol: int, sport: int, dport: int, l4_flags: int, icmp_code: int) -> flow_pb2.Layer4:
    """The l4 part; empty for a protocol the flow API has no message for."""
    match protocol:
        case IpProtocol.TCP:
            flags = {name: True for name, bit in TCP_FLAG_BITS.items() if l4_flags & bit}
            header = flow_pb2.TCP(source_port=sport, destination_port=dport, flags=flow_pb2.TCPFlags(**flags))
            return flow_pb2.Layer4(TCP=header)
        case IpProtocol.UDP:
            return flow_pb2.Layer4(UDP=flow_pb2.UDP(source_port=sport, destination_port=dport))
        case IpProtocol.SCTP:
            return flow_pb2.Layer4(SCTP=flow_pb2.SCTP(source_port=sport, destination_port=dport))
        case IpProtocol.ICMP:
            return flow_pb2.Layer4(ICMPv4=flow_pb2.ICMPv4(type=l4_flags, code=icmp_code))
        case IpProtocol.ICMPV6:
            return flow_pb2.Layer4(ICMPv6=flow_pb2.ICMPv6(type=l4_flags, code=icmp_code))
        case 2:
            return flow_pb2.Layer4(IGMP=flow_pb2.IGMP())
        case 112:
            return flow_pb2.Layer4(VRRP=flow_pb2.VRRP())
        case _:
            return flow_pb2.Layer4()


def ethernet_message(source: bytes, destination: bytes) -> flow_pb2.Ethernet:
    """The ethernet part, from two MAC addresses."""
    return flow_pb2.Ethernet(source=source.hex(":"), destination=destination.hex(":"))


def endpoint_message(endpoint: FlowEndpoint) -> flow_pb2.Endpoint:
    """One side of a flow."""
    return flow_pb2.Endpoint(
        ID=endpoint.endpoint_id,
        identity=endpoint.identity,
        cluster_name=endpoint.cluster,
        namespace=endpoint.namespace,
        labels=endpoint.labels,
        pod_name=endpoint.pod,
        workloads=[flow_pb2.Workload(name=w.name, kind=w.kind) for w in endpoint.workloads],
    )


def policy_message(policy: PolicyName) -> flow_pb2.Policy:
    """A policy that took part in a verdict."""
    return flow_pb2.Policy(
        name=policy.name,
        namespace=policy.namespace,
        labels=policy.labels,
        revision=policy.revision,
        kind=policy.kind,
    )


def policies_flow(decision: Decision, policies: Sequence[PolicyName]) -> flow_pb2.Flow:
    """The `*_allowed_by` and `*_denied_by` of a flow.

    A default deny has no entry that denied: the policies that cause it go to the extension.
    """
    flow = flow_pb2.Flow()
    if decision.drop_reason == DropReason.POLICY_DENIED:
        return flow
    messages = [policy_message(policy) for policy in policies]
    denied = decision.verdict == Verdict.DROPPED
    if decision.direction == TrafficDirection.EGRESS:
        (flow.egress_denied_by if denied else flow.egress_allowed_by).extend(messages)
    elif decision.direction == TrafficDirection.INGRESS:
        (flow.ingress_denied_by if denied else flow.ingress_allowed_by).extend(messages)
    return flow


def policies_extension(decision: Decision, policies: Sequence[PolicyName]) -> flow_ext_pb2.FlowExtension:
    """The rule that decided, or who denies by default."""
    if decision.drop_reason == DropReason.POLICY_DENIED:
        return flow_ext_pb2.FlowExtension(default_deny_by=[policy_message(p) for p in policies])
    rules = dict.fromkeys(policy.rule for policy in policies if policy.rule)
    return flow_ext_pb2.FlowExtension(policy_rule=", ".join(rules))
