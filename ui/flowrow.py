"""One flow as the page needs it: who to whom, what became of it, and its bytes for the details.

Pure. Input: `flow.Flow` messages; output: `FlowRow`. Reply packets count for the edge of their
connection, so a row knows its edge (caller to callee) apart from the packet's own direction.
"""

from dataclasses import dataclass
from datetime import UTC, datetime
from enum import IntEnum

from google.protobuf.message import DecodeError

from palomar import drop
from palomar_pb.flow import flow_pb2
from palomar_pb.palomar.v1 import flow_ext_pb2
from ui.names import Workload, WorkloadNames, clip


class VerdictClass(IntEnum):
    """What the page tells apart by colour and mark."""

    FORWARDED = 0
    DROPPED = 1
    AUDIT = 2
    """Allowed only because policy is in audit mode, or nothing is known."""

    @property
    def word(self) -> str:
        """`forwarded`, `dropped`, `audit`."""
        return self.name.lower()


_CLASSES = {
    flow_pb2.FORWARDED: VerdictClass.FORWARDED,
    flow_pb2.REDIRECTED: VerdictClass.FORWARDED,
    flow_pb2.TRACED: VerdictClass.FORWARDED,
    flow_pb2.TRANSLATED: VerdictClass.FORWARDED,
    flow_pb2.DROPPED: VerdictClass.DROPPED,
    flow_pb2.ERROR: VerdictClass.DROPPED,
}


@dataclass(frozen=True, slots=True)
class EdgeKey:
    """One line of the map: caller, callee, protocol and the callee's port."""

    source: Workload
    destination: Workload
    protocol: str
    port: int
    """0 where the protocol has none, or for what was folded together."""

    @property
    def id(self) -> str:
        """`shop/web>shop/api:8080/TCP`."""
        return f"{self.source.id}>{self.destination.id}:{self.port}/{self.protocol}"

    @property
    def service(self) -> str:
        """`8080/TCP`, `ICMPv4`, `other ports/TCP`."""
        if self.port:
            return f"{self.port}/{self.protocol}"
        return (
            self.protocol if self.protocol not in ("TCP", "UDP", "SCTP") else f"other ports/{self.protocol}"
        )


@dataclass(slots=True, eq=False)
class FlowRow:
    """A flow in the page's memory."""

    seq: int
    """Order of arrival at this page server, from 1."""
    edge: EdgeKey
    verdict: VerdictClass
    uuid: str
    """Names the flow in URLs."""
    is_reply: bool
    """Whether the packet went from callee to caller."""
    time_ns: int
    """Wall clock of the node that saw it."""
    wire: bytes
    """The message as it came over the wire: 0.5 kB, of which the decoded one takes 2.6. Few are looked at."""

    @classmethod
    def of(cls, seq: int, edge: EdgeKey, verdict: VerdictClass, flow: flow_pb2.Flow, uuid: str) -> "FlowRow":
        """Remember `flow`, whose uuid is `uuid` (empty where it came without)."""
        time_ns = flow.time.seconds * 1_000_000_000 + flow.time.nanos
        wire = flow.SerializeToString()
        return cls(seq, edge, verdict, uuid or f"seq-{seq}", flow.is_reply.value, time_ns, wire)

    @property
    def message(self) -> flow_pb2.Flow:
        """Decode the flow: a microsecond each time."""
        return flow_pb2.Flow.FromString(self.wire)


def verdict_class(flow: flow_pb2.Flow) -> VerdictClass:
    """Sort the verdict into one of three."""
    return _CLASSES.get(flow.verdict, VerdictClass.AUDIT)


def edge_of(flow: flow_pb2.Flow, names: WorkloadNames) -> EdgeKey:
    """Return the edge a flow belongs to; a reply belongs to the edge of its request."""
    source = names.of(flow.source, flow.IP.source)
    destination = names.of(flow.destination, flow.IP.destination)
    protocol, sport, dport = ports(flow)
    if flow.is_reply.value:
        return EdgeKey(destination, source, protocol, sport)
    return EdgeKey(source, destination, protocol, dport)


def ports(flow: flow_pb2.Flow) -> tuple[str, int, int]:
    """Return protocol, source port and destination port; ports are 0 where there are none."""
    protocol = flow.l4.WhichOneof("protocol")
    if protocol in ("TCP", "UDP", "SCTP"):
        header = getattr(flow.l4, protocol)
        return protocol, header.source_port, header.destination_port
    return protocol or "IP", 0, 0


def extension_of(flow: flow_pb2.Flow) -> flow_ext_pb2.FlowExtension:
    """Unpack our own part of a flow; empty where it came without, or damaged."""
    extension = flow_ext_pb2.FlowExtension()
    if flow.extensions.Is(flow_ext_pb2.FlowExtension.DESCRIPTOR):
        try:
            flow.extensions.Unpack(extension)
        except DecodeError:
            return flow_ext_pb2.FlowExtension()
    return extension


def drop_reason(flow: flow_pb2.Flow) -> str:
    """Return the drop reason as people read it; empty where nothing was dropped."""
    code = flow.drop_reason_desc or flow.drop_reason
    return drop.display(code) if code else ""


def observed_at(flow: flow_pb2.Flow) -> str:
    """Return what kind of event it is: `to-endpoint`, `policy-verdict`, `drop`."""
    kind = flow.event_type.type
    if kind == 1:
        return "drop"
    if kind == 5:
        return "policy-verdict"
    point = flow.trace_observation_point
    if point and point in flow_pb2.TraceObservationPoint.values():
        return flow_pb2.TraceObservationPoint.Name(point).lower().replace("_", "-")
    return "flow"


def deciding_policies(flow: flow_pb2.Flow) -> tuple[str, list[flow_pb2.Policy]]:
    """Return (`egress denied`, policies) of whoever decided; an empty word where nobody is named."""
    for word, policies in (
        ("egress denied", flow.egress_denied_by),
        ("ingress denied", flow.ingress_denied_by),
        ("egress allowed", flow.egress_allowed_by),
        ("ingress allowed", flow.ingress_allowed_by),
    ):
        if policies:
            return word, list(policies)
    return "", []


def policy_name(policy: flow_pb2.Policy) -> str:
    """`shop/store-from-api`."""
    return clip(f"{policy.namespace}/{policy.name}" if policy.namespace else policy.name)


def tcp_flags(flow: flow_pb2.Flow) -> str:
    """`SYN, ACK`; empty for anything but TCP."""
    if flow.l4.WhichOneof("protocol") != "TCP":
        return ""
    flags = flow.l4.TCP.flags
    return ", ".join(name for name in ("SYN", "ACK", "FIN", "RST", "PSH", "URG") if getattr(flags, name))


def clock_text(time_ns: int) -> str:
    """`10:01:02.345`, UTC."""
    moment = datetime.fromtimestamp(time_ns // 1_000_000_000, UTC)
    return f"{moment:%H:%M:%S}.{time_ns // 1_000_000 % 1000:03d}"


def search_text(row: FlowRow) -> str:
    """Everything of a flow that the text filter looks at, in lower case."""
    flow = row.message
    return " ".join(
        (
            row.edge.id,
            flow.IP.source,
            flow.IP.destination,
            flow.source.pod_name,
            flow.destination.pod_name,
            flow.node_name,
            flow_pb2.Verdict.Name(flow.verdict) if flow.verdict in flow_pb2.Verdict.values() else "",
            drop_reason(flow),
            observed_at(flow),
            *(policy.name for policy in deciding_policies(flow)[1]),
        )
    ).lower()
