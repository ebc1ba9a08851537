"""Agent events as lines: what the agent did (policy updated, endpoint created, ipcache changed).

Pure. Input: `observer.GetAgentEventsResponse`.
"""

from collections.abc import Callable, Mapping
from typing import Any

from cli.format.flows import Style
from cli.format.timestamps import TimeFormat
from palomar_pb.flow import flow_pb2
from palomar_pb.observer import observer_pb2

HEADER = ("TIMESTAMP", "NODE", "TYPE", "DETAILS")


def type_name(event: flow_pb2.AgentEvent) -> str:
    """Return the event's type by name, a number of a newer version as it is."""
    if event.type in flow_pb2.AgentEventType.values():
        return flow_pb2.AgentEventType.Name(event.type)
    return str(event.type)


def details(event: flow_pb2.AgentEvent, time: TimeFormat) -> str:
    """Return the facts of the event as the field words them: `id: 12, namespace: demo, pod name: web-1`.

    Of addresses it leaves out whose they are: that follows.
    """
    kind = event.WhichOneof("notification")
    facts = _DETAILS[kind](getattr(event, kind), time) if kind in _DETAILS else {}
    return ", ".join(f"{name}: {value}" for name, value in facts.items()) or "UNKNOWN"


Facts = dict[str, object]


def _started(notification: flow_pb2.TimeNotification, time: TimeFormat) -> Facts:
    return {"start time": time.text(notification.time.seconds, notification.time.nanos)}


def _policy(notification: flow_pb2.PolicyUpdateNotification, _time: TimeFormat) -> Facts:
    labels = f"[{','.join(notification.labels)}]"
    return {"labels": labels, "revision": notification.revision, "count": notification.rule_count}


def _regenerated(notification: flow_pb2.EndpointRegenNotification, _time: TimeFormat) -> Facts:
    facts: Facts = {"id": notification.id, "labels": f"[{','.join(notification.labels)}]"}
    return facts | _said({"error": notification.error})


def _endpoint(notification: flow_pb2.EndpointUpdateNotification, _time: TimeFormat) -> Facts:
    named = {"namespace": notification.namespace, "pod name": notification.pod_name}
    return {"id": notification.id} | _said(named)


def _ipcache(notification: flow_pb2.IPCacheNotification, _time: TimeFormat) -> Facts:
    facts: Facts = {"cidr": notification.cidr, "identity": notification.identity}
    if notification.HasField("old_identity"):
        facts["old identity"] = notification.old_identity.value
    facts |= _said({"host ip": notification.host_ip, "old host ip": notification.old_host_ip})
    facts["encrypt key"] = notification.encrypt_key
    return facts | _said({"namespace": notification.namespace, "pod name": notification.pod_name})


def _service(notification: flow_pb2.ServiceUpsertNotification, _time: TimeFormat) -> Facts:
    facts: Facts = {"id": notification.id}
    if notification.HasField("frontend_address"):
        facts["frontend"] = _address(notification.frontend_address)
    backends = [_address(backend) for backend in notification.backend_addresses]
    return facts | _said(
        {
            "backends": f"[{','.join(backends)}]" if backends else "",
            "type": notification.type,
            "traffic policy": notification.traffic_policy,
            "namespace": notification.namespace,
            "name": notification.name,
        }
    )


def _address(address: flow_pb2.ServiceUpsertNotificationAddr) -> str:
    return f"[{address.ip}]:{address.port}" if ":" in address.ip else f"{address.ip}:{address.port}"


def _service_gone(notification: flow_pb2.ServiceDeleteNotification, _time: TimeFormat) -> Facts:
    return {"id": notification.id}


def _unknown(notification: flow_pb2.AgentEventUnknown, _time: TimeFormat) -> Facts:
    return {"type": notification.type, "notification": notification.notification}


def _said(facts: Mapping[str, str]) -> Facts:
    return {name: value for name, value in facts.items() if value}


_DETAILS: dict[str, Callable[[Any, TimeFormat], Facts]] = {
    "agent_start": _started,
    "policy_update": _policy,
    "endpoint_regenerate": _regenerated,
    "endpoint_update": _endpoint,
    "ipcache_update": _ipcache,
    "service_upsert": _service,
    "service_delete": _service_gone,
    "unknown": _unknown,
}


def cells(response: observer_pb2.GetAgentEventsResponse, style: Style) -> tuple[str, ...]:
    """Return the table's cells; without the node unless asked for."""
    stamp = style.time.text(response.time.seconds, response.time.nanos)
    event = response.agent_event
    node = (response.node_name,) if style.node_name else ()
    return (stamp, *node, type_name(event), details(event, style.time))


def header(style: Style) -> tuple[str, ...]:
    """Return the table's header to `cells`."""
    return HEADER if style.node_name else (HEADER[0], *HEADER[2:])


def compact(response: observer_pb2.GetAgentEventsResponse, style: Style) -> str:
    """Return one line."""
    stamp = style.time.text(response.time.seconds, response.time.nanos)
    node = f" [{response.node_name}]" if style.node_name else ""
    event = response.agent_event
    return f"{stamp}{node}: {type_name(event)} ({details(event, style.time)})"


def as_dict(response: observer_pb2.GetAgentEventsResponse, style: Style) -> str:
    """Return `KEY: value` lines."""
    pairs = zip(header(style), cells(response, style), strict=True)
    return "\n".join(f"{key:>11}: {value}" for key, value in pairs)
