"""Stored records and names in, `flow.Flow` out: as Hubble says it, plus our own extension.

Pure. Input: rows of the flow store and the names their references stand for; output: serialised
flows and GetFlowsResponses. Parts that repeat (endpoints, addresses, policies, everything that
follows from the event's kind) are encoded once and joined as bytes: that is most of the speed.
Not here: what each part says (`hubble.flowmessages`), which rows (`hubble.filters`), when and to whom
(`hubble.flowstream`).
"""

import weakref
from collections.abc import Callable, Hashable, Iterable, Sequence
from ipaddress import IPv4Address
from typing import Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from hubble import flowuuid
from hubble.fieldmask import FlowMask, trim
from hubble.flowbatch import Batch, Indices, unpack_kind
from hubble.flowendpoint import Names, resolve
from hubble.flowmessages import (
    Decision,
    endpoint_message,
    ethernet_message,
    ip_message,
    kind_flow,
    l4_message,
    policies_extension,
    policies_flow,
)
from hubble.names import PolicyName, PolicyRule
from hubble.observingnode import ObservingNode
from hubble.rows import Column, Rows
from hubble.wirebytes import delimited, number_fields, tag, varint
from palomar.sourcefile import source_file_name
from palomar_pb.flow import flow_pb2
from palomar_pb.observer import observer_pb2
from palomar_pb.palomar.v1 import flow_ext_pb2

NO_RULE = PolicyRule(cookie=0)
CACHE_LIMIT = 65536
"""Entries of one cache of ready-made parts; a full one is emptied (addresses and ports never end)."""


def _flow_tag(name: str) -> bytes:
    field = flow_pb2.Flow.DESCRIPTOR.fields_by_name[name]
    return tag(field.number, delimited=field.message_type is not None or field.type == field.TYPE_STRING)


def _response_tag(name: str) -> bytes:
    return tag(observer_pb2.GetFlowsResponse.DESCRIPTOR.fields_by_name[name].number, delimited=True)


def _extension_tag(name: str) -> bytes:
    field = flow_ext_pb2.FlowExtension.DESCRIPTOR.fields_by_name[name]
    return tag(field.number, delimited=field.message_type is not None or field.type == field.TYPE_STRING)


TIME, UUID, EXTENSIONS = _flow_tag("time"), _flow_tag("uuid"), _flow_tag("extensions")
RESPONSE_FLOW, RESPONSE_NODE = _response_tag("flow"), _response_tag("node_name")
RESPONSE_TIME = _response_tag("time")
EXTENSION_NUMBERS = {
    "packets": _extension_tag("packets"),
    "bytes": _extension_tag("bytes"),
    "rtt_us": _extension_tag("rtt_us"),
    "cpu": _extension_tag("cpu"),
    "seq": _extension_tag("sequence"),
    "policy_cookie": _extension_tag("policy_cookie"),
    "tcp_flags_seen": _extension_tag("tcp_flags_seen"),
    "length": _extension_tag("length"),
}
"""By field of the record."""
OVERLAID = ("packets", "bytes")
ANY_TYPE_URL = delimited(
    tag(1, delimited=True),
    f"type.googleapis.com/{flow_ext_pb2.FlowExtension.DESCRIPTOR.full_name}".encode(),
)
ANY_VALUE = tag(2, delimited=True)
POLICY_FIELDS = ("egress_allowed_by", "ingress_allowed_by", "egress_denied_by", "ingress_denied_by")
KIND_FIELDS = (
    "verdict",
    "drop_reason",
    "Type",
    "node_name",
    "node_labels",
    "reply",
    "event_type",
    "traffic_direction",
    "policy_match_type",
    "trace_observation_point",
    "trace_reason",
    "drop_reason_desc",
    "is_reply",
    "Summary",
)
"""Fields of a flow that `kind_flow` fills."""


class FlowNames(Names, Protocol):
    """What flows say beyond what filters ask."""

    def policy(self, cookie: int) -> PolicyRule | None:
        """What a policy cookie stands for; None when that is not known (yet)."""
        ...


K = TypeVar("K", bound=Hashable)


class Parts(dict[K, bytes]):
    """Encoded parts by what they depend on, made when first asked for."""

    def __init__(self, make: Callable[[K], tuple[bytes, bool]]) -> None:
        """`make` returns a part and whether it may be kept (not while a name is still missing)."""
        super().__init__()
        self._make = make

    def __missing__(self, key: K) -> bytes:
        """Make the part; an overfull cache starts again."""
        part, keep = self._make(key)
        if keep:
            if len(self) >= CACHE_LIMIT:
                self.clear()
            self[key] = part
        return part

    def of(self, keys: npt.NDArray[np.uint64]) -> list[bytes]:
        """The parts for every row."""
        return [self[key] for key in keys.tolist()]


