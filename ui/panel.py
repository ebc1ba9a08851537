"""The side panel as Dash components: nodes and drops, or the selected workload, edge or flow.

Input: what `ui.model` and `ui.view` hold, read under the lock; output: component trees for one callback. No
decision on traffic is made here. Names arrive clipped; Dash escapes every text.
"""

from collections.abc import Sequence
from typing import Any

from dash import html

from palomar_pb.flow import flow_pb2
from ui import units
from ui.flowdetail import Fact, decision, flow_facts
from ui.flowrow import FlowRow, VerdictClass, clock_text, drop_reason
from ui.model import Model, NodeTally
from ui.names import group_title
from ui.servicemap import EdgeStat, edge_kind
from ui.state import PageState

SHOWN_NODES, SHOWN_DROPS, SHOWN_EDGES, SHOWN_LABELS = 40, 8, 12, 12
MARKS = {"forwarded": "→", "dropped": "✕", "audit": "!", "idle": "→"}

Component = Any


def panel(model: Model, stats: Sequence[EdgeStat], state: PageState, broken: bool) -> list[Component]:
    """Return what the state selects; a selection that is no longer known says so."""
    if state.flow:
        return _flow_panel(model, state.flow)
    if state.edge:
        return _edge_panel(stats, state.edge)
    if state.workload:
        return _workload_panel(stats, state.workload)
    return _overview(model, stats, broken)


def _click(kind: str, target: str, children: Component, class_name: str, **more: str) -> Component:
    attributes: dict[str, Any] = {"data-click": kind, "data-id": target, **more}
    return html.Button(children, type="button", className=class_name, **attributes)


def chip(kind: str, text: str = "") -> Component:
    """Return a verdict in its colour, with its mark."""
    return html.Span(f"{MARKS.get(kind, '·')} {text or kind}", className=f"chip {kind}")


def _head(kicker: str, title: Component, back: bool = True) -> Component:
    close = [_click("nothing", "", "✕", "close", title="Back to the overview (Esc)")] if back else []
    return html.Div(
        [html.Div([html.Div(kicker, className="kicker"), html.H2(title)]), *close], className="head"
    )


def _section(title: str, children: Sequence[Component], aside: str = "") -> Component:
    heading = [html.Span(title), html.Span(aside, className="aside")] if aside else title
    return html.Section([html.H3(heading), *children])


# ---- overview ------------------------------------------------------------------------------------


def _overview(model: Model, stats: Sequence[EdgeStat], broken: bool) -> list[Component]:
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
        _head("Cluster", "Nodes and agents", back=False),
        _section("Nodes", children, f"{connected} of {len(nodes)} connected" if nodes else ""),
        _section(
            "Dropped",
            _drops(drops),
            f"{len(drops)} {'edge' if len(drops) == 1 else 'edges'}" if drops else "",
        ),
        _section("Flow server", [_facts(_server_facts(model))]),
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
        _number("observed", units.exact(node.seen_flows or node.received)),
        _number("lost", units.exact(node.lost), bad=node.lost > 0),
        _number("up", units.duration(node.uptime_ns) if node.uptime_ns else "unknown"),
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


def _number(name: str, value: str, bad: bool = False) -> Component:
    return html.Div([html.B(value), html.Span(name)], className="number bad" if bad else "number")


def _drops(drops: Sequence[EdgeStat]) -> list[Component]:
    if not drops:
        return [html.P("Nothing was dropped in this window.", className="quiet")]
    lines = [_edge_line(stat, reason=True) for stat in drops[:SHOWN_DROPS]]
    if len(drops) > SHOWN_DROPS:
        lines.append(html.P(f"+{len(drops) - SHOWN_DROPS} dropped edges not listed", className="quiet"))
    return lines


