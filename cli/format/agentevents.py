"""Agent events as lines: what the agent did (policy updated, endpoint created, ipcache changed).

Pure. Input: `observer.GetAgentEventsResponse`.
"""

from cli.format.flows import Style
from palomar_pb.flow import flow_pb2
from palomar_pb.observer import observer_pb2

HEADER = ("TIMESTAMP", "NODE", "TYPE", "DETAILS")


def type_name(event: flow_pb2.AgentEvent) -> str:
    """Return the event's type by name, a number of a newer version as it is."""
    if event.type in flow_pb2.AgentEventType.values():
        return flow_pb2.AgentEventType.Name(event.type)
    return str(event.type)


def details(event: flow_pb2.AgentEvent) -> str:
    """Return the facts of the event: `id: 12, pod: demo/web-1`."""
    kind = event.WhichOneof("notification")
    if kind is None:
        return ""
    notification = getattr(event, kind)
    parts = []
    for field, value in notification.ListFields():
        name = field.name.replace("_", " ")
        if field.is_repeated:
            parts.append(f"{name}: [{', '.join(str(item) for item in value)}]")
        elif field.message_type is None:
            parts.append(f"{name}: {value}")
        elif field.message_type.full_name == "google.protobuf.Timestamp":
            parts.append(f"{name}: {value.ToJsonString()}")
        elif hasattr(value, "value"):
            parts.append(f"{name}: {value.value}")
    return ", ".join(parts)


def cells(response: observer_pb2.GetAgentEventsResponse, style: Style) -> tuple[str, ...]:
    """Return the table's cells; without the node unless asked for."""
    stamp = style.time.text(response.time.seconds, response.time.nanos)
    event = response.agent_event
    node = (response.node_name,) if style.node_name else ()
    return (stamp, *node, type_name(event), details(event))


def header(style: Style) -> tuple[str, ...]:
    """Return the table's header to `cells`."""
    return HEADER if style.node_name else (HEADER[0], *HEADER[2:])


def compact(response: observer_pb2.GetAgentEventsResponse, style: Style) -> str:
    """Return one line."""
    stamp = style.time.text(response.time.seconds, response.time.nanos)
    node = f" [{response.node_name}]" if style.node_name else ""
    event = response.agent_event
    return f"{stamp}{node}: {type_name(event)} ({details(event)})"


def as_dict(response: observer_pb2.GetAgentEventsResponse, style: Style) -> str:
    """Return `KEY: value` lines."""
    pairs = zip(header(style), cells(response, style), strict=True)
    return "\n".join(f"{key:>11}: {value}" for key, value in pairs)