def _extension_head(size: int) -> tuple[bytes, bool]:
    """Everything of the `extensions` field before a FlowExtension of `size` bytes."""
    before = ANY_TYPE_URL + ANY_VALUE + varint(size)
    return EXTENSIONS + varint(len(before) + size) + before, True


class FlowBuilder:
    """Builds flows of one node for one request; keeps the parts it has encoded.

    `mask` None is every field. Cost: a few microseconds a flow with warm caches.
    """

    def __init__(self, node: ObservingNode, names: FlowNames, mask: FlowMask | None = None) -> None:
        """`names` is asked once per reference, cookie or interface that it knows."""
        self._node = node
        self._names = names
        self._mask = mask
        self._uuid_prefix = flowuuid.prefix(node.store_id).encode()
        self._node_field = delimited(RESPONSE_NODE, node.name.encode())
        self._kinds: Parts[int] = self._kept(FlowBuilder._make_kind)
        self._ips: Parts[bytes] = self._kept(FlowBuilder._make_ip)
        self._l4s: Parts[int] = self._kept(FlowBuilder._make_l4)
        self._sources: Parts[int] = self._kept(FlowBuilder._make_source)
        self._destinations: Parts[int] = self._kept(FlowBuilder._make_destination)
        self._interfaces: Parts[int] = self._kept(FlowBuilder._make_interface)
        self._files: Parts[int] = self._kept(FlowBuilder._make_file)
        self._policies: Parts[int] = self._kept(FlowBuilder._make_policies)
        self._rules: Parts[int] = self._kept(FlowBuilder._make_rules)
        self._peers: Parts[int] = self._kept(FlowBuilder._make_peer)
        self._extension_heads = Parts[int](_extension_head)

    def _kept(self, make: Callable[["FlowBuilder", K], tuple[bytes, bool]]) -> Parts[K]:
        """Return parts that do not hold the builder, so that all of them go with its request, at once."""
        builder = weakref.ref(self)

        def of_this(key: K) -> tuple[bytes, bool]:
            this = builder()
            assert this is not None  # whoever asks holds it
            return make(this, key)

        return Parts[K](of_this)

    def forget_names(self) -> None:
        """Names were said again: encode them anew."""
        for parts in (self._sources, self._destinations, self._interfaces, self._policies, self._rules):
            parts.clear()

    def responses(self, rows: Rows, indices: Indices) -> list[bytes]:
        """Serialised GetFlowsResponses of the rows at `indices`, in that order."""
        batch = Batch(rows, indices)
        middle = self._node_field + RESPONSE_TIME
        return [
            b"".join((RESPONSE_FLOW, varint(len(flow)), flow, middle, varint(len(time)), time))
            for flow, time in zip(self._flows(batch), batch.timestamps, strict=True)
        ]

    def flows(self, rows: Rows, indices: Indices) -> list[bytes]:
        """Serialised flow.Flows of the rows at `indices`, in that order."""
        return self._flows(Batch(rows, indices))

    def _flows(self, batch: Batch) -> list[bytes]:
        """Make each part for all rows, then join the parts row by row; parts nobody wants are not made."""
        wanted = (
            (("time",), self._times),
            (("uuid",), self._uuids),
            (KIND_FIELDS, lambda b: self._kinds.of(b.kinds)),
            (("IP",), lambda b: [self._ips[key] for key in b.address_keys()]),
            (("l4",), lambda b: self._l4s.of(b.l4_keys())),
            (("source",), lambda b: self._sources.of(b.endpoint_keys("src"))),
            (("destination",), lambda b: self._destinations.of(b.endpoint_keys("dst"))),
            (("interface",), lambda b: self._interfaces.of(b.column("ifindex"))),
            (("file",), lambda b: self._files.of(b.file_keys())),
            (POLICY_FIELDS, lambda b: self._policies.of(b.policy_keys)),
            (("ethernet",), self._ethernets),
            (("extensions",), self._extensions),
        )
        parts = [make(batch) for names, make in wanted if self._wants(names)]
        return [b"".join(row) for row in zip(*parts, strict=True)] if parts else [b""] * len(batch)

    def _wants(self, names: Iterable[str]) -> bool:
        return self._mask is None or any(self._mask.wants(name) for name in names)

    def _part(self, flow: flow_pb2.Flow) -> bytes:
        """Encode a flow that holds only a part, without what the mask leaves out."""
        if self._mask is not None:
            trim(flow, self._mask.tree)
        return flow.SerializeToString()

    # Parts that differ from row to row

    def _times(self, batch: Batch) -> list[bytes]:
        if self._mask is not None and self._mask.parts("time"):
            return [self._part(flow_pb2.Flow.FromString(delimited(TIME, t))) for t in batch.timestamps]
        return [b"".join((TIME, varint(len(time)), time)) for time in batch.timestamps]

    def _uuids(self, batch: Batch) -> list[bytes]:
        head = UUID + varint(flowuuid.LENGTH) + self._uuid_prefix
        return [head + flowuuid.tail(position) for position in batch.positions.tolist()]

    def _ethernets(self, batch: Batch) -> list[bytes]:
        parts = [b""] * len(batch)
        for row in np.flatnonzero(batch.has_macs).tolist():
            flow = flow_pb2.Flow(ethernet=ethernet_message(*batch.macs(row)))
            parts[row] = self._part(flow)
        return parts

    def _extensions(self, batch: Batch) -> list[bytes]:
        values = number_fields(self._counters(batch))
        for column, parts in (("policy_cookie", self._rules), ("tunnel_ipv4", self._peers)):
            if batch.column(column).any():
                keys = batch.policy_keys if parts is self._rules else batch.column(column)
                values = [value + part for value, part in zip(values, parts.of(keys), strict=True)]
        heads = self._extension_heads
        extensions = [heads[len(value)] + value for value in values]
        if self._mask is not None and self._mask.parts("extensions"):
            return [self._part(flow_pb2.Flow.FromString(extension)) for extension in extensions]
        return extensions

    def _counters(self, batch: Batch) -> list[tuple[bytes, Column]]:
        """Tag and values of the extension's numbers; without those that MAC addresses lie over."""
        has_macs = batch.has_macs
        return [
            (tag_, np.where(has_macs, 0, batch.column(name)) if name in OVERLAID else batch.column(name))
            for name, tag_ in EXTENSION_NUMBERS.items()
        ]

    # Parts that are made once and kept

    def _make_kind(self, key: int) -> tuple[bytes, bool]:
        return self._part(kind_flow(unpack_kind(key), self._node)), True

    def _make_ip(self, key: bytes) -> tuple[bytes, bool]:
        if not key[0]:
            return b"", True
        return self._part(flow_pb2.Flow(IP=ip_message(key[0], key[1:17], key[17:33]))), True

    def _make_l4(self, key: int) -> tuple[bytes, bool]:
        message = l4_message(key >> 16 & 0xFF, key >> 48, key >> 32 & 0xFFFF, key >> 8 & 0xFF, key & 0xFF)
        return self._part(flow_pb2.Flow(l4=message)) if message.ByteSize() else b"", True

    def _make_source(self, key: int) -> tuple[bytes, bool]:
        endpoint, final = resolve(self._names, key >> 32, key & 0xFFFFFFFF)
        return self._part(flow_pb2.Flow(source=endpoint_message(endpoint))), final

    def _make_destination(self, key: int) -> tuple[bytes, bool]:
        endpoint, final = resolve(self._names, key >> 32, key & 0xFFFFFFFF)
        return self._part(flow_pb2.Flow(destination=endpoint_message(endpoint))), final

    def _make_interface(self, index: int) -> tuple[bytes, bool]:
        if not index:
            return b"", True
        name = self._names.interface(index)
        interface = flow_pb2.NetworkInterface(index=index, name=name or "")
        return self._part(flow_pb2.Flow(interface=interface)), name is not None

    def _make_file(self, key: int) -> tuple[bytes, bool]:
        if not key:
            return b"", True
        file = flow_pb2.FileInfo(name=source_file_name(key >> 16), line=key & 0xFFFF)
        return self._part(flow_pb2.Flow(file=file)), True

    def _make_policies(self, key: int) -> tuple[bytes, bool]:
        return self._decided(key, lambda kind, found: self._part(policies_flow(kind, found)))

    def _make_rules(self, key: int) -> tuple[bytes, bool]:
        return self._decided(key, lambda kind, found: policies_extension(kind, found).SerializeToString())

    def _decided(
        self, key: int, encode: Callable[[Decision, Sequence[PolicyName]], bytes]
    ) -> tuple[bytes, bool]:
        cookie = key >> 32
        found = self._names.policy(cookie) if cookie else NO_RULE
        return encode(Decision.unpack(key), found.policies if found else ()), found is not None

    def _make_peer(self, address: int) -> tuple[bytes, bool]:
        if not address:
            return b"", True
        return flow_ext_pb2.FlowExtension(tunnel_peer=str(IPv4Address(address))).SerializeToString(), True
