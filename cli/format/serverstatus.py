"""What a flow server or relay says of itself and of its nodes, as lines.

Pure. Input: `ServerStatusResponse`, `GetNodesResponse`, `GetNamespacesResponse`.
"""

from collections.abc import Iterable, Sequence

from cli.format import columns
from palomar_pb.observer import observer_pb2
from palomar_pb.relay import relay_pb2

NS_PER_S = 1_000_000_000
_STATES = {
    relay_pb2.NodeState.NODE_CONNECTED: "Connected",
    relay_pb2.NodeState.NODE_UNAVAILABLE: "Unavailable",
    relay_pb2.NodeState.NODE_GONE: "Gone",
    relay_pb2.NodeState.NODE_ERROR: "Error",
}


def lines(status: observer_pb2.ServerStatusResponse, target: str, output: str) -> list[str]:
    """Return the report of `-o compact`, `dict` or `table`."""
    flows = fill(status.num_flows, status.max_flows)
    rate = f"{flow_rate(status):.2f}"
    connected = status.num_connected_nodes.value
    total = connected + status.num_unavailable_nodes.value
    nodes = f"{connected}/{total}" if status.HasField("num_connected_nodes") else "N/A"
    if output == "table":
        header = ("CURRENT/MAX FLOWS", "FLOWS/S", "CONNECTED NODES", "UPTIME", "VERSION")
        row = (flows, rate, nodes, duration(status.uptime_ns), status.version)
        return columns.align([header, row])
    text = [f"Healthcheck (via {target}): Ok", f"Current/Max Flows: {flows}", f"Flows/s: {rate}"]
    if nodes != "N/A":
        text.append(f"Connected Nodes: {nodes}")
    if status.unavailable_nodes:
        text.append(f"Unavailable Nodes: {', '.join(status.unavailable_nodes)}")
    if output == "dict":
        text += [
            f"Seen Flows: {status.seen_flows}",
            f"Uptime: {duration(status.uptime_ns)}",
            f"Version: {status.version}",
        ]
    return text


def fill(current: int, most: int) -> str:
    """Return `4095/4096 (99.98%)`."""
    return f"{current}/{most} ({100 * current / most:.2f}%)" if most else f"{current}/{most}"


def flow_rate(status: observer_pb2.ServerStatusResponse) -> float:
    """Return flows per second: the server's own figure, else the mean since its start."""
    if status.flows_rate or not status.uptime_ns:
        return float(status.flows_rate)
    return status.seen_flows / (status.uptime_ns / NS_PER_S)


def duration(nanoseconds: int) -> str:
    """Return `1h2m3s`, leaving out leading zeros."""
    seconds = nanoseconds // NS_PER_S
    hours, minutes, rest = seconds // 3600, seconds // 60 % 60, seconds % 60
    if hours:
        return f"{hours}h{minutes}m{rest}s"
    return f"{minutes}m{rest}s" if minutes else f"{rest}s"


def node_lines(nodes: Iterable[observer_pb2.Node], wide: bool) -> list[str]:
    """Return a table of nodes, `wide` with version, address and TLS."""
    header: tuple[str, ...] = ("NAME", "STATUS", "AGE", "FLOWS/S", "CURRENT/MAX-FLOWS")
    rows: list[Sequence[str]] = [(*header, "VERSION", "ADDRESS", "TLS") if wide else header]
    for node in nodes:
        seconds = node.uptime_ns / NS_PER_S
        row: tuple[str, ...] = (
            node.name,
            _STATES.get(node.state, "Unknown"),
            duration(node.uptime_ns) if node.uptime_ns else "N/A",
            f"{node.seen_flows / seconds:.2f}" if seconds else "N/A",
            f"{node.num_flows}/{node.max_flows}" + _percent(node),
        )
        if wide:
            row = (*row, node.version, node.address or "N/A", "Enabled" if node.tls.enabled else "Disabled")
        rows.append(row)
    return columns.align(rows)


def _percent(node: observer_pb2.Node) -> str:
    return f" ({100 * node.num_flows / node.max_flows:6.2f}%)" if node.max_flows else ""


def namespace_lines(namespaces: Iterable[observer_pb2.Namespace]) -> list[str]:
    """Return the NAMESPACE column, with the cluster beside it where there are several."""
    listed = list(namespaces)
    if len({item.cluster for item in listed}) > 1:
        return columns.align([("NAMESPACE", "CLUSTER"), *((item.namespace, item.cluster) for item in listed)])
    return ["NAMESPACE", *(item.namespace for item in listed)]