def _edge_line(stat: EdgeStat, reason: bool = False) -> Component:
    key = stat.key
    kind = edge_kind(stat)
    groups = (group_title(key.source.namespace), group_title(key.destination.namespace))
    below = f"{key.service} · {' → '.join(dict.fromkeys(groups))}"
    if reason and stat.record.latest_dropped:
        why = drop_reason(stat.record.latest_dropped[-1].message) or "dropped"
        below = f"{key.service} · {why} · {groups[1]}"
    number = units.count(stat.dropped if stat.dropped else stat.total)
    return _click(
        "edge",
        key.id,
        [
            html.Span(MARKS.get(kind, "·"), className=f"mark {kind}"),
            html.Span(
                [html.Span(f"{key.source.name} → {key.destination.name}"), html.Small(below)],
                className="text",
            ),
            html.Span(number, className="count", title="flows in the window"),
        ],
        "edge-line",
        title=f"{key.source.id} → {key.destination.id} {key.service}",
    )


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


# ---- selections ----------------------------------------------------------------------------------


def _workload_panel(stats: Sequence[EdgeStat], workload_id: str) -> list[Component]:
    into = [stat for stat in stats if stat.key.destination.id == workload_id]
    out = [stat for stat in stats if stat.key.source.id == workload_id]
    if not into and not out:
        namespace, _, name = workload_id.partition("/")
        return [
            _head(group_title(namespace), name),
            html.P("It has no flows in this window, or a filter hides them.", className="quiet"),
        ]
    own = [stat.key.destination for stat in into] + [stat.key.source for stat in out]
    found = next(workload for workload in own if workload.id == workload_id)
    endpoint = _endpoint_of(into, out)
    children: list[Component] = [_head(group_title(found.namespace), found.name)]
    if endpoint is not None:
        children.append(_section("Identity", [_facts(_endpoint_facts(endpoint)), _labels(endpoint)]))
    children.append(_section("Called by", _edge_lines(into), str(len(into))))
    children.append(_section("Calls", _edge_lines(out), str(len(out))))
    return children


def _endpoint_of(into: Sequence[EdgeStat], out: Sequence[EdgeStat]) -> flow_pb2.Endpoint | None:
    for stats, is_source in ((into, False), (out, True)):
        for stat in stats:
            for row in stat.record.latest:
                return row.message.source if is_source is not row.is_reply else row.message.destination
    return None


def _endpoint_facts(endpoint: flow_pb2.Endpoint) -> list[Fact]:
    kinds = [f"{workload.kind} {workload.name}" for workload in endpoint.workloads]
    return [
        Fact("identity", str(endpoint.identity)),
        Fact("workload", ", ".join(kinds)[:200]),
        Fact("latest pod", endpoint.pod_name[:200]),
    ]


def _labels(endpoint: flow_pb2.Endpoint) -> Component:
    shown = [
        html.Span(_cut(label, 64), className="label-chip", title=label[:400]) for label in endpoint.labels
    ]
    if len(shown) > SHOWN_LABELS:
        shown = [*shown[:SHOWN_LABELS], html.Span(f"+{len(shown) - SHOWN_LABELS} more", className="quiet")]
    return html.Div(shown, className="labels")


def _edge_lines(stats: Sequence[EdgeStat]) -> list[Component]:
    if not stats:
        return [html.P("nobody in this window", className="quiet")]
    ordered = sorted(stats, key=lambda stat: stat.importance, reverse=True)
    lines = [_edge_line(stat, reason=bool(stat.dropped)) for stat in ordered[:SHOWN_EDGES]]
    if len(ordered) > SHOWN_EDGES:
        lines.append(html.P(f"+{len(ordered) - SHOWN_EDGES} edges not listed", className="quiet"))
    return lines


