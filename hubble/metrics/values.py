"""What one side of a flow is called in a label: the identifiers of context options.

Pure. Input: an endpoint and, for `ip`, its address; output: text, empty where there is nothing to say.
"""

from collections.abc import Callable
from ipaddress import IPv4Address, IPv6Address

from hubble.flowendpoint import FlowEndpoint
from hubble.metrics.spec import Alternatives

APP_LABELS = ("k8s:app.kubernetes.io/name=", "k8s:k8s-app=", "k8s:app=")
_RESERVED = "reserved:"
_KUBE_APISERVER = "reserved:kube-apiserver"
WORLD = frozenset({"reserved:world", "reserved:world-ipv4", "reserved:world-ipv6"})


def _scoped(endpoint: FlowEndpoint, name: str) -> str:
    return f"{endpoint.namespace}/{name}" if name and endpoint.namespace else name


def _workload_name(endpoint: FlowEndpoint) -> str:
    return endpoint.workloads[0].name if endpoint.workloads else ""


def _workload_kind(endpoint: FlowEndpoint) -> str:
    return endpoint.workloads[0].kind if endpoint.workloads else ""


def _reserved_identity(endpoint: FlowEndpoint) -> str:
    if _KUBE_APISERVER in endpoint.labels:
        return _KUBE_APISERVER
    return next((label for label in endpoint.labels if label.startswith(_RESERVED)), "")


def _app(endpoint: FlowEndpoint) -> str:
    for prefix in APP_LABELS:
        for label in endpoint.labels:
            if label.startswith(prefix):
                return label.removeprefix(prefix)
    return ""


_BY_IDENTIFIER: dict[str, Callable[[FlowEndpoint], str]] = {
    "identity": lambda endpoint: ",".join(endpoint.labels),
    "namespace": lambda endpoint: endpoint.namespace,
    "pod": lambda endpoint: _scoped(endpoint, endpoint.pod),
    "pod-name": lambda endpoint: endpoint.pod,
    "reserved-identity": _reserved_identity,
    "workload": lambda endpoint: _scoped(endpoint, _workload_name(endpoint)),
    "workload-name": _workload_name,
    "app": _app,
}
_BY_LABEL: dict[str, Callable[[FlowEndpoint], str]] = {
    "pod": lambda endpoint: endpoint.pod,
    "namespace": lambda endpoint: endpoint.namespace,
    "workload": _workload_name,
    "workload_kind": _workload_kind,
    "app": _app,
}


def context_value(alternatives: Alternatives, endpoint: FlowEndpoint, address: str) -> str:
    """Return the first of `alternatives` that says something (`dns` never does: no names are seen yet)."""
    for identifier in alternatives:
        if identifier == "ip":
            value = address
        elif identifier == "dns":
            value = ""
        else:
            value = _BY_IDENTIFIER[identifier](endpoint)
        if value:
            return value
    return ""


def label_value(label: str, endpoint: FlowEndpoint, address: str) -> str:
    """Return a label of `labelsContext`, by its name without the side's."""
    return address if label == "ip" else _BY_LABEL[label](endpoint)


def is_world(endpoint: FlowEndpoint) -> bool:
    """Tell whether the endpoint is outside the cluster."""
    return not WORLD.isdisjoint(endpoint.labels)


def address_text(stored: bytes) -> str:
    """Return an address as the store keeps it (16 octets, IPv4 in the first four) as text; empty for none.

    An IPv6 address that ends in twelve zero octets reads as IPv4: such is a network's, never a packet's.
    """
    if not any(stored):
        return ""
    return str(IPv6Address(stored)) if any(stored[4:]) else str(IPv4Address(stored[:4]))
