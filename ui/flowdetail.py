"""One flow in words: why it was let through or not, and every fact the page lists.

Pure. Input: `flow.Flow` with our `FlowExtension`; output: sentences and name-value pairs. Not here: how they
look (`ui.panel`).
"""

from collections.abc import Sequence
from dataclasses import dataclass

from palomar.verdict import PolicyMatchType
from palomar_pb.flow import flow_pb2
from ui import units
from ui.flowrow import (
    VerdictClass,
    deciding_policies,
    drop_reason,
    extension_of,
    observed_at,
    policy_name,
    ports,
    tcp_flags,
    verdict_class,
)

NAMED_POLICIES = 3


@dataclass(frozen=True, slots=True)
class Fact:
    """A name and a value; an empty value is not shown."""

    name: str
    value: str


@dataclass(frozen=True, slots=True)
class PolicyLine:
    """A policy that took part."""

    name: str
    """`shop/store-from-api`."""
    kind: str
    """`CiliumNetworkPolicy, revision 3`."""


@dataclass(frozen=True, slots=True)
class Decision:
    """Why a flow had its verdict."""

    sentence: str
    policies: Sequence[PolicyLine]
    rule: str
    """`ingress[0].toPorts[0]`; empty where no single rule decided."""


def decision(flow: flow_pb2.Flow) -> Decision:
    """Say who decided; honest where the flow does not tell."""
    extension = extension_of(flow)
    word, policies = deciding_policies(flow)
    lines = [_policy_line(policy) for policy in policies]
    if policies:
        side, verb = word.split(" ")
        plural = "these policies" if len(policies) > 1 else "this policy"
        return Decision(f"{side.capitalize()} was {verb} by {plural}.", lines, extension.policy_rule)
    if extension.default_deny_by:
        lines = [_policy_line(policy) for policy in extension.default_deny_by]
        selects = "These policies select" if len(lines) > 1 else "This policy selects"
        side = _direction(flow)
        sentence = f"No rule allows it. {selects} the endpoint, so {side} is denied unless a rule allows it."
        return Decision(sentence, lines, extension.policy_rule)
    reason = drop_reason(flow)
    if verdict_class(flow) is VerdictClass.DROPPED:
        return Decision(f"Dropped by the datapath: {reason or 'no reason given'}.", [], extension.policy_rule)
    if verdict_class(flow) is VerdictClass.AUDIT:
        return Decision("Policy would deny it; audit mode let it through.", [], extension.policy_rule)
    if flow.event_type.type == 5:
        return Decision(
            "Allowed; no policy restricts this direction of the endpoint.", [], extension.policy_rule
        )
    return Decision(
        "Forwarded. Its connection was allowed at its first packet; see that policy verdict.",
        [],
        extension.policy_rule,
    )


def decision_line(flow: flow_pb2.Flow) -> str:
    """Say who decided in one line, for titles: `Ingress denied by shop/api-from-web, rule ingressDeny[0]`."""
    extension = extension_of(flow)
    word, policies = deciding_policies(flow)
    if policies:
        line = f"{word.capitalize()} by {_names(policies)}"
    elif extension.default_deny_by:
        line = f"No rule allows it: default deny by {_names(extension.default_deny_by)}"
    else:
        return decision(flow).sentence
    return f"{line}, rule {extension.policy_rule}" if extension.policy_rule else line


def _names(policies: Sequence[flow_pb2.Policy]) -> str:
    more = len(policies) - NAMED_POLICIES
    named = ", ".join(policy_name(policy) for policy in policies[:NAMED_POLICIES])
    return f"{named} and {more} more" if more > 0 else named


def flow_facts(
    flow: flow_pb2.Flow,
) -> list[tuple[str, list[Fact], flow_pb2.Endpoint | None]]:
    """Return every section of the detail panel: title, facts, and whose labels belong to it."""
    protocol, sport, dport = ports(flow)
    return [
        ("Verdict", _verdict_facts(flow), None),
        ("Source", _endpoint_facts(flow.source, flow.IP.source, sport, flow.ethernet.source), flow.source),
        (
            "Destination",
            _endpoint_facts(flow.destination, flow.IP.destination, dport, flow.ethernet.destination),
            flow.destination,
        ),
        ("Packet and connection", _packet_facts(flow, protocol), None),
        ("Seen", _place_facts(flow), None),
    ]


def _verdict_facts(flow: flow_pb2.Flow) -> list[Fact]:
    match = ""
    if flow.event_type.type == 5:
        kinds = PolicyMatchType.__members__.values()
        match = next((kind.display for kind in kinds if kind == flow.policy_match_type), "")
    return [
        Fact("reason", drop_reason(flow)),
        Fact("direction", _direction(flow)),
        Fact("matched", match),
        Fact(
            "is reply", {True: "yes", False: "no"}[flow.is_reply.value] if flow.HasField("is_reply") else ""
        ),
    ]


def _endpoint_facts(endpoint: flow_pb2.Endpoint, address: str, port: int, mac: str) -> list[Fact]:
    name = f"{endpoint.namespace}/{endpoint.pod_name}" if endpoint.pod_name else ""
    workloads = ", ".join(f"{workload.kind} {workload.name}".strip() for workload in endpoint.workloads)
    where = f"{address}:{port}" if port else address
    return [
        Fact("pod", name),
        Fact("workload", workloads),
        Fact("address", where),
        Fact("identity", str(endpoint.identity) if endpoint.identity else ""),
        Fact("endpoint", str(endpoint.ID) if endpoint.ID else ""),
        Fact("MAC", mac),
    ]


def _packet_facts(flow: flow_pb2.Flow, protocol: str) -> list[Fact]:
    extension = extension_of(flow)
    icmp = ""
    if protocol in ("ICMPv4", "ICMPv6"):
        header = getattr(flow.l4, protocol)
        icmp = f"type {header.type}, code {header.code}"
    return [
        Fact("protocol", protocol),
        Fact("ICMP", icmp),
        Fact("flags", tcp_flags(flow)),
        Fact("length", f"{extension.length} B" if extension.length else ""),
        Fact("packets so far", units.exact(extension.packets) if extension.packets else ""),
        Fact("bytes so far", units.size(extension.bytes) if extension.bytes else ""),
        Fact("round trip", units.round_trip(extension.rtt_us) if extension.rtt_us else ""),
    ]


def _place_facts(flow: flow_pb2.Flow) -> list[Fact]:
    extension = extension_of(flow)
    line = f"{flow.file.name}:{flow.file.line}" if flow.file.name else ""
    return [
        Fact("node", flow.node_name),
        Fact("observed at", observed_at(flow)),
        Fact("interface", flow.interface.name),
        Fact("tunnel peer", extension.tunnel_peer),
        Fact("datapath line", line),
        Fact("event", f"CPU {extension.cpu}, number {extension.sequence:,}" if extension.sequence else ""),
        Fact("uuid", flow.uuid),
    ]


def _policy_line(policy: flow_pb2.Policy) -> PolicyLine:
    kind = policy.kind[:60] or "policy"
    return PolicyLine(policy_name(policy), f"{kind}, revision {policy.revision}" if policy.revision else kind)


def _direction(flow: flow_pb2.Flow) -> str:
    words = {flow_pb2.INGRESS: "ingress", flow_pb2.EGRESS: "egress"}
    return words.get(flow.traffic_direction, "this direction")
