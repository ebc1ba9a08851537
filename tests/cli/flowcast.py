"""A fixed cast of flows: a client and a server, as every flow tool's samples show them.

For tests of text output. Times are 2026-11-21 08:00:NN.123456789 UTC, NN being the number of the case.
"""

from collections.abc import Sequence
from typing import Any

from google.protobuf.any_pb2 import Any as AnyMessage

from palomar_pb.flow import flow_pb2
from palomar_pb.observer import observer_pb2
from palomar_pb.palomar.v1 import flow_ext_pb2

SECOND_ZERO = 1_795_248_000
NANOS = 123_456_789
NODE = "default/worker2"


def endpoint(name: str, number: int, identity: int, suffix: str) -> flow_pb2.Endpoint:
    """Return an endpoint of namespace default with the labels its name implies."""
    return flow_pb2.Endpoint(
        ID=number,
        identity=identity,
        cluster_name="default",
        namespace="default",
        labels=[f"k8s:app={name}", "k8s:io.kubernetes.pod.namespace=default"],
        pod_name=f"{name}-{suffix}",
        workloads=[flow_pb2.Workload(name=name, kind="Deployment")],
    )


CLIENT = endpoint("client", 1234, 48291, "6d5f7b9c4d-abcde")
SERVER = endpoint("server", 5678, 53731, "7c9d8f6b5-fghij")
COREDNS = flow_pb2.Endpoint(identity=1111, namespace="kube-system", pod_name="coredns-565d847f94-xyz12")
WORLD = flow_pb2.Endpoint(identity=2, labels=["reserved:world"])


def tcp(source_port: int, destination_port: int, *flags: str) -> flow_pb2.Layer4:
    """Return a TCP header with `flags` set."""
    set_flags: dict[str, Any] = dict.fromkeys(flags, True)
    return flow_pb2.Layer4(
        TCP=flow_pb2.TCP(
            source_port=source_port, destination_port=destination_port, flags=flow_pb2.TCPFlags(**set_flags)
        )
    )


def flow(number: int, event_type: int, sub_type: int = 0, **fields: Any) -> flow_pb2.Flow:
    """Return the flow of case `number`; client to server over TCP unless `fields` say otherwise."""
    is_reply = fields.pop("is_reply", None)
    made = flow_pb2.Flow(
        uuid=f"00000000-0000-0000-0000-{number:012d}",
        verdict=fields.pop("verdict", flow_pb2.Verdict.FORWARDED),
        IP=fields.pop(
            "IP",
            flow_pb2.IP(source="10.0.0.185", destination="10.0.1.110", ipVersion=flow_pb2.IPVersion.IPv4),
        ),
        l4=fields.pop("l4", tcp(40912, 8080, "SYN")),
        source=fields.pop("source", CLIENT),
        destination=fields.pop("destination", SERVER),
        Type=fields.pop("Type", flow_pb2.FlowType.L3_L4),
        node_name=NODE,
        event_type=flow_pb2.CiliumEventType(type=event_type, sub_type=sub_type),
        Summary=fields.pop("Summary", "TCP Flags: SYN"),
        **fields,
    )
    made.time.seconds, made.time.nanos = SECOND_ZERO + number, NANOS
    if is_reply is not None:
        made.is_reply.value = is_reply
    return made


def response(made: flow_pb2.Flow) -> observer_pb2.GetFlowsResponse:
    """Wrap a flow as the server sends it."""
    return observer_pb2.GetFlowsResponse(flow=made, node_name=made.node_name, time=made.time)


def lost(number: int, events: int, cpu: int | None = None) -> observer_pb2.GetFlowsResponse:
    """Return a loss of `events` in the ring."""
    made = observer_pb2.GetFlowsResponse(
        lost_events=flow_pb2.LostEvent(
            source=flow_pb2.LostEventSource.HUBBLE_RING_BUFFER, num_events_lost=events
        ),
        node_name=NODE,
    )
    if cpu is not None:
        made.lost_events.cpu.value = cpu
    made.time.seconds, made.time.nanos = SECOND_ZERO + number, NANOS
    return made


def policy(name: str, namespace: str = "default") -> flow_pb2.Policy:
    """Return a policy as flows name them."""
    return flow_pb2.Policy(name=name, namespace=namespace, kind="CiliumNetworkPolicy")


def extended(made: flow_pb2.Flow, **fields: Any) -> flow_pb2.Flow:
    """Give `made` an extension with `fields`."""
    packed = AnyMessage()
    packed.Pack(flow_ext_pb2.FlowExtension(**fields))
    made.extensions.CopyFrom(packed)
    return made


def http(kind: int, **fields: Any) -> flow_pb2.Layer7:
    """Return an HTTP record."""
    return flow_pb2.Layer7(type=kind, http=flow_pb2.HTTP(**fields))


def dns(kind: int) -> flow_pb2.Layer7:
    """Return a DNS record seen by the proxy."""
    return flow_pb2.Layer7(
        type=kind, dns=flow_pb2.DNS(query="www.example.com.", observation_source="proxy", qtypes=["A"])
    )


def udp(source_port: int, destination_port: int) -> flow_pb2.Layer4:
    """Return a UDP header."""
    return flow_pb2.Layer4(UDP=flow_pb2.UDP(source_port=source_port, destination_port=destination_port))


