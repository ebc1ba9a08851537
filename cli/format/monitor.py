"""Datapath events as the lines of `palomar monitor`: drops, traces, policy verdicts.

Pure. Input: `flow.Flow`. The forms are the field's monitor's, so what reads them keeps working. The
hash behind `flow` is ours: the same number for both directions of one connection.
"""

import zlib
from typing import Any

from cli.format import words
from palomar import drop
from palomar.verdict import ObservationPoint, PolicyMatchType
from palomar_pb.flow import flow_pb2

DROP, TRACE, POLICY_VERDICT = 1, 4, 5
SEPARATOR = "-" * 78

_TCP = ("FIN", "SYN", "RST", "PSH", "ACK", "URG", "ECE", "CWR", "NS")
_REASONS = {1: "new", 2: "established", 3: "reply", 4: "related", 5: "reopened"}
_PROTOCOL_NUMBERS = {"TCP": 6, "UDP": 17, "ICMPv4": 1, "ICMPv6": 58, "SCTP": 132, "IGMP": 2, "VRRP": 112}
_ACTIONS = {
    flow_pb2.Verdict.FORWARDED: "allow",
    flow_pb2.Verdict.REDIRECTED: "redirect",
    flow_pb2.Verdict.AUDIT: "audit",
    flow_pb2.Verdict.DROPPED: "deny",
    flow_pb2.Verdict.ERROR: "deny",
}


def flow_hash(flow: flow_pb2.Flow) -> int:
    """Return 32 bits that are equal for all packets of one connection, both ways."""
    source_port, destination_port = words.ports(flow)
    ends = sorted([f"{flow.IP.source}:{source_port}", f"{flow.IP.destination}:{destination_port}"])
    return zlib.crc32(f"{protocol(flow)} {' '.join(ends)}".encode())


def protocol(flow: flow_pb2.Flow) -> int:
    """Return the IP protocol number; 0 where it is not known."""
    return _PROTOCOL_NUMBERS.get(flow.l4.WhichOneof("protocol") or "", 0)


def connection(flow: flow_pb2.Flow) -> str:
    """Return `10.0.0.185:40912 -> 10.0.1.110:8080 tcp SYN`, for ICMP the addresses and the message."""
    source_port, destination_port = words.ports(flow)
    kind = flow.l4.WhichOneof("protocol")
    ends = (
        f"{words.with_port(flow.IP.source, source_port)}"
        f" -> {words.with_port(flow.IP.destination, destination_port)}"
    )
    if kind == "TCP":
        return f"{ends} tcp {tcp_flags(flow)}".rstrip()
    if kind in ("UDP", "SCTP"):
        return f"{ends} {kind.lower()}"
    if kind in ("ICMPv4", "ICMPv6"):
        return f"{ends} {flow.Summary.replace('ICMPv4', 'icmp').replace('ICMPv6', 'icmp')}".rstrip()
    return ends


def tcp_flags(flow: flow_pb2.Flow) -> str:
    """Return `SYN, ACK` for a TCP flow."""
    return ", ".join(name for name in _TCP if getattr(flow.l4.TCP.flags, name))


def device(flow: flow_pb2.Flow) -> str:
    """Return the interface's name, else its number, else 0."""
    return flow.interface.name or str(flow.interface.index)


def line(flow: flow_pb2.Flow) -> str:
    """Return the event's line; empty for an event that is none of the three kinds."""
    kind = flow.event_type.type
    if kind == DROP:
        return _drop(flow)
    if kind == TRACE:
        return _trace(flow)
    return _verdict(flow) if kind == POLICY_VERDICT else ""


def _drop(flow: flow_pb2.Flow) -> str:
    file = f"{flow.file.name}:{flow.file.line}" if flow.file.name else "unknown:0"
    return (
        f"xx drop ({drop.display(flow.event_type.sub_type)}) flow 0x{flow_hash(flow):x}"
        f" to endpoint {flow.destination.ID}, ifindex {device(flow)}, file {file}, ,"
        f" identity {words_identity(flow.source.identity)}->{words_identity(flow.destination.identity)}:"
        f" {connection(flow)}"
    )


def _trace(flow: flow_pb2.Flow) -> str:
    state = _REASONS.get(flow.trace_reason, "unknown")
    origin = flow.IP.source_xlated or flow.IP.source
    return (
        f"{_point(flow)} flow 0x{flow_hash(flow):x} ,"
        f" identity {words_identity(flow.source.identity)}->{words_identity(flow.destination.identity)}"
        f" state {state} ifindex {device(flow)} orig-ip {origin}: {connection(flow)}"
    )


