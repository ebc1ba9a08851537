"""Every field of a FlowFilter by its name, with what turns its values into a question.

Pure. Fields this node has no data for (L7, DNS names, services, translated addresses, trace ids) are checked
for form and then match nothing.
"""

from collections.abc import Callable, Sequence
from typing import Any

from hubble.filterfields.event import (
    directions,
    drop_reasons,
    event_types,
    interfaces,
    numbers,
    replies,
    uuids,
)
from hubble.filterfields.node import node_labels, node_names
from hubble.filterfields.packet import encrypted, protocols, tcp_flags, versions_of_ip
from hubble.filterfields.predicates import Compiler, Predicate, constant, each
from hubble.filterfields.sides import DESTINATION, SOURCE
from hubble.filterfields.values import (
    check_http_status,
    check_regex,
    check_text,
    read_glob,
    read_network,
    read_pod,
)
from hubble.observingnode import ObservingNode
from palomar.errors import InvalidInputError
from palomar_pb.flow import flow_pb2


def _nothing(check: Callable[[Any], object]) -> Compiler:
    def compiler(values: Sequence[Any], _node: ObservingNode) -> Predicate:
        each(values, check)
        return constant(False)

    return compiler


def _header(value: flow_pb2.HTTPHeader) -> None:
    if not value.key:
        raise InvalidInputError("an HTTP header needs a key")


COMPILERS: dict[str, Compiler] = {
    # cheapest first: the first that matches nothing ends a filter
    "uuid": uuids,
    "node_name": node_names,
    "node_labels": node_labels,
    "encrypted": encrypted,
    "source_fqdn": _nothing(read_glob),
    "destination_fqdn": _nothing(read_glob),
    "source_service": _nothing(read_pod),
    "destination_service": _nothing(read_pod),
    "source_ip_xlated": _nothing(read_network),
    "http_status_code": _nothing(check_http_status),
    "http_method": _nothing(check_text),
    "http_path": _nothing(check_regex),
    "http_url": _nothing(check_regex),
    "http_header": _nothing(_header),
    "dns_query": _nothing(check_regex),
    "trace_id": _nothing(check_text),
    "ip_trace_id": _nothing(int),
    "event_type": event_types,
    "verdict": numbers("verdict"),
    "drop_reason_desc": drop_reasons,
    "traffic_direction": directions,
    "protocol": protocols,
    "source_identity": SOURCE.identities,
    "destination_identity": DESTINATION.identities,
    "source_port": SOURCE.ports,
    "destination_port": DESTINATION.ports,
    "source_pod": SOURCE.pods,
    "destination_pod": DESTINATION.pods,
    "source_label": SOURCE.labels,
    "destination_label": DESTINATION.labels,
    "source_workload": SOURCE.workloads,
    "destination_workload": DESTINATION.workloads,
    "source_cluster_name": SOURCE.clusters,
    "destination_cluster_name": DESTINATION.clusters,
    "tcp_flags": tcp_flags,
    "reply": replies,
    "interface": interfaces,
    "ip_version": versions_of_ip,
    "source_ip": SOURCE.ips,
    "destination_ip": DESTINATION.ips,
}
