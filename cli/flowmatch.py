"""Does a flow match a filter? The message-by-message answer, for flows read from a file.

Pure. A flow server answers the same question over columns (`hubble.filters`); this one takes any
`flow.Flow`, whoever wrote it. Fields of a filter are AND, the values of a field are OR.
"""

import ipaddress
import re
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache

from cli.errors import UsageError
from cli.filterfields import TCP_FLAGS
from cli.flowfilter import FilterLists
from cli.format import words
from hubble import labelselector
from palomar.labels import LabelSet
from palomar_pb.flow import flow_pb2


def passes(flow: flow_pb2.Flow, lists: FilterLists) -> bool:
    """Tell whether `flow` is in the allow list (or there is none) and not in the deny list."""
    if lists.allow and not any(matches(flow, item) for item in lists.allow):
        return False
    return not any(matches(flow, item) for item in lists.deny)


def matches(flow: flow_pb2.Flow, wanted: flow_pb2.FlowFilter) -> bool:
    """Tell whether `flow` satisfies every field of `wanted`; raise UsageError for CEL."""
    for field, value in wanted.ListFields():
        check = _CHECKS.get(field.name)
        if check is None:
            raise UsageError(f"filter field {field.name} cannot be applied to a file: ask a flow server")
        if not check(flow, value):
            return False
    return True


_Check = Callable[[flow_pb2.Flow, "Sequence[object]"], bool]


def _address(text: str, wanted: Iterable[object]) -> bool:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return False
    return any(address in _network(str(item)) for item in wanted)