def words_identity(number: int) -> str:
    """Return the identity as monitor lines print it: reserved ones by name."""
    return words.identity(number).strip("()").removeprefix("ID:")


def _point(flow: flow_pb2.Flow) -> str:
    try:
        point = ObservationPoint(flow.event_type.sub_type)
    except ValueError:
        return f"-> {flow.event_type.sub_type}"
    way, _, what = point.display.partition("-")
    arrow = "->" if way == "to" else "<-"
    if point is ObservationPoint.TO_ENDPOINT:
        return f"{arrow} endpoint {flow.destination.ID}"
    if point is ObservationPoint.FROM_ENDPOINT:
        return f"{arrow} endpoint {flow.source.ID}"
    if point is ObservationPoint.TO_PROXY and flow.proxy_port:
        return f"{arrow} proxy port {flow.proxy_port}"
    return f"{arrow} host from" if point is ObservationPoint.TO_HOST else f"{arrow} {what}"


def _verdict(flow: flow_pb2.Flow) -> str:
    egress = flow.traffic_direction == flow_pb2.TrafficDirection.EGRESS
    local, remote = (flow.source, flow.destination) if egress else (flow.destination, flow.source)
    try:
        match = PolicyMatchType(flow.policy_match_type).display
    except ValueError:
        match = str(flow.policy_match_type)
    return (
        f"Policy verdict log: flow 0x{flow_hash(flow):x} local EP ID {local.ID},"
        f" remote ID {words_identity(remote.identity)}, proto {protocol(flow)},"
        f" {'egress' if egress else 'ingress'}, action {_ACTIONS.get(flow.verdict, 'unknown')},"
        f" auth: disabled, match {match}, {connection(flow)}"
    )


def details(flow: flow_pb2.Flow) -> list[str]:
    """Return the lines `-v` adds below an event: CPU, sequence, length, counters, policy, labels."""
    carried = words.extension(flow)
    text = []
    if carried is not None:
        facts = [f"CPU {carried.cpu:02d}", f"SEQ {carried.sequence}", f"{carried.length} bytes"]
        if words.counters(carried):
            facts.append(f"flow so far: {words.counters(carried)}")
        if carried.tunnel_peer:
            facts.append(f"tunnel peer {carried.tunnel_peer}")
        text.append(", ".join(facts))
    if flow.HasField("ethernet"):
        text.append(f"Ethernet {flow.ethernet.source} -> {flow.ethernet.destination}")
    for name, endpoint in (("source", flow.source), ("destination", flow.destination)):
        if endpoint.labels:
            text.append(f"{name} {' '.join(endpoint.labels)}")
    reason = words.explain(flow)
    if reason:
        text.append(reason)
    return [f"  {part}" for part in text]


def tree(flow: flow_pb2.Flow) -> dict[str, Any]:
    """Return the event as one JSON object, whatever its kind."""
    kind = flow.event_type.type
    source_port, destination_port = words.ports(flow)
    named = {DROP: "drop", TRACE: "trace", POLICY_VERDICT: "policy-verdict"}
    facts: dict[str, Any] = {
        "type": named.get(kind, str(kind)),
        "time": flow.time.ToJsonString(),
        "mark": f"0x{flow_hash(flow):x}",
        "ifindex": device(flow),
        "source": flow.source.ID,
        "srcLabel": flow.source.identity,
        "dstLabel": flow.destination.identity,
        "dstID": flow.destination.ID,
        "summary": {
            "l3": {"src": flow.IP.source, "dst": flow.IP.destination},
            "l4": {"src": source_port, "dst": destination_port, "proto": protocol(flow)},
            "text": connection(flow),
        },
    }
    if kind == DROP:
        facts["reason"] = drop.display(flow.event_type.sub_type)
        facts["file"] = flow.file.name
        facts["line"] = flow.file.line
    elif kind == TRACE:
        facts["observationPoint"] = words.event_type(flow)
        facts["state"] = _REASONS.get(flow.trace_reason, "unknown")
    elif kind == POLICY_VERDICT:
        facts["action"] = _ACTIONS.get(flow.verdict, "unknown")
        facts["direction"] = flow_pb2.TrafficDirection.Name(flow.traffic_direction).lower()
        facts["match"] = words.event_type(flow).removeprefix("policy-verdict:").partition(" ")[0]
    return facts
