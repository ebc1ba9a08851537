"""What a client asks when it adds an endpoint: the body of `PUT /v1/endpoint/{id}` as a value.

Pure. Input: decoded JSON in the shape of the field's EndpointChangeRequest, with `netns` and `workload`.
Output: `EndpointRequest`, or InvalidInputError with the path of what is wrong. Fields of the full shape that
have no meaning here yet are accepted where they say nothing (empty) and refused otherwise.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from ipaddress import IPv4Address
from typing import Any

from agent.endpoint.model import Workload
from palomar import labels
from palomar.errors import InvalidInputError
from palomar.identity import Reserved
from palomar.labels import Label, LabelSet

MAX_LABELS = 256
MAX_TEXT = 253
_IFNAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,14}")
_TEXTS = ("container-name", "container-interface-name", "k8s-pod-name", "k8s-namespace", "netns")
_OTHERS = ("labels", "addressing", "workload")
_IGNORED = ("id", "state", "container-id", "sync-build-endpoint", "k8s-uid", "pid", "netns-cookie")
"""Known to the field's clients; they change nothing here."""


@dataclass(frozen=True, slots=True)
class EndpointRequest:
    """A wish for an endpoint."""

    container_name: str
    netns: str
    labels: LabelSet
    namespace: str = ""
    pod: str = ""
    container_ifname: str = "eth0"
    ipv4: IPv4Address | None = None
    """The wished address; None: the next free one."""
    workload: Workload | None = None


def parse_request(tree: Any, cluster: str) -> EndpointRequest:
    """Read a decoded body; `cluster` becomes a label of pods. Raises InvalidInputError."""
    if not isinstance(tree, Mapping):
        raise InvalidInputError("the body must be a JSON object")
    _check_names(tree)
    texts = {name: _text(tree, name) for name in _TEXTS}
    if not texts["netns"]:
        raise InvalidInputError("is missing: give the path of the network namespace", "netns")
    if not texts["netns"].startswith("/"):
        raise InvalidInputError(f"{texts['netns']!r} is no absolute path", "netns")
    ifname = texts["container-interface-name"] or "eth0"
    if not _IFNAME.fullmatch(ifname) or ifname == "lo":
        raise InvalidInputError(
            f"{ifname!r} is no name for a device: at most 15 letters, digits, dots and dashes",
            "container-interface-name",
        )
    return EndpointRequest(
        container_name=texts["container-name"] or texts["k8s-pod-name"] or texts["netns"].rpartition("/")[2],
        netns=texts["netns"],
        labels=_labels(tree.get("labels") or [], texts["k8s-namespace"], cluster),
        namespace=texts["k8s-namespace"],
        pod=texts["k8s-pod-name"],
        container_ifname=ifname,
        ipv4=_address(tree.get("addressing")),
        workload=_workload(tree.get("workload")),
    )


def endpoint_labels(given: LabelSet, namespace: str, cluster: str) -> LabelSet:
    """Return `given` with the labels that say where a pod is; `reserved:init` where there are none at all."""
    found = list(given)
    if namespace:
        found += [
            Label(labels.NAMESPACE_KEY, "k8s", namespace),
            Label(labels.CLUSTER_KEY, "k8s", cluster),
        ]
    return LabelSet(found or [Label(Reserved.INIT.label_name, "reserved")])


def _check_names(tree: Mapping[str, Any]) -> None:
    known = (*_TEXTS, *_OTHERS, *_IGNORED)
    for name, value in tree.items():
        if name not in known and value not in (None, "", [], {}, 0, False):
            near = get_close_matches(str(name), known, n=1)
            raise InvalidInputError(f"unknown field{f': did you mean {near[0]}?' if near else ''}", str(name))


def _text(tree: Mapping[str, Any], name: str) -> str:
    value = tree.get(name)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise InvalidInputError(f"must be text, not {type(value).__name__}", name)
    if name != "netns" and len(value) > MAX_TEXT:
        raise InvalidInputError(f"has {len(value)} characters: at most {MAX_TEXT}", name)
    if any(ord(character) < 32 for character in value):
        raise InvalidInputError("holds control characters", name)
    return value


def _labels(value: Any, namespace: str, cluster: str) -> LabelSet:
    if not isinstance(value, list):
        raise InvalidInputError("must be a list of texts such as k8s:app=web", "labels")
    if len(value) > MAX_LABELS:
        raise InvalidInputError(f"has {len(value)} items: at most {MAX_LABELS}", "labels")
    found = []
    for index, text in enumerate(value):
        path = f"labels[{index}]"
        if not isinstance(text, str):
            raise InvalidInputError(f"must be text, not {type(text).__name__}", path)
        try:
            label = labels.parse(text)
        except InvalidInputError as error:
            raise InvalidInputError(error.reason, path) from error
        if label.source in ("reserved", "cidr"):
            raise InvalidInputError(f"{text!r}: the source {label.source} cannot be given", path)
        found.append(label)
    return endpoint_labels(LabelSet(found), namespace, cluster)


def _address(value: Any) -> IPv4Address | None:
    if value is None:
        return None
    if not isinstance(value, Mapping):
        raise InvalidInputError('must be an object such as {"ipv4": "10.1.0.5"}', "addressing")
    text = value.get("ipv4")
    if not text:
        return None
    try:
        return IPv4Address(text)
    except ValueError as error:
        raise InvalidInputError(f"{text!r} is no IPv4 address", "addressing.ipv4") from error


def _workload(value: Any) -> Workload | None:
    if value is None:
        return None
    if not isinstance(value, Mapping):
        raise InvalidInputError("must be an object with name and kind", "workload")
    name, kind = _text(value, "name"), _text(value, "kind")
    return Workload(name, kind) if name else None