@lru_cache(maxsize=256)
def _network(text: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    return ipaddress.ip_network(text, strict=False)


def _named(namespace: str, name: str, wanted: Iterable[object]) -> bool:
    """Match `ns/prefix`, `ns/`, `/prefix` (any namespace) and `prefix` (namespace default)."""
    for item in wanted:
        space, slash, prefix = str(item).partition("/")
        if not slash:
            space, prefix = "default", space
        if (not space or space == namespace) and name.startswith(prefix) and (name or namespace):
            return True
    return False


@lru_cache(maxsize=256)
def _glob(pattern: str) -> re.Pattern[str]:
    return re.compile(".*".join(re.escape(part) for part in pattern.rstrip(".").lower().split("*")))


def _globbed(texts: Iterable[str], wanted: Iterable[object]) -> bool:
    patterns = [_glob(str(item)) for item in wanted]
    return any(pattern.fullmatch(text.rstrip(".").lower()) for text in texts for pattern in patterns)


@lru_cache(maxsize=256)
def _selector(text: str) -> labelselector.LabelSelector:
    return labelselector.parse(text)


def _labelled(labels: Iterable[str], wanted: Iterable[object]) -> bool:
    label_set = LabelSet.parse(labels)
    return any(_selector(str(item)).matches(label_set) for item in wanted)


def _worked(workloads: Iterable[flow_pb2.Workload], wanted: Iterable[object]) -> bool:
    return any(
        isinstance(item, flow_pb2.Workload)
        and item.name in ("", workload.name)
        and item.kind in ("", workload.kind)
        for item in wanted
        for workload in workloads
    )


def _protocol(flow: flow_pb2.Flow, wanted: Sequence[object]) -> bool:
    layer4 = (flow.l4.WhichOneof("protocol") or "").lower()
    known = {layer4, (flow.l7.WhichOneof("record") or "").lower()}
    if layer4 in ("icmpv4", "icmpv6"):
        known.add("icmp")
    return any(str(item).lower() in known - {""} for item in wanted)


def _event_type(flow: flow_pb2.Flow, wanted: Sequence[object]) -> bool:
    return any(
        isinstance(item, flow_pb2.EventTypeFilter)
        and item.type == flow.event_type.type
        and (not item.match_sub_type or item.sub_type == flow.event_type.sub_type)
        for item in wanted
    )


def _tcp_flags(flow: flow_pb2.Flow, wanted: Sequence[object]) -> bool:
    flags = flow.l4.TCP.flags
    return flow.l4.HasField("TCP") and any(
        all(getattr(flags, name) for name in TCP_FLAGS if getattr(item, name)) for item in wanted
    )


def _node_name(flow: flow_pb2.Flow, wanted: Sequence[object]) -> bool:
    cluster, _, node = flow.node_name.rpartition("/")
    for item in wanted:
        wanted_cluster, slash, wanted_node = str(item).rpartition("/")
        if slash and not _globbed([cluster], [wanted_cluster or "*"]):
            continue
        if _globbed([node], [wanted_node or "*"]):
            return True
    return False


def _http_status(flow: flow_pb2.Flow, wanted: Sequence[object]) -> bool:
    code = str(flow.l7.http.code)
    return flow.l7.http.code != 0 and any(
        code.startswith(str(item).removesuffix("+")) if str(item).endswith("+") else code == str(item)
        for item in wanted
    )


def _http_header(flow: flow_pb2.Flow, wanted: Sequence[object]) -> bool:
    return any(header == item for header in flow.l7.http.headers for item in wanted)


def _searched(text: str, wanted: Iterable[object]) -> bool:
    return bool(text) and any(re.search(str(item), text) for item in wanted)


def _path(url: str) -> str:
    rest = url.partition("://")[2] or url
    return f"/{rest.partition('/')[2]}".partition("?")[0]


def _interface(flow: flow_pb2.Flow, wanted: Sequence[object]) -> bool:
    return any(
        isinstance(item, flow_pb2.NetworkInterface)
        and item.name in ("", flow.interface.name)
        and item.index in (0, flow.interface.index)
        for item in wanted
    )


_CHECKS: dict[str, _Check] = {
    "uuid": lambda flow, wanted: flow.uuid in wanted,
    "source_ip": lambda flow, wanted: _address(flow.IP.source, wanted),
    "source_ip_xlated": lambda flow, wanted: _address(flow.IP.source_xlated, wanted),
    "destination_ip": lambda flow, wanted: _address(flow.IP.destination, wanted),
    "source_pod": lambda flow, wanted: _named(flow.source.namespace, flow.source.pod_name, wanted),
    "destination_pod": lambda flow, wanted: _named(
        flow.destination.namespace, flow.destination.pod_name, wanted
    ),
    "source_service": lambda flow, wanted: _named(
        flow.source_service.namespace, flow.source_service.name, wanted
    ),
    "destination_service": lambda flow, wanted: _named(
        flow.destination_service.namespace, flow.destination_service.name, wanted
    ),
    "source_fqdn": lambda flow, wanted: _globbed(flow.source_names, wanted),
    "destination_fqdn": lambda flow, wanted: _globbed(flow.destination_names, wanted),
    "source_label": lambda flow, wanted: _labelled(flow.source.labels, wanted),
    "destination_label": lambda flow, wanted: _labelled(flow.destination.labels, wanted),
    "node_labels": lambda flow, wanted: _labelled(flow.node_labels, wanted),
    "source_workload": lambda flow, wanted: _worked(flow.source.workloads, wanted),
    "destination_workload": lambda flow, wanted: _worked(flow.destination.workloads, wanted),
    "source_cluster_name": lambda flow, wanted: _globbed([flow.source.cluster_name], wanted),
    "destination_cluster_name": lambda flow, wanted: _globbed([flow.destination.cluster_name], wanted),
    "source_identity": lambda flow, wanted: flow.source.identity in wanted,
    "destination_identity": lambda flow, wanted: flow.destination.identity in wanted,
    "source_port": lambda flow, wanted: str(words.ports(flow)[0]) in wanted,
    "destination_port": lambda flow, wanted: str(words.ports(flow)[1]) in wanted,
    "traffic_direction": lambda flow, wanted: flow.traffic_direction in wanted,
    "verdict": lambda flow, wanted: flow.verdict in wanted,
    "drop_reason_desc": lambda flow, wanted: flow.drop_reason_desc in wanted,
    "interface": _interface,
    "event_type": _event_type,
    "protocol": _protocol,
    "reply": lambda flow, wanted: flow.HasField("is_reply") and flow.is_reply.value in wanted,
    "dns_query": lambda flow, wanted: _searched(flow.l7.dns.query, wanted),
    "http_status_code": _http_status,
    "http_method": lambda flow, wanted: flow.l7.http.method.lower() in [str(item).lower() for item in wanted],
    "http_path": lambda flow, wanted: (
        _searched(_path(flow.l7.http.url), wanted) if flow.l7.http.url else False
    ),
    "http_url": lambda flow, wanted: _searched(flow.l7.http.url, wanted),
    "http_header": _http_header,
    "tcp_flags": _tcp_flags,
    "node_name": _node_name,
    "ip_version": lambda flow, wanted: flow.IP.ipVersion in wanted,
    "trace_id": lambda flow, wanted: flow.trace_context.parent.trace_id in wanted,
    "ip_trace_id": lambda flow, wanted: flow.ip_trace_id.trace_id in wanted,
    "encrypted": lambda flow, wanted: flow.IP.encrypted in wanted,
}