L7 = flow_pb2.FlowType.L7
DROPPED = flow_pb2.Verdict.DROPPED
_REVERSED = flow_pb2.IP(source="10.0.1.110", destination="10.0.0.185", ipVersion=flow_pb2.IPVersion.IPv4)


def samples() -> Sequence[tuple[str, observer_pb2.GetFlowsResponse]]:
    """Return one response of each kind, named."""
    ingress = flow_pb2.TrafficDirection.INGRESS
    egress = flow_pb2.TrafficDirection.EGRESS
    url = "http://server:8080/api/v1"
    flows = [
        ("trace to-stack", flow(1, 4, 3, is_reply=False)),
        (
            "trace reply",
            flow(
                2,
                4,
                0,
                is_reply=True,
                source=SERVER,
                destination=CLIENT,
                IP=_REVERSED,
                l4=tcp(8080, 40912, "SYN", "ACK"),
                Summary="TCP Flags: SYN, ACK",
            ),
        ),
        (
            "drop",
            flow(
                3,
                1,
                133,
                verdict=DROPPED,
                drop_reason=133,
                drop_reason_desc=flow_pb2.DropReason.POLICY_DENIED,
                traffic_direction=ingress,
                ethernet=flow_pb2.Ethernet(source="b2:10:ef:6b:fa:0a", destination="da:0c:20:4a:86:f7"),
            ),
        ),
        (
            "policy-verdict allow",
            flow(
                4,
                5,
                is_reply=False,
                policy_match_type=2,
                traffic_direction=ingress,
                ingress_allowed_by=[policy("allow-client")],
            ),
        ),
        (
            "policy-verdict deny",
            flow(
                5,
                5,
                verdict=DROPPED,
                traffic_direction=ingress,
                drop_reason_desc=flow_pb2.DropReason.POLICY_DENIED,
                ingress_denied_by=[policy("deny-x")],
            ),
        ),
        (
            "policy-verdict audit",
            flow(6, 5, is_reply=False, verdict=flow_pb2.Verdict.AUDIT, traffic_direction=egress),
        ),
        (
            "L7 http request",
            flow(
                7,
                129,
                is_reply=False,
                Type=L7,
                l7=http(1, method="GET", url=url, protocol="HTTP/1.1"),
                Summary=f"HTTP/1.1 GET {url}",
            ),
        ),
        (
            "L7 http response",
            flow(
                8,
                129,
                is_reply=True,
                Type=L7,
                source=SERVER,
                destination=CLIENT,
                IP=_REVERSED,
                l4=tcp(8080, 40912),
                l7=http(2, code=200, method="GET", url=url, protocol="HTTP/1.1"),
                Summary=f"HTTP/1.1 200 1ms (GET {url})",
            ),
        ),
        (
            "L7 dns request",
            flow(
                9,
                129,
                is_reply=False,
                Type=L7,
                destination=COREDNS,
                l4=udp(51234, 53),
                l7=dns(1),
                Summary="DNS Query www.example.com. A",
            ),
        ),
        (
            "L7 dns response",
            flow(
                10,
                129,
                is_reply=True,
                Type=L7,
                source=COREDNS,
                destination=CLIENT,
                l4=udp(53, 51234),
                l7=dns(2),
                Summary='DNS Answer "93.184.216.34" TTL: 300 (Proxy www.example.com. A)',
            ),
        ),
        (
            "to-network world fqdn",
            flow(
                11,
                4,
                11,
                is_reply=False,
                destination=WORLD,
                destination_names=["www.example.com"],
                IP=flow_pb2.IP(
                    source="10.0.0.185", destination="93.184.216.34", ipVersion=flow_pb2.IPVersion.IPv4
                ),
                l4=tcp(40913, 443, "ACK", "PSH"),
                Summary="TCP Flags: ACK, PSH",
            ),
        ),
        (
            "icmp",
            flow(
                12,
                4,
                0,
                is_reply=False,
                l4=flow_pb2.Layer4(ICMPv4=flow_pb2.ICMPv4(type=8)),
                Summary="ICMPv4 EchoRequest",
            ),
        ),
        (
            "to-proxy redirected",
            flow(13, 4, 1, is_reply=False, verdict=flow_pb2.Verdict.REDIRECTED),
        ),
        (
            "trace-sock",
            flow(
                14,
                7,
                Type=flow_pb2.FlowType.SOCK,
                verdict=flow_pb2.Verdict.TRANSLATED,
                sock_xlate_point=flow_pb2.SocketTranslationPoint.SOCK_XLATE_POINT_POST_DIRECTION_FWD,
                Summary="TCP",
            ),
        ),
    ]
    return [*((name, response(made)) for name, made in flows), ("lost events", lost(15, 5))]


def numbered(number, second, uuid=True, node=NODE):
    """Flow `number`, told from the others by its source port, seen `second` after second zero."""
    item = flow(4, 3)
    item.l4.TCP.source_port = 1000 + number
    item.uuid = f"uuid-{number}" if uuid else ""
    response = observer_pb2.GetFlowsResponse(flow=item, node_name=node)
    response.time.FromNanoseconds(SECOND_ZERO * 10**9 + round(second * 10**9))
    response.flow.time.CopyFrom(response.time)
    return response
