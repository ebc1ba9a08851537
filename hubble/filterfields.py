"""One vectorised question per field of a FlowFilter.

Pure. Input: the values of a field; output: a predicate that answers per row of a block. Questions
about names are asked once per interned reference, not per row. Fields this node has no data for (L7,
DNS names, services, translated addresses, trace ids) are checked for form and then match nothing.
Combined into filters by `hubble.filters`.
"""

import ipaddress
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from hubble import flowuuid, labelselector
from hubble.flowendpoint import FlowEndpoint, Names, resolve
from hubble.flowtext import TCP_FLAG_BITS
from hubble.flowuuid import StoreId
from hubble.rows import Column, Mask, Rows, ip_versions, reply_states
from palomar.drop import DropReason
from palomar.errors import InvalidInputError
from palomar.labels import LabelSet
from palomar.verdict import IpProtocol
from palomar_pb.flow import flow_pb2

ANY_STORE = StoreId(0)


@dataclass(frozen=True, slots=True)
class ObservingNode:
    """What is the same for every flow of this node."""

    name: str
    """`cluster/node`."""
    labels: tuple[str, ...] = ()
    store_id: StoreId = ANY_STORE


@dataclass(frozen=True, slots=True)
class View:
    """A block of rows and the names its references stand for."""

    rows: Rows
    names: Names


Predicate = Callable[[View], Mask]
Compiler = Callable[[Sequence[Any], ObservingNode], Predicate]
"""Turns the values of one filter field into a question; the values are protobuf's."""


class BadValueError(Exception):
    """The value at `index` of a filter field cannot be used."""

    def __init__(self, index: int, message: str) -> None:
        self.index = index
        self.message = message
        super().__init__(message)


def _each(values: Sequence[Any], read: Callable[[Any], Any]) -> list[Any]:
    """`read` every value; its InvalidInputError becomes one that knows which value it was."""
    result = []
    for index, value in enumerate(values):
        try:
            result.append(read(value))
        except InvalidInputError as error:
            raise BadValueError(index, error.reason) from error
    return result


def _constant(answer: bool) -> Predicate:
    return lambda view: np.full(len(view.rows), answer, dtype=np.bool_)


def _is_one_of(column: Column, values: Sequence[int]) -> Mask:
    limit = np.iinfo(column.dtype).max
    possible = sorted({value for value in values if 0 <= value <= limit})
    if len(possible) == 1:
        return np.asarray(column == possible[0])
    return np.isin(column, np.array(possible, dtype=column.dtype))


# --- one side of a flow -------------------------------------------------------------------------


UNASKED = -1


class SideTable:
    """The answer to one question about one side of a flow, remembered per reference.

    Rows hold few different references, so the question is asked of names, never of rows.
    """

    def __init__(self, ref_column: str, identity_column: str, ask: Callable[[FlowEndpoint], bool]) -> None:
        """`ask` is the question; the columns say which side."""
        self._ref_column = ref_column
        self._identity_column = identity_column
        self._ask = ask
        self._answers = np.full(256, UNASKED, dtype=np.int8)
        """By reference; 0 or 1 once asked."""

    def __call__(self, view: View) -> Mask:
        """One answer per row."""
        refs = view.rows.column(self._ref_column)
        if len(refs) == 0:
            return np.zeros(0, dtype=np.bool_)
        highest = int(refs.max())
        if highest >= len(self._answers):
            grown = np.full(highest * 2, UNASKED, dtype=np.int8)
            grown[: len(self._answers)] = self._answers
            self._answers = grown
        answers = self._answers[refs]
        if (answers == UNASKED).any():
            self._fill(view, refs, answers)
        return answers.view(np.bool_)

    def _fill(self, view: View, refs: Column, answers: npt.NDArray[np.int8]) -> None:
        for ref in np.unique(refs[answers == UNASKED]).tolist():
            if ref == 0:
                continue
            endpoint, final = resolve(view.names, ref, 0)
            if final:
                self._answers[ref] = self._ask(endpoint)
        np.take(self._answers, refs, out=answers)
        unnamed = answers == UNASKED
        if unnamed.any():
            identities = view.rows.column(self._identity_column)[unnamed]
            distinct = np.unique(identities)
            asked = [self._ask(resolve(view.names, 0, identity)[0]) for identity in distinct.tolist()]
            answers[unnamed] = np.array(asked, dtype=np.int8)[np.searchsorted(distinct, identities)]


