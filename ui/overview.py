"""The side panel while nothing is selected: nodes and their agents, what was dropped, the flow server.

Input: the model, read under its lock, and the edges on the map; output: components.
"""

from collections.abc import Sequence

from dash import html

from ui import units
from ui.flowdetail import Fact
from ui.model import Model, NodeTally
from ui.pieces import Component, edge_line, fact_list, head, number, section
from ui.servicemap import EdgeStat

SHOWN_NODES, SHOWN_DROPS = 40, 8


def overview(model: Model, stats: Sequence[EdgeStat], broken: bool) -> list[Component]:
    """Return nodes, drops and the server; while `broken` a node's state is the last known."""
    nodes = sorted(model.nodes.values(), key=lambda node: (node.state == "connected", node.name))
    connected = sum(node.state == "connected" for node in nodes)
    hidden = len(nodes) - SHOWN_NODES
    drops = sorted((stat for stat in stats if stat.dropped), key=lambda stat: stat.dropped, reverse=True)
    children = [_node(node, broken) for node in nodes[:SHOWN_NODES]]
    if hidden > 0:
        children.append(html.P(f"+{units.exact(hidden)} nodes not shown", className="quiet"))
    if not nodes:
        children = [html.P("No node has been heard of yet.", className="quiet")]
    return [
        head("Cluster", "Nodes and agents", back=False),
        section("Nodes", children, f"{connected} of {len(nodes)} connected" if nodes else ""),
        section(
            "Dropped",
            _drops(drops),
            f"{len(drops)} {'edge' if len(drops) == 1 else 'edges'}" if drops else "",
        ),
        section("Flow server", [fact_list(_server_facts(model))]),
    ]


def _node(node: NodeTally, broken: bool) -> Component:
    state = "unknown" if broken and node.state == "connected" else node.state
    word = "last known: connected" if broken and node.state == "connected" else node.state
    warnings = []
    if node.message and node.state != "connected":
        warnings.append(node.message)
    if node.clock_off_ns:
        side = "ahead" if node.clock_off_ns > 0 else "behind"
        warnings.append(f"its clock is {units.duration(node.clock_off_ns)} {side} of this page's server")
    if node.unread:
        warnings.append(f"{units.exact(node.unread)} flows were not read in time on their way here")
    numbers = [
        number("observed", units.exact(node.seen_flows or node.received)),
        number("lost", units.exact(node.lost), bad=node.lost > 0),
        number("up", units.duration(node.uptime_ns) if node.uptime_ns else "unknown"),
    ]
    return html.Div(
        [
            html.Div(
                [
                    html.Span(className=f"dot {state}"),
                    html.Strong(node.name.rpartition("/")[2], title=node.name),
                    html.Span(word, className=f"state {state}"),
                    html.Span(node.version, className="version", title=node.version),
                ],
                className="node-line",
            ),
            html.Div(numbers, className="numbers"),
            *(html.Div(text, className="warning") for text in warnings),
        ],
        className="node",
    )


def _drops(drops: Sequence[EdgeStat]) -> list[Component]:
    if not drops:
        return [html.P("Nothing was dropped in this window.", className="quiet")]
    lines = [edge_line(stat, reason=True) for stat in drops[:SHOWN_DROPS]]
    if len(drops) > SHOWN_DROPS:
        lines.append(html.P(f"+{len(drops) - SHOWN_DROPS} dropped edges not listed", className="quiet"))
    return lines


def _server_facts(model: Model) -> list[Fact]:
    server = model.server
    if not server.max_flows:
        return [Fact("state", "has not answered yet")]
    return [
        Fact("version", server.version or "unknown"),
        Fact("seen", f"{units.exact(server.seen_flows)} flows"),
        Fact("kept", f"{units.exact(server.kept_flows)} of {units.exact(server.max_flows)}"),
        Fact("rate", units.rate(server.flows_rate) or "0/s"),
        Fact("lost", f"{units.exact(model.lost)} events"),
    ]
