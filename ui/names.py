"""Who a side of a flow is: the workload name the service map shows.

Pure. Input: `flow.Endpoint` messages as they came over the wire, so anything may be in them; output:
`Workload` values whose texts are bounded. Not here: counting (`ui.model`), drawing (`ui.servicemap`).
"""

import hashlib
import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass

from palomar.identity import is_local_scope, reserved_name
from palomar_pb.flow import flow_pb2

MAX_NAME_CHARS = 72
"""Longer names are cut and end in a digest, so that two of them stay two."""
APP_LABELS = ("app.kubernetes.io/name", "app", "k8s-app", "app.kubernetes.io/component", "name")
CACHE_LIMIT = 20_000

_REPLICA = re.compile(r"(-[bcdf0-9][bcdfghjklmnpqrstvwxz2456789]{4,9})?-[bcdfghjklmnpqrstvwxz2456789]{5}$")
"""`-7c9d8f6b5-fghij` of a Deployment, `-fghij` of a DaemonSet (the field's suffix alphabet)."""
_HASHED = re.compile(r"-[a-f0-9]{8,10}-[a-z0-9]{5}$")
_ORDINAL = re.compile(r"-\d{1,4}$")

OUTSIDE, NODES = "@outside", "@nodes"
"""Groups of workloads that live in no namespace; `@` cannot open a namespace's name."""
NODE_NAMES = frozenset({"host", "remote-node", "kube-apiserver", "health"})


@dataclass(frozen=True, slots=True, order=True)
class Workload:
    """One card of the map; equal when namespace and name are."""

    namespace: str
    """A namespace, `@outside` or `@nodes`."""
    name: str

    @property
    def id(self) -> str:
        """`shop/api`: unique, bounded, good for a URL."""
        return f"{self.namespace}/{self.name}"

    @property
    def reserved(self) -> bool:
        """Tell whether it is no pod: the world, a host, a network."""
        return self.namespace.startswith("@")


def group_title(namespace: str) -> str:
    """Text over a group's box."""
    return {OUTSIDE: "outside the cluster", NODES: "nodes"}.get(namespace, namespace or "no namespace")


def clip(text: str, limit: int = MAX_NAME_CHARS) -> str:
    """Cut `text` to `limit` characters; a cut one ends in an ellipsis and 6 digits of its digest."""
    text = "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in text)
    if len(text) <= limit:
        return text
    digest = hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()[:6]
    return f"{text[: limit - 7]}…{digest}"


def between(source: str, destination: str, arrow: str = " → ") -> str:
    """Write `source → destination`; names that run right to left are kept from turning the arrow around."""
    return f"{_isolated(source)}{arrow}{_isolated(destination)}"


def _isolated(name: str) -> str:
    if not any(unicodedata.bidirectional(char) in ("R", "AL", "AN") for char in name):
        return name
    return f"\N{FIRST STRONG ISOLATE}{name}\N{POP DIRECTIONAL ISOLATE}"


class WorkloadNames:
    """Finds workloads of endpoints; remembers them by pod and identity. Cost: a dictionary look-up."""

    def __init__(self) -> None:
        """Start empty."""
        self._known: dict[tuple[str, str, int], Workload] = {}
        self._workloads: dict[Workload, Workload] = {}
        """One object for all pods of a workload."""

    def of(self, endpoint: flow_pb2.Endpoint, address: str) -> Workload:
        """Return the workload of one side of a flow; `address` helps where nothing else is known."""
        key = (endpoint.namespace, endpoint.pod_name or address, endpoint.identity)
        found = self._known.get(key)
        if found is None:
            found = workload_of(endpoint, address)
            if len(self._known) >= CACHE_LIMIT:
                self._known.clear()
                self._workloads.clear()
            found = self._known[key] = self._workloads.setdefault(found, found)
        return found


def workload_of(endpoint: flow_pb2.Endpoint, address: str) -> Workload:
    """Name it by workload, else app label, else pod prefix, else reserved name, else what is left."""
    if endpoint.pod_name or endpoint.workloads:
        return Workload(clip(endpoint.namespace), clip(_pod_owner(endpoint)))
    return _without_pod(endpoint, address)


def _pod_owner(endpoint: flow_pb2.Endpoint) -> str:
    named = deciding_workload(endpoint)
    if named:
        return named
    label = deciding_label(endpoint)
    return label.partition("=")[2] if label else pod_prefix(endpoint.pod_name)


def deciding_workload(endpoint: flow_pb2.Endpoint) -> str:
    """Return the workload that names the endpoint; empty where it names none."""
    return next((workload.name for workload in endpoint.workloads if workload.name), "")


def deciding_label(endpoint: flow_pb2.Endpoint) -> str:
    """Return the app label that names an endpoint without a workload, `app=web`; empty where it has none."""
    values = _label_values(endpoint.labels)
    return next((f"{key}={values[key]}" for key in APP_LABELS if values.get(key)), "")


def network_of(endpoint: flow_pb2.Endpoint) -> str:
    """Return the CIDR that an identity of the node's own scope stands for; empty for any other."""
    if not is_local_scope(endpoint.identity):
        return ""
    cidrs = (label.removeprefix("cidr:") for label in endpoint.labels if label.startswith("cidr:"))
    return next(cidrs, "").partition("=")[0]


def _without_pod(endpoint: flow_pb2.Endpoint, address: str) -> Workload:
    cidr = network_of(endpoint)
    if cidr:
        return Workload(OUTSIDE, clip(cidr))
    marked = (label.removeprefix("reserved:") for label in endpoint.labels if label.startswith("reserved:"))
    reserved = next(marked, "").partition("=")[0] or reserved_name(endpoint.identity) or ""
    if reserved and reserved != "unknown":
        return Workload(NODES if reserved in NODE_NAMES else OUTSIDE, clip(reserved))
    label = deciding_label(endpoint)
    if label:
        return Workload(clip(endpoint.namespace), clip(label.partition("=")[2]))
    if endpoint.identity:
        return Workload(clip(endpoint.namespace) or OUTSIDE, f"identity {endpoint.identity}")
    return Workload(OUTSIDE, clip(address) or "unknown")


def pod_prefix(pod_name: str) -> str:
    """`web-7c9d8f6b5-fghij` → `web`, `db-0` → `db`; a name without such a suffix as it is."""
    for pattern in (_HASHED, _REPLICA, _ORDINAL):
        cut = pattern.sub("", pod_name)
        if cut and cut != pod_name:
            return cut
    return pod_name


def _label_values(labels: Iterable[str]) -> dict[str, str]:
    values = {}
    for label in labels:
        name, _, value = label.partition("=")
        values[name.partition(":")[2] or name] = value
    return values