@dataclass(frozen=True, slots=True)
class Side:
    """Names of the record's fields for one side of a flow."""

    ref: str
    identity: str
    address: str
    port: str

    def ask(self, question: Callable[[FlowEndpoint], bool]) -> Predicate:
        """A predicate that asks every endpoint of this side once."""
        return SideTable(self.ref, self.identity, question)

    def ips(self, values: Sequence[Any], _node: ObservingNode) -> Predicate:
        """Addresses or CIDRs."""
        networks = _each(values, _network)
        return lambda view: _in_networks(view.rows, self.address, networks)

    def pods(self, values: Sequence[Any], _node: ObservingNode) -> Predicate:
        """`[namespace/]prefix`; namespace `default` when there is no slash, any when it is empty."""
        wanted = _each(values, _pod)
        return self.ask(
            lambda endpoint: any(
                (not namespace or namespace == endpoint.namespace) and endpoint.pod.startswith(prefix)
                for namespace, prefix in wanted
            )
        )

    def labels(self, values: Sequence[Any], _node: ObservingNode) -> Predicate:
        """Label selectors."""
        selectors = _each(values, labelselector.parse)
        return self.ask(
            lambda endpoint: labelselector.matches_any(selectors, LabelSet.parse(endpoint.labels))
        )

    def workloads(self, values: Sequence[Any], _node: ObservingNode) -> Predicate:
        """Name and kind; what is empty is not compared."""
        wanted = [(value.name, value.kind) for value in values]
        return self.ask(
            lambda endpoint: any(
                name in ("", workload.name) and kind in ("", workload.kind)
                for workload in endpoint.workloads
                for name, kind in wanted
            )
        )

    def clusters(self, values: Sequence[Any], _node: ObservingNode) -> Predicate:
        """Cluster names with * for any characters."""
        patterns = _each(values, _glob)
        return self.ask(lambda endpoint: any(pattern.fullmatch(endpoint.cluster) for pattern in patterns))

    def identities(self, values: Sequence[Any], _node: ObservingNode) -> Predicate:
        """Numeric identities."""
        return lambda view: _is_one_of(view.rows.column(self.identity), values)

    def ports(self, values: Sequence[Any], _node: ObservingNode) -> Predicate:
        """Ports of TCP, UDP and SCTP; packets of other protocols have none."""
        ports = _each(values, _port)
        return lambda view: (
            _is_one_of(view.rows.column(self.port), ports)
            & _is_one_of(view.rows.column("protocol"), PORT_PROTOCOLS)
        )


SOURCE = Side("src_ref", "src_identity", "saddr", "sport")
DESTINATION = Side("dst_ref", "dst_identity", "daddr", "dport")
PORT_PROTOCOLS = (IpProtocol.TCP, IpProtocol.UDP, IpProtocol.SCTP)
MAX_PORT = 65535

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def _network(value: str) -> Network:
    try:
        if "/" in value:
            return ipaddress.ip_network(value, strict=False)
        return ipaddress.ip_network(ipaddress.ip_address(value))
    except ValueError as error:
        raise InvalidInputError(f"{value!r} is neither an IP address nor a CIDR") from error


def _in_networks(rows: Rows, address: str, networks: Sequence[Network]) -> Mask:
    versions = ip_versions(rows)
    octets = rows.column(address)
    result = np.zeros(len(rows), dtype=np.bool_)
    for version, width in ((4, 4), (6, 8)):
        wanted = [network for network in networks if network.version == version]
        if not wanted:
            continue
        words = np.ascontiguousarray(octets[:, : 4 if version == 4 else 16]).view(f"u{width}")
        inside = np.zeros(len(rows), dtype=np.bool_)
        for network in wanted:
            mask = np.frombuffer(network.netmask.packed, dtype=f"u{width}")
            base = np.frombuffer(network.network_address.packed, dtype=f"u{width}")
            inside |= ((words & mask) == base).all(axis=1)
        result |= inside & (versions == version)
    return result


def _pod(value: str) -> tuple[str, str]:
    namespace, slash, prefix = value.partition("/")
    if not slash:
        namespace, prefix = "default", value
    if value in ("", "/") or "/" in prefix:
        raise InvalidInputError(f"{value!r} is not [namespace/][pod name prefix]")
    return namespace, prefix


_NAME_PATTERN = re.compile(r"[A-Za-z0-9_.*-]+")


