"""What the side panel is put together from: headings, sections, numbers, facts, an edge as a line.

Input: values and texts; output: Dash components, which escape every text. What stands where is `ui.panel`'s
and `ui.overview`'s.
"""

from collections.abc import Sequence
from typing import Any

from dash import html

from ui import units
from ui.flowdetail import Fact, decision_line
from ui.flowrow import drop_reason
from ui.names import between, group_title
from ui.servicemap import EdgeStat, edge_kind

MARKS = {"forwarded": "→", "dropped": "✕", "audit": "!", "idle": "→"}

Component = Any


def click(kind: str, target: str, children: Component, class_name: str, **more: str) -> Component:
    """Return a button that reports a click on `target`."""
    attributes: dict[str, Any] = {"data-click": kind, "data-id": target, **more}
    return html.Button(children, type="button", className=class_name, **attributes)


def chip(kind: str, text: str = "") -> Component:
    """Return a verdict in its colour, with its mark."""
    return html.Span(f"{MARKS.get(kind, '·')} {text or kind}", className=f"chip {kind}")


def head(kicker: str, title: Component, back: bool = True) -> Component:
    """Return the panel's heading, with the way back unless told otherwise."""
    close = [click("nothing", "", "✕", "close", title="Back to the overview (Esc)")] if back else []
    return html.Div(
        [html.Div([html.Div(kicker, className="kicker"), html.H2(title)]), *close], className="head"
    )


def section(title: str, children: Sequence[Component], aside: str = "") -> Component:
    """Return a part of the panel under its title."""
    heading = [html.Span(title), html.Span(aside, className="aside")] if aside else title
    return html.Section([html.H3(heading), *children])


def number(name: str, value: str, bad: bool = False) -> Component:
    """Return a number over its name."""
    return html.Div([html.B(value), html.Span(name)], className="number bad" if bad else "number")


def edge_line(stat: EdgeStat, reason: bool = False) -> Component:
    """Return an edge as a line to click on; `reason` says why its latest drop was."""
    key = stat.key
    kind = edge_kind(stat)
    groups = (group_title(key.source.namespace), group_title(key.destination.namespace))
    below = f"{key.service} · {between(*groups) if groups[0] != groups[1] else groups[0]}"
    title = f"{key.source.id} → {key.destination.id} {key.service}"
    if reason and stat.record.latest_dropped:
        latest = stat.record.latest_dropped[-1].message
        below = f"{key.service} · {drop_reason(latest) or 'dropped'} · {groups[1]}"
        title += f"\n{decision_line(latest)}"
    number = units.count(stat.dropped if stat.dropped else stat.total)
    return click(
        "edge",
        key.id,
        [
            html.Span(MARKS.get(kind, "·"), className=f"mark {kind}"),
            html.Span(
                [html.Span(between(key.source.name, key.destination.name)), html.Small(below)],
                className="text",
            ),
            html.Span(number, className="count", title="flows in the window"),
        ],
        "edge-line",
        title=cut(title, 600),
    )


def fact_list(facts: Sequence[Fact]) -> Component:
    """Return names and values; empty values are left out."""
    rows: list[Component] = []
    for fact in facts:
        if fact.value:
            rows += [html.Dt(fact.name), html.Dd(cut(fact.value, 200), title=fact.value[:600])]
    return html.Dl(rows, className="facts")


def cut(text: str, limit: int) -> str:
    """Cut a text, visibly."""
    return text if len(text) <= limit else f"{text[: limit - 1]}…"
