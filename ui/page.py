"""The page's frame as Dash components: header, filters, map, panel, timeline, table; all empty at first.

And the small parts that change: pill, banner, totals, chips, times. Not here: what they say
(`ui.statuslines`), when they are sent (`ui.refresh`) and how they look (`assets/palomar.css`).
"""

import uuid
from collections.abc import Sequence
from typing import Any

from dash import dcc, html

from ui.figures import BLANK, Tick
from ui.state import DEFAULT_WINDOW_S, WINDOWS_S
from ui.statuslines import Words

Component = Any


def _attributes(pairs: dict[str, str]) -> dict[str, Any]:
    """Pass attributes whose names are no identifiers."""
    return dict(pairs)


def frame() -> Component:
    """Return a fresh page; each load gets an id of its own."""
    return html.Div(
        [
            dcc.Location(id="url", refresh=False),
            dcc.Store(id="tick"),
            dcc.Store(id="page", data=uuid.uuid4().hex),
            dcc.Store(id="update"),
            dcc.Store(id="applied", data=0),
            dcc.Store(id="themed"),
            dcc.Store(id="click"),
            dcc.Store(id="heard", data=0),
            _header(),
            html.Div(id="banner"),
            html.Div(
                "This page's server does not answer. Is palomar ui still running? "
                "The page goes on by itself when it is.",
                id="stale",
                role="alert",
            ),
            _filters(),
            html.Main(
                [
                    _map(),
                    html.Aside(id="panel", **_attributes({"aria-label": "details"})),
                    _timeline(),
                    _table(),
                ]
            ),
        ],
        id="app",
    )


def _header() -> Component:
    return html.Header(
        [
            html.Div(
                [
                    html.Span(className="logo", **_attributes({"aria-hidden": "true"})),
                    html.Span("Palomar", className="brand"),
                ],
                className="brand-box",
            ),
            html.Div(id="link"),
            html.Div(id="totals"),
            html.Button("Pause", id="pause", type="button", className="tool", title="Hold the page still"),
            html.Button(
                "Theme: auto",
                id="theme",
                type="button",
                className="tool",
                title="Light, dark, or as the system",
            ),
        ]
    )


def _filters() -> Component:
    return html.Div(
        [
            html.Div(
                dcc.Dropdown(id="ns", multi=True, placeholder="All namespaces", options=[], value=[]),
                className="field namespaces",
            ),
            dcc.RadioItems(
                id="verdict",
                className="segments",
                options=[
                    {"label": "All", "value": ""},
                    {"label": "→ Forwarded", "value": "forwarded"},
                    {"label": "✕ Dropped", "value": "dropped"},
                    {"label": "! Audit", "value": "audit"},
                ],
                value="",
            ),
            dcc.Input(
                id="text",
                className="field text",
                type="search",
                debounce=0.35,
                placeholder="Workload, pod, address, port, policy …",
                maxLength=200,
                value="",
                autoComplete="off",
            ),
            dcc.RadioItems(
                id="window",
                className="segments",
                options=[{"label": f"{seconds // 60} min", "value": seconds} for seconds in WINDOWS_S],
                value=DEFAULT_WINDOW_S,
            ),
            html.Div(id="chips"),
        ],
        id="filters",
    )


def _map() -> Component:
    def tool(action: str, text: str, title: str) -> Component:
        return html.Button(
            text,
            type="button",
            title=title,
            className="tool",
            **_attributes({"data-map": action, "aria-label": title}),
        )

    legend = [
        html.Span([html.I(className=f"line {kind}"), text])
        for kind, text in (
            ("forwarded", "forwarded"),
            ("dropped", "✕ dropped"),
            ("audit", "! audit"),
            ("idle", "idle"),
        )
    ]
    keys = "Arrow keys go from card to line to card, Enter opens, Escape goes back."
    return html.Section(
        [
            html.Div(id="map-canvas"),
            html.Div(keys, id="map-keys"),
            html.Div(id="map-empty"),
            html.Div(
                [
                    tool("zoom-in", "+", "Zoom in"),
                    tool("zoom-out", "\N{MINUS SIGN}", "Zoom out"),
                    tool("fit", "Fit", "Show the whole map"),
                    html.Button(
                        "Tidy",
                        id="tidy",
                        type="button",
                        className="tool",
                        title="Arrange the cards anew by who calls whom",
                    ),
                ],
                id="map-tools",
            ),
            html.Div([html.Div(legend, className="legend"), html.Div(id="map-notes")], id="map-foot"),
        ],
        id="map",
        **_attributes({"aria-label": "service map"}),
    )


