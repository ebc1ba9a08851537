"""Attributes of an OTLP log record as bytes: names by OpenTelemetry's semantic conventions, values encoded.

Pure. The names a convention has are used as they are; what it lacks is `palomar.*`. A side of a flow
carries the `k8s.*` names behind `source.` or `destination.`, because a record is about two pods. Source:
opentelemetry/proto/common/v1/common.proto (KeyValue, AnyValue), logs/v1/logs.proto (LogRecord).
"""

from collections.abc import Sequence

from hubble.wirebytes import delimited, tag, varint

NETWORK_TRANSPORT = "network.transport"
NETWORK_TYPE = "network.type"
NETWORK_IO_DIRECTION = "network.io.direction"
NETWORK_INTERFACE_NAME = "network.interface.name"
SOURCE_ADDRESS = "source.address"
SOURCE_PORT = "source.port"
DESTINATION_ADDRESS = "destination.address"
DESTINATION_PORT = "destination.port"
K8S_POD_NAME = "k8s.pod.name"
K8S_NAMESPACE_NAME = "k8s.namespace.name"
K8S_CLUSTER_NAME = "k8s.cluster.name"
K8S_NODE_NAME = "k8s.node.name"
WORKLOAD_NAMES = {
    "Deployment": "k8s.deployment.name",
    "StatefulSet": "k8s.statefulset.name",
    "DaemonSet": "k8s.daemonset.name",
    "ReplicaSet": "k8s.replicaset.name",
    "Job": "k8s.job.name",
    "CronJob": "k8s.cronjob.name",
}
"""By kind of workload; another kind is `palomar.workload.name`."""
OTHER_WORKLOAD = "palomar.workload.name"

VERDICT = "palomar.flow.verdict"
EVENT_TYPE = "palomar.flow.type"
OBSERVATION_POINT = "palomar.flow.observation_point"
TRACE_REASON = "palomar.flow.trace_reason"
DIRECTION = "palomar.flow.direction"
IS_REPLY = "palomar.flow.is_reply"
DROP_REASON = "palomar.flow.drop_reason"
DROP_REASON_TEXT = "palomar.flow.drop_reason_text"
FLOW_UUID = "palomar.flow.uuid"
FLOW_PACKETS = "palomar.flow.packets"
FLOW_BYTES = "palomar.flow.bytes"
PACKET_SIZE = "palomar.packet.size"
RTT = "palomar.flow.rtt_us"
TCP_FLAGS = "palomar.tcp.flags"
ICMP_TYPE = "palomar.icmp.type"
ICMP_CODE = "palomar.icmp.code"
POLICY_MATCH = "palomar.policy.match"
POLICY_NAMES = "palomar.policy.names"
POLICY_RULE = "palomar.policy.rule"
DEFAULT_DENY_BY = "palomar.policy.default_deny_by"
IDENTITY = "palomar.identity"
LABELS = "palomar.labels"

_ATTRIBUTES = tag(6, delimited=True)
"""LogRecord.attributes."""
_KEY, _VALUE = tag(1, delimited=True), tag(2, delimited=True)
_STRING = tag(1, delimited=True)
_BOOL, _INT = tag(2, delimited=False), tag(3, delimited=False)
_ARRAY, _ARRAY_VALUES = tag(5, delimited=True), tag(1, delimited=True)


def utf8(text: str) -> bytes:
    """Encode; half a surrogate pair, which JSON can carry, becomes a question mark."""
    return text.encode("utf-8", "replace")


def _attribute(key: str, any_value: bytes) -> bytes:
    return delimited(_ATTRIBUTES, delimited(_KEY, key.encode()) + delimited(_VALUE, any_value))


def text_value(text: bytes) -> bytes:
    """Return an AnyValue that is a string."""
    return delimited(_STRING, text)


def text(key: str, value: str) -> bytes:
    """Return a string attribute; nothing for an empty one."""
    return _attribute(key, text_value(utf8(value))) if value else b""


def flag(key: str, value: bool) -> bytes:
    """Return a boolean attribute."""
    return _attribute(key, _BOOL + (b"\x01" if value else b"\x00"))


def number(key: str, value: int) -> bytes:
    """Return an integer attribute of a number that is not negative."""
    return _attribute(key, _INT + varint(value))


def texts(key: str, values: Sequence[str]) -> bytes:
    """Return an attribute that is a list of strings; nothing for an empty one."""
    if not values:
        return b""
    array = b"".join(delimited(_ARRAY_VALUES, text_value(utf8(value))) for value in values)
    return _attribute(key, delimited(_ARRAY, array))


class FixedText:
    """A string attribute whose values all have one length: only the value is joined per row."""

    def __init__(self, key: str, length: int) -> None:
        """`length` in bytes."""
        empty = text(key, "x" * length)
        self.head = empty[: len(empty) - length]
        """What comes before the value."""


class TextHeads(dict[int, bytes]):
    """What comes before the text in a field whose value is a string, by the text's length."""

    def __init__(self, field_tag: bytes) -> None:
        """`field_tag` is the field's."""
        super().__init__()
        self._tag = field_tag

    def __missing__(self, length: int) -> bytes:
        """Make it."""
        made = delimited(self._tag, text_value(b"x" * length))
        self[length] = head = made[: len(made) - length]
        return head


class Numbers(dict[int, bytes]):
    """Integer attributes of one key, made when first asked for; a full cache starts again."""

    LIMIT = 65536

    def __init__(self, key: str) -> None:
        """`key` is the attribute's."""
        super().__init__()
        self._key = key

    def __missing__(self, value: int) -> bytes:
        """Make it; 0 is nothing."""
        made = number(self._key, value) if value else b""
        if len(self) >= self.LIMIT:
            self.clear()
        self[value] = made
        return made
