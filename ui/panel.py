"""The side panel as Dash components: the selected workload, edge or flow, and its command for a terminal.

Input: the model and a `MapFrame`'s edges, read under the lock; output: component trees for one callback. No
decision on traffic is made here. Names arrive clipped; Dash escapes every text.
"""

import shlex
from collections.abc import Sequence
from typing import Any

from dash import html

from palomar_pb.flow import flow_pb2
from ui import units
from ui.flowdetail import Fact, decision, flow_facts
from ui.flowrow import FlowRow, VerdictClass, clock_text, drop_reason
from ui.model import Model
from ui.names import between, group_title
from ui.observecommand import Command
from ui.overview import overview
from ui.pieces import MARKS, Component, chip, click, cut, edge_line, fact_list, head, number, section
from ui.servicemap import EdgeStat
from ui.state import PageState

SHOWN_EDGES, SHOWN_LABELS = 12, 12
NO_COMMAND = Command(())


def panel(
    model: Model,
    stats: Sequence[EdgeStat],
    state: PageState,
    broken: bool,
    flow: FlowRow | None = None,
    command: Command = NO_COMMAND,
) -> list[Component]:
    """Return what the state selects (`flow` is the selected one); what is no longer known says so."""
    terminal = _terminal(command, state)
    if state.flow:
        return (
            _flow_panel(flow, terminal)
            if flow is not None
            else _lost_flow(state, terminal, bool(command.words))
        )
    if state.edge:
        return _edge_panel(stats, state.edge, terminal)
    if state.workload:
        return [*_workload_panel(stats, state.workload), *terminal]
    return [*overview(model, stats, broken), *terminal]


def _terminal(command: Command, state: PageState) -> list[Component]:
    """Return the command that asks for the same flows, ready to be copied."""
    if not command.words:
        return [html.P(note, className="quiet") for note in command.notes]
    copy: dict[str, Any] = {"data-copy": "command"}
    whole = not (state.flow or state.edge or state.workload)
    return [
        html.Section(
            [
                html.H3(
                    [
                        html.Span("These flows in a terminal" if whole else "In a terminal"),
                        html.Button(
                            "Copy", type="button", className="tool copy", title="Copy the command", **copy
                        ),
                    ]
                ),
                html.Code(shlex.join(command.words), id="command"),
                *(html.P(note, className="quiet") for note in command.notes),
            ],
            id="terminal",
        )
    ]


def _workload_panel(stats: Sequence[EdgeStat], workload_id: str) -> list[Component]:
    into = [stat for stat in stats if stat.key.destination.id == workload_id]
    out = [stat for stat in stats if stat.key.source.id == workload_id]
    if not into and not out:
        namespace, _, name = workload_id.partition("/")
        return [
            head(group_title(namespace), name),
            html.P("It has no flows in this window, or a filter hides them.", className="quiet"),
        ]
    own = [stat.key.destination for stat in into] + [stat.key.source for stat in out]
    found = next(workload for workload in own if workload.id == workload_id)
    endpoint = _endpoint_of(into, out)
    children: list[Component] = [head(group_title(found.namespace), found.name)]
    if endpoint is not None:
        children.append(section("Identity", [fact_list(_endpoint_facts(endpoint)), _labels(endpoint)]))
    children.append(section("Called by", _edge_lines(into), str(len(into))))
    children.append(section("Calls", _edge_lines(out), str(len(out))))
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
        html.Span(cut(label, 64), className="label-chip", title=label[:400]) for label in endpoint.labels
    ]
    if len(shown) > SHOWN_LABELS:
        shown = [*shown[:SHOWN_LABELS], html.Span(f"+{len(shown) - SHOWN_LABELS} more", className="quiet")]
    return html.Div(shown, className="labels")


