"""The words of a flow line: who talks to whom, what kind of event, what verdict, and why.

Pure functions of `flow.Flow`. Not lines: `cli.format.flows` puts the words together. The texts are
the field's (`to-endpoint`, `policy-verdict:L3-L4 INGRESS`, `DENIED`), so that scripts written for
them keep working; `explain` is ours.
"""

from collections.abc import Sequence
from functools import lru_cache

from palomar import drop
from palomar.identity import reserved_name
from palomar.verdict import ObservationPoint, PolicyMatchType
from palomar_pb.flow import flow_pb2
from palomar_pb.palomar.v1 import flow_ext_pb2

_DROP, _CAPTURE, _TRACE, _POLICY_VERDICT, _TRACE_SOCK, _L7 = 1, 3, 4, 5, 7, 129

_POINTS = {int(point): point.display for point in ObservationPoint}
_MATCHES = {int(match): match.display for match in PolicyMatchType}
_SOCK_POINTS = {1: "pre-xlate-fwd", 2: "post-xlate-fwd", 3: "pre-xlate-rev", 4: "post-xlate-rev"}
_VERDICTS = {number: name for name, number in flow_pb2.Verdict.items()}
_DIRECTIONS = {number: name for name, number in flow_pb2.TrafficDirection.items()}
_AUTH_TYPES = {number: name for name, number in flow_pb2.AuthType.items()}
_L7_TYPES = {1: "request", 2: "response", 3: "sample"}
_POLICY_VERDICTS = {
    flow_pb2.Verdict.FORWARDED: "ALLOWED",
    flow_pb2.Verdict.REDIRECTED: "ALLOWED",
    flow_pb2.Verdict.DROPPED: "DENIED",
    flow_pb2.Verdict.ERROR: "DENIED",
    flow_pb2.Verdict.AUDIT: "AUDITED",
}


def ports(flow: flow_pb2.Flow) -> tuple[int, int]:
    """Return source and destination port, 0 where the protocol has none."""
    kind = flow.l4.WhichOneof("protocol")
    if kind == "TCP":
        return flow.l4.TCP.source_port, flow.l4.TCP.destination_port
    if kind == "UDP":
        return flow.l4.UDP.source_port, flow.l4.UDP.destination_port
    if kind == "SCTP":
        return flow.l4.SCTP.source_port, flow.l4.SCTP.destination_port
    return 0, 0


def host(
    address: str,
    endpoint: flow_pb2.Endpoint,
    service: flow_pb2.Service,
    names: Sequence[str],
    translate: bool,
) -> str:
    """Return pod `ns/name`, else service `ns/name`, else DNS names, else the address."""
    if translate:
        if endpoint.pod_name:
            return f"{endpoint.namespace}/{endpoint.pod_name}" if endpoint.namespace else endpoint.pod_name
        if service.name:
            return f"{service.namespace}/{service.name}" if service.namespace else service.name
        if names:
            return ",".join(names)
    return address


def with_port(name: str, port: int) -> str:
    """`name:port`, `[fd00::1]:port` for an IPv6 address, `name` alone for port 0."""
    if not port:
        return name
    return f"[{name}]:{port}" if name.count(":") > 1 and "/" not in name else f"{name}:{port}"


@lru_cache(maxsize=4096)
def identity(number: int) -> str:
    """`(ID:48291)`, `(world)` for a reserved identity, `(unknown)` for 0."""
    name = reserved_name(number)
    return f"(ID:{number})" if name is None else f"({name})"


def event_type(flow: flow_pb2.Flow) -> str:
    """Return the TYPE column: observation point, drop reason, policy-verdict:..., http-request, ..."""
    kind, sub_type = flow.event_type.type, flow.event_type.sub_type
    if kind == _TRACE:
        return _POINTS.get(sub_type, str(sub_type))
    if kind == _DROP:
        return drop.display(sub_type)
    if kind == _POLICY_VERDICT:
        match = _MATCHES.get(flow.policy_match_type, str(flow.policy_match_type))
        return f"policy-verdict:{match} {_DIRECTIONS.get(flow.traffic_direction, '')}"
    if kind == _L7:
        return _l7_type(flow.l7)
    if kind == _CAPTURE:
        point = flow.debug_capture_point
        return flow_pb2.DebugCapturePoint.Name(point) if point else "UNKNOWN"
    if kind == _TRACE_SOCK:
        return _SOCK_POINTS.get(flow.sock_xlate_point, "UNKNOWN")
    return "UNKNOWN"


