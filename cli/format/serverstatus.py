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


def lines(status: observer_pb2.ServerStatusResponse, output: str) -> list[str]:
    """Return the report of `-o compact`, `dict` or `table`, as the field's command prints it."""
    if output == "compact":
        return _compact(status)
    facts = _facts(status)
    if output == "table":
        return columns.align([tuple(facts), tuple(facts.values())])
    shown = {_SHORT.get(name, name): value for name, value in facts.items()}
    width = max(map(len, shown))
    return [f"{name:>{width}}: {value}" for name, value in shown.items()]


def _compact(status: observer_pb2.ServerStatusResponse) -> list[str]:
    text = [f"Current/Max Flows: {fill(status.num_flows, status.max_flows)}", f"Flows/s: {flow_rate(status)}"]
    connected, unavailable = status.num_connected_nodes.value, status.num_unavailable_nodes.value
    if status.HasField("num_connected_nodes"):
        total = f"/{connected + unavailable}" if status.HasField("num_unavailable_nodes") else ""
        text.append(f"Connected Nodes: {connected}{total}")
    if unavailable:
        text.append(f"Unavailable Nodes: {unavailable}")
        text += [f"  - {name}" for name in sorted(status.unavailable_nodes)]
        if 0 < len(status.unavailable_nodes) < unavailable:
            text.append(f"  - and {unavailable - len(status.unavailable_nodes)} more...")
    return text


_SHORT = {"NUM UNAVAILABLE NODES": "NUM UNAVAIL. NODES"}


def _facts(status: observer_pb2.ServerStatusResponse) -> dict[str, str]:
    has_nodes = status.HasField("num_connected_nodes"), status.HasField("num_unavailable_nodes")
    return {
        "NUM FLOWS": f"{status.num_flows:,}",
        "MAX FLOWS": f"{status.max_flows:,}",
        "SEEN FLOWS": f"{status.seen_flows:,}",
        "FLOWS PER SECOND": f"{status.flows_rate:.2f}" if status.flows_rate else "N/A",
        "UPTIME": duration(status.uptime_ns),
        "NUM CONNECTED NODES": str(status.num_connected_nodes.value) if has_nodes[0] else "N/A",
        "NUM UNAVAILABLE NODES": str(status.num_unavailable_nodes.value) if has_nodes[1] else "N/A",
        "VERSION": status.version,
    }


def fill(current: int, most: int) -> str:
    """Return `4,095/4,096 (99.98%)`."""
    return f"{current:,}/{most:,} ({100 * current / most:.2f}%)" if most else f"{current:,}/{most:,}"


def flow_rate(status: observer_pb2.ServerStatusResponse) -> str:
    """Return flows per second: the server's own figure, else the mean since its start, else `N/A`."""
    if status.flows_rate:
        return f"{status.flows_rate:.2f}"
    return f"{status.seen_flows / (status.uptime_ns / NS_PER_S):.2f}" if status.uptime_ns else "N/A"


def duration(nanoseconds: int) -> str:
    """Return `1h2m3s`, leaving out leading zeros."""
    seconds = nanoseconds // NS_PER_S
    hours, minutes, rest = seconds // 3600, seconds // 60 % 60, seconds % 60
    if hours:
        return f"{hours}h{minutes}m{rest}s"
    return f"{minutes}m{rest}s" if minutes else f"{rest}s"


def node_lines(nodes: Iterable[observer_pb2.Node], wide: bool) -> list[str]:
    """Return a table of nodes by name, `wide` with version, address and TLS."""
    header: tuple[str, ...] = ("NAME", "STATUS", "AGE", "FLOWS/S", "CURRENT/MAX-FLOWS")
    rows: list[Sequence[str]] = [(*header, "VERSION", "ADDRESS", "TLS") if wide else header]
    for node in sorted(nodes, key=lambda node: node.name):
        seconds = (node.uptime_ns + NS_PER_S // 2) // NS_PER_S
        row: tuple[str, ...] = (
            node.name,
            _STATES.get(node.state, "Unknown"),
            duration(seconds * NS_PER_S) if seconds else "N/A",
            f"{node.seen_flows / seconds:.2f}" if seconds else "N/A",
            _ratio(node),
        )
        rows.append((*row, node.version or "N/A", node.address, _tls(node)) if wide else row)
    return columns.align(rows)


def _ratio(node: observer_pb2.Node) -> str:
    if not node.max_flows:
        return "N/A"
    return f"{node.num_flows}/{node.max_flows} ({100 * node.num_flows / node.max_flows:6.2f}%)"


def _tls(node: observer_pb2.Node) -> str:
    if not node.HasField("tls"):
        return "N/A"
    return "Enabled" if node.tls.enabled else "Disabled"


def namespace_lines(namespaces: Iterable[observer_pb2.Namespace], wide: bool) -> list[str]:
    """Return the NAMESPACE column, `wide` with the cluster beside it."""
    if not wide:
        return ["NAMESPACE", *(item.namespace for item in namespaces)]
    return columns.align([("NAMESPACE", "CLUSTER"), *((item.namespace, item.cluster) for item in namespaces)])