def _glob(value: str) -> re.Pattern[str]:
    if _NAME_PATTERN.fullmatch(value) is None:
        raise InvalidInputError(
            f"{value!r} is not a name of letters, digits, - _ . with * for any characters"
        )
    return re.compile(".*".join(re.escape(part) for part in value.split("*")))


def _port(value: str) -> int:
    if not (value.isascii() and value.isdigit()) or int(value) > MAX_PORT:
        raise InvalidInputError(f"{value!r} is not a port: write a number from 0 to {MAX_PORT}")
    return int(value)


# --- the packet ----------------------------------------------------------------------------------

_PROTOCOLS: dict[str, tuple[int, ...]] = {
    "tcp": (IpProtocol.TCP,),
    "udp": (IpProtocol.UDP,),
    "icmp": (IpProtocol.ICMP, IpProtocol.ICMPV6),
    "icmpv4": (IpProtocol.ICMP,),
    "icmpv6": (IpProtocol.ICMPV6,),
    "sctp": (IpProtocol.SCTP,),
    "vrrp": (112,),
    "igmp": (2,),
    "http": (),
    "dns": (),
    "kafka": (),
}
"""IANA numbers; none for the application protocols, which only a proxy sees."""


def _protocols(values: Sequence[Any], _node: ObservingNode) -> Predicate:
    numbers = [number for known in _each(values, _protocol) for number in known]
    return lambda view: _is_one_of(view.rows.column("protocol"), numbers)


def _protocol(value: str) -> tuple[int, ...]:
    found = _PROTOCOLS.get(value.lower())
    if found is None:
        raise InvalidInputError(f"{value!r} is not a protocol: use one of {', '.join(_PROTOCOLS)}")
    return found


def _tcp_flags(values: Sequence[Any], _node: ObservingNode) -> Predicate:
    wanted = [
        sum(bit for name, bit in TCP_FLAG_BITS.items() if getattr(value, name))
        for value in values
        if not value.NS  # no packet is recorded with it
    ]

    def match(view: View) -> Mask:
        seen = view.rows.column("l4_flags")
        result = np.zeros(len(seen), dtype=np.bool_)
        for bits in wanted:
            result |= (seen & bits) == bits
        return np.asarray(result & (view.rows.column("protocol") == IpProtocol.TCP))

    return match


def _ip_versions(values: Sequence[Any], _node: ObservingNode) -> Predicate:
    numbers = {flow_pb2.IP_NOT_USED: 0, flow_pb2.IPv4: 4, flow_pb2.IPv6: 6}
    wanted = [numbers[value] for value in values if value in numbers]
    return lambda view: _is_one_of(ip_versions(view.rows), wanted)


def _encrypted(values: Sequence[Any], _node: ObservingNode) -> Predicate:
    return _constant(False in values)  # nothing is encrypted between nodes


# --- the event -----------------------------------------------------------------------------------


def _numbers(column: str) -> Compiler:
    def compiler(values: Sequence[Any], _node: ObservingNode) -> Predicate:
        return lambda view: _is_one_of(view.rows.column(column), values)

    return compiler


def _event_types(values: Sequence[Any], _node: ObservingNode) -> Predicate:
    wanted = [(value.type, value.sub_type if value.match_sub_type else None) for value in values]

    def match(view: View) -> Mask:
        types, subtypes = view.rows.column("type"), view.rows.column("subtype")
        result = np.zeros(len(types), dtype=np.bool_)
        for number, subtype in wanted:
            same = _is_one_of(types, (number,))
            result |= same if subtype is None else same & _is_one_of(subtypes, (subtype,))
        return result

    return match


REASON_NUMBERS = np.array(
    [code if code in set(DropReason) else DropReason.UNKNOWN for code in range(256)], dtype=np.uint8
)
"""By datapath code: the number in `flow.DropReason`, which lacks some."""


def _drop_reasons(values: Sequence[Any], _node: ObservingNode) -> Predicate:
    return lambda view: _is_one_of(REASON_NUMBERS[view.rows.column("drop_reason")], values)


def _replies(values: Sequence[Any], _node: ObservingNode) -> Predicate:
    wanted = set(values)

    def match(view: View) -> Mask:
        known, reply = reply_states(view.rows)
        return known if len(wanted) > 1 else np.asarray(known & (reply == next(iter(wanted))))

    return match