def _timeline() -> Component:
    return html.Section(
        [
            html.Div(id="timeline-title"),
            html.Div("Under the axis: when anything was dropped ✕ or audited !", id="timeline-hint"),
            dcc.Graph(id="timeline", config={"displayModeBar": False, "responsive": True}, figure=BLANK),
            html.Div(id="timeline-times"),
        ],
        id="timeline-box",
        **_attributes({"aria-label": "verdicts over time"}),
    )


def _table() -> Component:
    columns = ("Time (UTC)", "Verdict", "From", "To", "Port", "Reason, policy or flags", "Seen at", "Node")
    return html.Section(
        [
            html.Div(
                [
                    html.H3("Flows"),
                    html.Span(id="flow-scope"),
                    html.Button("", id="flow-new", type="button", hidden=True),
                    html.Span(id="flow-note"),
                ],
                id="flow-head",
            ),
            html.Div(
                [
                    html.Table(
                        [html.Thead(html.Tr([html.Th(name) for name in columns])), html.Tbody(id="flow-rows")]
                    ),
                    html.Div("No flow to show here yet.", id="flow-empty"),
                ],
                id="flow-scroll",
            ),
        ],
        id="flows",
        **_attributes({"aria-label": "flows"}),
    )


def link_pill(words: Words) -> Component:
    """Return the state of the stream."""
    return html.Div(
        [html.Span(className="dot"), html.B(words.title), html.Span(words.text, className="server")],
        className=f"pill {words.tone}",
        title=words.text,
    )


def banner(lines: Sequence[Words | None]) -> Component:
    """Return the lines of trouble, or nothing."""
    return [
        html.Div([html.B(words.title), html.Span(words.text)], className=words.tone, role="status")
        for words in lines
        if words is not None
    ]


def totals(numbers: Sequence[tuple[str, str, bool]]) -> Component:
    """Return the header's numbers."""
    return [
        html.Div([html.B(value), html.Span(name)], className="total bad" if bad else "total")
        for name, value, bad in numbers
    ]


def times(ticks: Sequence[Tick]) -> Component:
    """Return the clock times under the timeline."""
    return [html.Span(tick.text, **_attributes({"style": f"--at:{tick.share:.2%}"})) for tick in ticks]


def empty(words: Words | None) -> Component:
    """Return what stands in place of the map, or nothing."""
    if words is None:
        return None
    children: list[Component] = [
        html.Div(className=f"empty-mark {words.tone}"),
        html.H2(words.title),
        html.P(words.text),
    ]
    if words.clear:
        children.append(
            html.Button(
                "Clear filters",
                type="button",
                className="tool",
                **_attributes({"data-click": "clear", "data-id": ""}),
            )
        )
    return html.Div(children, className="empty")


def chips(selected: str, filtered: bool) -> Component:
    """Return what is selected and the way out of it."""
    children: list[Component] = []

    def button(kind: str, text: str, title: str) -> Component:
        return html.Button(
            text,
            type="button",
            className="chip-button",
            title=title,
            **_attributes({"data-click": kind, "data-id": ""}),
        )

    if selected:
        children.append(button("nothing", f"{selected}  ✕", "Stop looking at this alone (Esc)"))
    if filtered:
        children.append(button("clear", "Clear filters", "Show everything again"))
    return children