def _l7_type(record: flow_pb2.Layer7) -> str:
    protocol = record.WhichOneof("record") or "l7"
    text = f"{protocol}-{_L7_TYPES.get(record.type, 'unknown')}"
    if protocol == "dns" and record.dns.observation_source:
        return f"{text} {record.dns.observation_source}"
    return text


def verdict(flow: flow_pb2.Flow) -> str:
    """Return the VERDICT column without policy names."""
    if flow.event_type.type == _POLICY_VERDICT:
        special = _POLICY_VERDICTS.get(flow.verdict)
        if special is not None:
            return special
    return _VERDICTS.get(flow.verdict, str(flow.verdict))


def summary(flow: flow_pb2.Flow) -> str:
    """Return the SUMMARY column: the flow's own words with its IP trace id and its authentication."""
    text = flow.Summary
    if flow.ip_trace_id.trace_id:
        text = f"IP Trace ID: {flow.ip_trace_id.trace_id}; {text}"
    if flow.auth_type:
        text = f"{text}; {_AUTH_TYPES.get(flow.auth_type, flow.auth_type)}"
    return text


def deciding_policies(flow: flow_pb2.Flow) -> Sequence[flow_pb2.Policy]:
    """Return the policies that allowed or denied this flow in its direction."""
    if flow.traffic_direction == flow_pb2.TrafficDirection.EGRESS:
        return flow.egress_denied_by or flow.egress_allowed_by
    if flow.traffic_direction == flow_pb2.TrafficDirection.INGRESS:
        return flow.ingress_denied_by or flow.ingress_allowed_by
    return ()


def policy_names(policies: Sequence[flow_pb2.Policy]) -> str:
    """`allow-web (CiliumNetworkPolicy), deny-x (...)`: the field's form, without namespaces."""
    return ", ".join(f"{policy.name} ({policy.kind})" if policy.kind else policy.name for policy in policies)


def extension(flow: flow_pb2.Flow) -> flow_ext_pb2.FlowExtension | None:
    """Return what this flow carries beyond the public API; None where it carries nothing."""
    carried = flow_ext_pb2.FlowExtension()
    if flow.HasField("extensions") and flow.extensions.Unpack(carried):
        return carried
    return None


def is_refused(flow: flow_pb2.Flow) -> bool:
    """Tell whether the packet was dropped or its policy verdict was a denial."""
    return flow.verdict in (flow_pb2.Verdict.DROPPED, flow_pb2.Verdict.ERROR)


_FOR_POLICY = (flow_pb2.DropReason.POLICY_DENIED, flow_pb2.DropReason.POLICY_DENY)


def explain(flow: flow_pb2.Flow) -> str:
    """Say who refused a refused flow, and where; empty for any other flow.

    `BY demo/deny-x (CiliumNetworkPolicy) ingressDeny[0] on default/node-1` where a rule denied it,
    `BY default deny of demo/allow-web (CiliumNetworkPolicy) on ...` where nothing allowed it, and
    `on default/node-1` alone where no policy was involved.
    """
    if not is_refused(flow):
        return ""
    where = f"on {flow.node_name}" if flow.node_name else ""
    carried = extension(flow)
    rule = carried.policy_rule if carried is not None else ""
    named = deciding_policies(flow)
    if named:
        reason = f"BY {_full_names(named)}{f' {rule}' if rule else ''}"
    elif carried is not None and carried.default_deny_by:
        reason = f"BY default deny of {_full_names(carried.default_deny_by)}"
    elif flow.drop_reason_desc in _FOR_POLICY:
        reason = "BY default deny"
    else:
        reason = ""
    return " ".join(part for part in (reason, where) if part)


def _full_names(policies: Sequence[flow_pb2.Policy]) -> str:
    return ", ".join(
        f"{f'{policy.namespace}/' if policy.namespace else ''}{policy.name}"
        f"{f' ({policy.kind})' if policy.kind else ''}"
        for policy in policies
    )


def counters(carried: flow_ext_pb2.FlowExtension | None) -> str:
    """`12 packets, 3456 bytes, rtt 0.21 ms`: what is known of the flow so far; empty otherwise."""
    if carried is None:
        return ""
    parts = []
    if carried.packets:
        parts.append(f"{carried.packets} packets")
    if carried.bytes:
        parts.append(f"{carried.bytes} bytes")
    if carried.rtt_us:
        parts.append(f"rtt {carried.rtt_us / 1000:.2f} ms")
    return ", ".join(parts)
