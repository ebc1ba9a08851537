"""The agent's things in the shapes of the field's API definitions. Pure: values in, JSON values out."""

import hashlib
from collections.abc import Mapping
from datetime import UTC, datetime
from ipaddress import IPv4Network
from typing import Any

from agent.endpoint.model import Endpoint, EndpointState
from agent.endpoint.statuslog import StatusChange
from agent.ipcache import IpInfo
from agent.policy.resolve import EndpointPolicy
from cluster.backend import NodeEntry
from palomar.identity import NumericIdentity
from palomar.labels import LabelSet
from palomar.table import RowState

LOG_IN_ENDPOINT = 10
"""How many changes `GET /endpoint/{id}` shows; all are under `/log`."""


def text_time(time_ns: int) -> str:
    """RFC 3339 with nanoseconds, UTC."""
    seconds, nanos = divmod(time_ns, 10**9)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{nanos:09d}Z"


def identity(number: int, labels: LabelSet) -> dict[str, Any]:
    """Return an Identity."""
    texts = labels.texts()
    digest = hashlib.sha256(labels.canonical().encode()).hexdigest()
    return {"id": int(number), "labels": texts, "labelsSHA256": digest}


def endpoint(
    item: Endpoint, policy: EndpointPolicy | None, revision: int, row_state: RowState | None
) -> dict[str, Any]:
    """Return an Endpoint; `row_state` is how far its policy map is."""
    record = item.record
    identified = bool(record.identity)
    others = [label for label in record.labels.texts() if label not in set(record.identity_labels.texts())]
    return {
        "id": item.endpoint_id,
        "spec": {"label-configuration": {"user": []}, "options": {}},
        "status": {
            "external-identifiers": {
                "container-name": record.container_name,
                "k8s-namespace": record.namespace,
                "k8s-pod-name": record.pod,
                "pod-name": record.pod_name,
            },
            "identity": identity(record.identity, record.identity_labels) if identified else None,
            "labels": {
                "realized": {"user": []},
                "security-relevant": record.identity_labels.texts(),
                "derived": others,
                "disabled": [],
            },
            "networking": _networking(item),
            "policy": {
                "spec": endpoint_policy(item, policy, revision),
                "realized": endpoint_policy(item, policy if row_state is RowState.DONE else None, revision),
            },
            "log": status_log(item.log.newest_first()[:LOG_IN_ENDPOINT]),
            "health": health(item, row_state),
            "state": str(item.state),
        },
        "palomar": _own(item),
    }


def _networking(item: Endpoint) -> dict[str, Any]:
    record, device = item.record, item.device
    return {
        "addressing": [{"ipv4": str(record.ipv4)}] if int(record.ipv4) else [],
        "host-mac": _mac(device.host_mac) if device else "",
        "mac": _mac(device.mac) if device else "",
        "interface-name": record.host_ifname,
        "interface-index": device.ifindex if device else 0,
        "container-interface-name": record.container_ifname,
    }


def _own(item: Endpoint) -> dict[str, Any]:
    record, workload = item.record, item.record.workload
    return {
        "netns": record.netns,
        "workload": {"name": workload.name, "kind": workload.kind} if workload else None,
        "created": text_time(record.created_ns),
        "restored": item.restored,
        "add-ms": {name: round(seconds * 1000, 2) for name, seconds in item.stages_s.items()},
    }


def endpoint_policy(item: Endpoint, policy: EndpointPolicy | None, revision: int) -> dict[str, Any]:
    """Return an EndpointPolicy; of one that is not there, an empty one at revision 0."""
    if policy is None:
        return {"id": int(item.record.identity), "policy-revision": 0, "policy-enabled": "none"}
    found: dict[str, Any] = {
        "id": int(item.record.identity),
        "policy-revision": revision,
        "policy-enabled": policy.enforced,
    }
    for direction, egress in (("ingress", False), ("egress", True)):
        for word, deny in (("allowed", False), ("denied", True)):
            numbers = {
                key.identity
                for key, entry in policy.entries.items()
                if key.egress == egress and entry.deny == deny
            }
            found[f"{word}-{direction}-identities"] = sorted(numbers)
    return found


def health(item: Endpoint, row_state: RowState | None) -> dict[str, Any]:
    """Return an EndpointHealth."""
    words = {
        EndpointState.READY: "OK",
        EndpointState.NOT_READY: "Failure",
        EndpointState.RESTORING: "Bootstrap",
        EndpointState.WAITING_FOR_IDENTITY: "Bootstrap",
        EndpointState.REGENERATING: "Pending",
    }
    programs = words.get(item.state, "Disabled")
    rows = {RowState.DONE: "OK", RowState.PENDING: "Pending", RowState.ERROR: "Failure"}
    policy = rows[row_state] if row_state is not None else "Bootstrap"
    worst = next(
        (word for word in ("Failure", "Bootstrap", "Pending") if word in (programs, policy)), programs
    )
    return {
        "overallHealth": worst,
        "bpf": programs,
        "policy": policy,
        "connected": item.state is EndpointState.READY,
    }


def status_log(changes: list[StatusChange]) -> list[dict[str, str]]:
    """Return an EndpointStatusLog, newest first."""
    return [
        {
            "timestamp": text_time(change.time_ns),
            "code": "ok" if change.ok else "failed",
            "message": change.message,
            "state": change.state,
        }
        for change in changes
    ]


def node_element(node: NodeEntry) -> dict[str, Any]:
    """Return a NodeElement."""
    return {
        "name": node.full_name,
        "primary-address": {
            "ipv4": {
                "enabled": True,
                "ip": str(node.node_ipv4 or ""),
                "alloc-range": str(node.ipv4_alloc_cidr or ""),
                "address-type": "InternalIP",
            },
            "ipv6": {"enabled": False},
        },
        "secondary-addresses": [
            {"enabled": True, "ip": address.ip, "address-type": str(address.type)}
            for address in node.addresses
            if address.ip != str(node.node_ipv4)
        ],
        "source": node.source,
    }


def ip_list(entries: Mapping[IPv4Network, IpInfo]) -> list[dict[str, Any]]:
    """Return IPListEntries, by prefix."""
    return [
        {
            "cidr": str(network),
            "identity": int(info.identity),
            "hostIP": str(info.tunnel_endpoint or "0.0.0.0"),  # noqa: S104  # the field's word for none
            "encryptKey": 0,
            "metadata": {
                "source": info.source.name.lower(),
                "namespace": info.namespace,
                "name": info.pod,
            },
        }
        for network, info in sorted(entries.items())
    ]


def identities(known: Mapping[NumericIdentity, LabelSet]) -> list[dict[str, Any]]:
    """Return Identities, by number."""
    return [identity(number, known[number]) for number in sorted(known)]


def _mac(raw: bytes) -> str:
    return raw.hex(":")