def _edge_panel(stats: Sequence[EdgeStat], edge_id: str) -> list[Component]:
    stat = next((stat for stat in stats if stat.key.id == edge_id), None)
    if stat is None:
        return [
            _head("Edge", _cut(edge_id, 80)),
            html.P("It has no flows in this window, or a filter hides them.", className="quiet"),
        ]
    key = stat.key
    numbers = [
        _number("forwarded", units.exact(stat.forwarded)),
        _number("dropped", units.exact(stat.dropped), bad=stat.dropped > 0),
        _number("lately", units.rate(stat.rate) or "idle"),
    ]
    title = [
        _click("workload", key.source.id, key.source.name, "name-link"),
        html.Span(" → ", className="arrow"),
        _click("workload", key.destination.id, key.destination.name, "name-link"),
    ]
    latest = stat.record.latest_dropped or stat.record.latest
    children = [_head(f"Edge · {key.service}", title), html.Div(numbers, className="numbers wide")]
    if latest:
        children.append(
            _decision(latest[-1], "Deciding rule of the latest drop" if stat.dropped else "Deciding rule")
        )
    newest = sorted({row.seq: row for row in (*stat.record.latest, *stat.record.latest_dropped)}.items())
    lines = [_flow_line(row) for _, row in reversed(newest)][:10]
    children.append(_section("Latest flows", lines))
    return children


def _flow_line(row: FlowRow) -> Component:
    flow = row.message
    pods = f"{_side(flow.source, flow.IP.source)} → {_side(flow.destination, flow.IP.destination)}"
    return _click(
        "flow",
        row.uuid,
        [
            html.Span(MARKS[row.verdict.word], className=f"mark {row.verdict.word}"),
            html.Span(
                [html.Span(_cut(pods, 60)), html.Small(drop_reason(flow) or row.edge.service)],
                className="text",
            ),
            html.Span(clock_text(row.time_ns)[:-4], className="count"),
        ],
        "edge-line",
        title=pods[:400],
    )


def _side(endpoint: flow_pb2.Endpoint, address: str) -> str:
    return endpoint.pod_name or address or "?"


def _decision(row: FlowRow, title: str) -> Component:
    made = decision(row.message)
    kind = row.verdict.word
    children: list[Component] = [html.P(made.sentence, className="sentence")]
    children += [
        html.Div(
            [html.Div(policy.name, className="policy-name"), html.Div(policy.kind, className="quiet")],
            className="policy",
        )
        for policy in made.policies
    ]
    if made.rule:
        children.append(
            html.Div([html.Span("rule ", className="quiet"), html.Code(made.rule)], className="rule")
        )
    return html.Section([html.H3(title), html.Div(children, className=f"decision {kind}")], id="decision")


def _flow_panel(model: Model, uuid: str) -> list[Component]:
    row = model.find_flow(uuid)
    if row is None:
        return [
            _head("Flow", "No longer kept"),
            html.P(
                "This page keeps the newest flows only, and this one has made room. "
                "Ask the node's own store: palomar observe --uuid " + _cut(uuid, 60),
                className="quiet",
            ),
        ]
    verdict = chip(
        row.verdict.word, flow_pb2.Verdict.Name(row.message.verdict).lower() if _known(row) else ""
    )
    head = _head(
        f"Flow · {clock_text(row.time_ns)} UTC",
        [
            _click("edge", row.edge.id, f"{row.edge.source.name} → {row.edge.destination.name}", "name-link"),
            html.Span(f" {row.edge.service}", className="arrow"),
        ],
    )
    sections = [
        _section(title, [_facts(facts)] + ([_labels(endpoint)] if endpoint is not None else []))
        for title, facts, endpoint in flow_facts(row.message)
        if facts
    ]
    return [head, html.Div(verdict, className="verdict-line"), _decision(row, "Why"), *sections]


def _known(row: FlowRow) -> bool:
    return row.message.verdict in flow_pb2.Verdict.values() and row.verdict in VerdictClass


def _facts(facts: Sequence[Fact]) -> Component:
    rows: list[Component] = []
    for fact in facts:
        if fact.value:
            rows += [html.Dt(fact.name), html.Dd(_cut(fact.value, 200), title=fact.value[:600])]
    return html.Dl(rows, className="facts")


def _cut(text: str, limit: int) -> str:
    return text if len(text) <= limit else f"{text[: limit - 1]}…"