def _edge_lines(stats: Sequence[EdgeStat]) -> list[Component]:
    if not stats:
        return [html.P("nobody in this window", className="quiet")]
    ordered = sorted(stats, key=lambda stat: stat.importance, reverse=True)
    lines = [edge_line(stat, reason=bool(stat.dropped)) for stat in ordered[:SHOWN_EDGES]]
    if len(ordered) > SHOWN_EDGES:
        lines.append(html.P(f"+{len(ordered) - SHOWN_EDGES} edges not listed", className="quiet"))
    return lines


def _edge_panel(stats: Sequence[EdgeStat], edge_id: str, terminal: Sequence[Component]) -> list[Component]:
    stat = next((stat for stat in stats if stat.key.id == edge_id), None)
    if stat is None:
        return [
            head("Edge", cut(edge_id, 80)),
            html.P("It has no flows in this window, or a filter hides them.", className="quiet"),
        ]
    key = stat.key
    numbers = [
        number("forwarded", units.exact(stat.forwarded)),
        number("dropped", units.exact(stat.dropped), bad=stat.dropped > 0),
        number("lately", units.rate(stat.rate) or "idle"),
    ]
    title = [
        click("workload", key.source.id, key.source.name, "name-link"),
        html.Span(" → ", className="arrow"),
        click("workload", key.destination.id, key.destination.name, "name-link"),
    ]
    latest = stat.record.latest_dropped or stat.record.latest
    children = [head(f"Edge · {key.service}", title), html.Div(numbers, className="numbers wide")]
    if latest:
        children.append(
            _decision(latest[-1], "Deciding rule of the latest drop" if stat.dropped else "Deciding rule")
        )
    newest = sorted({row.seq: row for row in (*stat.record.latest, *stat.record.latest_dropped)}.items())
    lines = [_flow_line(row) for _, row in reversed(newest)][:10]
    children.append(section("Latest flows", lines))
    return [*children, *terminal]


def _flow_line(row: FlowRow) -> Component:
    flow = row.message
    pods = between(_side(flow.source, flow.IP.source), _side(flow.destination, flow.IP.destination))
    return click(
        "flow",
        row.uuid,
        [
            html.Span(MARKS[row.verdict.word], className=f"mark {row.verdict.word}"),
            html.Span(
                [html.Span(cut(pods, 60)), html.Small(drop_reason(flow) or row.edge.service)],
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


def _lost_flow(state: PageState, terminal: Sequence[Component], findable: bool) -> list[Component]:
    elsewhere = "The nodes' own stores reach further back: ask them with the command below."
    children = [
        head("Flow", "No longer kept here"),
        html.P(
            "The page keeps the newest flows, and those that somebody looked at while they were new. This "
            f"one has made room, or its address was never right. {elsewhere if findable else ''}",
            className="quiet",
        ),
        html.P(["uuid ", html.Code(cut(state.flow, 80))], className="quiet"),
    ]
    if state.edge:
        children.append(html.P(click("nothing", "", "Show its edge instead", "name-link")))
    return [*children, *terminal]


def _flow_panel(row: FlowRow, terminal: Sequence[Component]) -> list[Component]:
    verdict = chip(
        row.verdict.word, flow_pb2.Verdict.Name(row.message.verdict).lower() if _known(row) else ""
    )
    heading = head(
        f"Flow · {clock_text(row.time_ns)} UTC",
        [
            click("edge", row.edge.id, between(row.edge.source.name, row.edge.destination.name), "name-link"),
            html.Span(f" {row.edge.service}", className="arrow"),
        ],
    )
    sections = [
        section(title, [fact_list(facts)] + ([_labels(endpoint)] if endpoint is not None else []))
        for title, facts, endpoint in flow_facts(row.message)
        if facts
    ]
    return [heading, html.Div(verdict, className="verdict-line"), _decision(row, "Why"), *sections, *terminal]


def _known(row: FlowRow) -> bool:
    return row.message.verdict in flow_pb2.Verdict.values() and row.verdict in VerdictClass