def _interfaces(values: Sequence[Any], _node: ObservingNode) -> Predicate:
    wanted = _each(values, _interface)

    def match(view: View) -> Mask:
        indices = view.rows.column("ifindex")
        distinct = np.unique(indices)
        answers = [
            bool(index)
            and any(
                number in (0, index) and name in ("", view.names.interface(index) or "")
                for number, name in wanted
            )
            for index in distinct.tolist()
        ]
        return np.array(answers, dtype=np.bool_)[np.searchsorted(distinct, indices)]

    return match


def _interface(value: flow_pb2.NetworkInterface) -> tuple[int, str]:
    if not value.index and not value.name:
        raise InvalidInputError("an interface needs an index or a name")
    return value.index, value.name


def _uuids(values: Sequence[Any], node: ObservingNode) -> Predicate:
    found = [place for place in _each(values, flowuuid.parse) if place is not None]
    positions = [position for store, position in found if store == node.store_id]

    def match(view: View) -> Mask:
        result = np.zeros(len(view.rows), dtype=np.bool_)
        for position in positions:
            if 0 <= position - view.rows.first < len(result):
                result[position - view.rows.first] = True
        return result

    return match


# --- the node ------------------------------------------------------------------------------------


def _node_names(values: Sequence[Any], node: ObservingNode) -> Predicate:
    cluster, _, name = node.name.partition("/")
    patterns = _each(values, _node_pattern)
    return _constant(
        any(of_cluster.fullmatch(cluster) and of_name.fullmatch(name) for of_cluster, of_name in patterns)
    )


def _node_pattern(value: str) -> tuple[re.Pattern[str], re.Pattern[str]]:
    """`node` of any cluster, `cluster/` all of its nodes, `/node` of the cluster `default`."""
    cluster, slash, name = value.partition("/")
    if not slash:
        return _glob("*"), _glob(value)
    if not cluster and not name:
        raise InvalidInputError(f"{value!r} is not [cluster/][node name]")
    return _glob(cluster or "default"), _glob(name or "*")


def _node_labels(values: Sequence[Any], node: ObservingNode) -> Predicate:
    selectors = _each(values, labelselector.parse)
    return _constant(labelselector.matches_any(selectors, LabelSet.parse(node.labels)))


# --- fields without data: checked, then nothing matches ------------------------------------------


def _nothing(check: Callable[[Any], object]) -> Compiler:
    def compiler(values: Sequence[Any], _node: ObservingNode) -> Predicate:
        _each(values, check)
        return _constant(False)

    return compiler


def _regex(value: str) -> None:
    try:
        re.compile(value)
    except re.error as error:
        raise InvalidInputError(f"{value!r} is not a regular expression: {error}") from error


_STATUS = re.compile(r"[1-5][0-9]{2}|[1-5][0-9]?\+")


def _http_status(value: str) -> None:
    if _STATUS.fullmatch(value) is None:
        raise InvalidInputError(f"{value!r} is not an HTTP status: write 404, 4+ or 40+")


def _text(value: str) -> None:
    if not value:
        raise InvalidInputError("may not be empty")


def _header(value: flow_pb2.HTTPHeader) -> None:
    if not value.key:
        raise InvalidInputError("an HTTP header needs a key")


COMPILERS: dict[str, Compiler] = {
    # cheapest first: the first that matches nothing ends a filter
    "uuid": _uuids,
    "node_name": _node_names,
    "node_labels": _node_labels,
    "encrypted": _encrypted,
    "source_fqdn": _nothing(_glob),
    "destination_fqdn": _nothing(_glob),
    "source_service": _nothing(_pod),
    "destination_service": _nothing(_pod),
    "source_ip_xlated": _nothing(_network),
    "http_status_code": _nothing(_http_status),
    "http_method": _nothing(_text),
    "http_path": _nothing(_regex),
    "http_url": _nothing(_regex),
    "http_header": _nothing(_header),
    "dns_query": _nothing(_regex),
    "trace_id": _nothing(_text),
    "ip_trace_id": _nothing(int),
    "event_type": _event_types,
    "verdict": _numbers("verdict"),
    "drop_reason_desc": _drop_reasons,
    "traffic_direction": _numbers("direction"),
    "protocol": _protocols,
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
    "tcp_flags": _tcp_flags,
    "reply": _replies,
    "interface": _interfaces,
    "ip_version": _ip_versions,
    "source_ip": SOURCE.ips,
    "destination_ip": DESTINATION.ips,
}
