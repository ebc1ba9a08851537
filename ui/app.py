"""The Dash application: callbacks between URL, filters, clicks and what the model holds.

Thin: the state is in the URL (`ui.state`), what a page needs next is computed by `ui.view`, and only
differences travel. Serves every asset itself, answers to loopback names only (against DNS rebinding), and
adds `/healthz` and `/metrics`.
"""

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from dash import ClientsideFunction, Dash, Input, Output, Patch, State, ctx, no_update
from flask import Flask, Response, abort, request
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from palomar.clock import Clock
from ui import figures, page, panel, statuslines
from ui.hub import Hub, LinkPhase
from ui.listen import is_loopback_name
from ui.metrics import UiMetrics
from ui.names import group_title
from ui.pages import Page, Pages
from ui.state import MAX_LIMIT, THEMES, VERDICTS, WINDOWS_S, PageState, parse, to_search
from ui.view import Update

PART_NAMES = ("panel", "link", "banner", "totals", "map-empty", "chips", "timeline-title", "flow-scope")


def make_app(hub: Hub, clock: Clock) -> Dash:
    """Wire everything; nothing is served before the WSGI server runs `app.server`."""
    app = Dash(
        "ui",
        title="Palomar",
        update_title="",
        assets_folder="assets",
        serve_locally=True,
        include_assets_files=True,
    )
    app.layout = page.frame
    metrics = UiMetrics(hub)
    _routes(app, hub, metrics)
    _theme(app)
    _state_callback(app)
    _Refresh(hub, clock, metrics).register(app)
    return app


def _routes(app: Dash, hub: Hub, metrics: UiMetrics) -> None:
    server: Flask = app.server
    hashes: Sequence[str] = app.csp_hashes()
    # The scripts that Dash writes into the page itself; nothing else inline runs.
    scripts = " ".join(f"'{digest}'" if not digest.startswith("'") else digest for digest in hashes)

    def only_loopback() -> None:
        if not is_loopback_name(request.host):
            abort(403, "palomar ui answers on 127.0.0.1 or localhost only")

    def harden(response: Response) -> Response:
        response.headers["X-Content-Type-Options"] = "nosniff"
        response.headers["Referrer-Policy"] = "no-referrer"
        response.headers["Content-Security-Policy"] = (
            f"default-src 'self'; script-src 'self' {scripts}; "
            "style-src 'self' 'unsafe-inline'; "
            "img-src 'self' data: blob:; object-src 'none'; base-uri 'self'; frame-ancestors 'none'"
        )
        return response

    def healthz() -> Response:
        link = hub.link
        body = {"server": link.server, "stream": link.phase.value, "reason": link.reason}
        # The page is of use while the server is away: that is a state, not a failure of this process.
        return Response(json.dumps(body), mimetype="application/json")

    def scrape() -> Response:
        return Response(generate_latest(metrics.registry), content_type=CONTENT_TYPE_LATEST)

    server.before_request(only_loopback)
    server.after_request(harden)
    server.add_url_rule("/healthz", view_func=healthz)
    server.add_url_rule("/metrics", view_func=scrape)


def _theme(app: Dash) -> None:
    clientside: Any = app.clientside_callback
    clientside(ClientsideFunction("palomar", "theme"), Output("themed", "data"), Input("url", "search"))
    clientside(ClientsideFunction("palomar", "apply"), Output("applied", "data"), Input("update", "data"))


# ---- URL and controls ----------------------------------------------------------------------------


def _state_callback(app: Dash) -> None:
    @app.callback(
        Output("url", "search"),
        Output("ns", "value"),
        Output("verdict", "value"),
        Output("text", "value"),
        Output("window", "value"),
        Output("theme", "children"),
        Output("pause", "children"),
        Input("url", "search"),
        Input("ns", "value"),
        Input("verdict", "value"),
        Input("text", "value"),
        Input("window", "value"),
        Input("theme", "n_clicks"),
        Input("pause", "n_clicks"),
        Input("click", "data"),
    )
    def follow(
        search: str | None,
        ns: Any,
        verdict: Any,
        text: Any,
        window: Any,
        _theme: Any,
        _pause: Any,
        click: Any,
    ) -> tuple[Any, ...]:
        before = parse(search or "")
        after = changed(
            before, ctx.triggered_id, {"ns": ns, "verdict": verdict, "text": text, "window": window}, click
        )
        written = to_search(after)
        return (
            no_update if written == (search or "") else written,
            list(after.namespaces),
            after.verdict,
            after.text,
            after.window_s,
            f"Theme: {after.theme or 'auto'}",
            "Resume" if after.paused else "Pause",
        )


def changed(state: PageState, control: str | None, values: dict[str, Any], click: Any) -> PageState:
    """Return the state after a control or a click; unknown words change nothing."""
    if control == "ns":
        return replace(state, namespaces=tuple(str(name) for name in values["ns"] or ()))
    if control == "verdict" and values["verdict"] in ("", *VERDICTS):
        return replace(state, verdict=values["verdict"])
    if control == "text":
        return replace(state, text=str(values["text"] or "").strip())
    if control == "window" and values["window"] in WINDOWS_S:
        return replace(state, window_s=values["window"])
    if control == "theme":
        order = ("", *THEMES)
        return replace(state, theme=order[(order.index(state.theme) + 1) % len(order)])
    if control == "pause":
        return replace(state, paused=not state.paused)
    if control == "click" and isinstance(click, dict):
        return clicked(state, str(click.get("kind", "")), str(click.get("id", "")))
    return state


def clicked(state: PageState, kind: str, target: str) -> PageState:
    """Return the state after a click on something with `data-click`; a second click undoes a selection."""
    if kind == "workload":
        again = state.workload == target and not state.edge and not state.flow
        return replace(state, workload="" if again else target, edge="", flow="")
    if kind == "edge":
        again = state.edge == target and not state.flow
        return replace(state, edge="" if again else target, flow="")
    if kind == "flow":
        return replace(state, flow="" if state.flow == target else target)
    if kind == "nothing":
        # One step back: from flow to edge to workload to everything.
        if state.flow:
            return replace(state, flow="")
        if state.edge:
            return replace(state, edge="")
        return replace(state, workload="")
    if kind == "clear":
        return replace(state, namespaces=(), verdict="", text="", workload="", edge="", flow="")
    if kind == "limit" and target.isdigit():
        return replace(state, limit=min(int(target), MAX_LIMIT))
    return state


# ---- the interval --------------------------------------------------------------------------------


class _Refresh:
    """The callback that keeps a page up to date."""

    def __init__(self, hub: Hub, clock: Clock, metrics: UiMetrics) -> None:
        self._hub = hub
        self._clock = clock
        self._metrics = metrics
        self._pages = Pages()

    def register(self, app: Dash) -> None:
        app.callback(
            Output("update", "data"),
            Output("timeline", "figure"),
            Output("ns", "options"),
            *(Output(name, "children") for name in PART_NAMES),
            Input("tick", "n_intervals"),
            Input("url", "search"),
            Input("tidy", "n_clicks"),
            State("page", "data"),
            State("applied", "data"),
        )(self.refresh)

    def refresh(self, _tick: Any, search: str | None, _tidy: Any, page_id: str, held: Any) -> tuple[Any, ...]:
        state = parse(search or "")
        now_ns = self._clock.wall_ns()
        with (
            self._metrics.update_seconds.time(),
            self._pages.page(str(page_id)[:64], self._clock.monotonic_ns()) as open_page,
        ):
            self._metrics.pages = self._pages.open
            held = held if isinstance(held, int) else 0
            idle = state.paused and ctx.triggered_id == "tick" and held == open_page.view.seq and held > 0
            parts = self._parts(open_page, state, held, now_ns, idle)
        return parts

    def _parts(
        self, open_page: Page, state: PageState, held: int, now_ns: int, idle: bool
    ) -> tuple[Any, ...]:
        link = self._hub.link
        broken = link.phase is LinkPhase.BROKEN
        whole = held != open_page.view.seq or held == 0
        if whole:
            open_page.sent.clear()
        with self._hub.locked() as model:
            if idle:
                frame_parts = {
                    "link": page.link_pill(statuslines.link_words(link, state)),
                    "banner": page.banner(statuslines.banner_words(link, model, now_ns)),
                    "totals": page.totals(statuslines.totals_words(model)),
                }
                update = None
            else:
                update = open_page.view.update(model, state, held, now_ns, tidy=ctx.triggered_id == "tidy")
                frame_parts = {
                    "panel": panel.panel(model, update.stats, state, broken),
                    "link": page.link_pill(statuslines.link_words(link, state)),
                    "banner": page.banner(statuslines.banner_words(link, model, now_ns)),
                    "totals": page.totals(statuslines.totals_words(model)),
                    "map-empty": page.empty(
                        statuslines.empty_words(
                            link, model, state, len(update.stats), bool(update.namespaces)
                        )
                    ),
                    "chips": page.chips(_selection_text(state), state.filtered),
                    "timeline-title": "Verdicts"
                    + (" of the selection" if state.edge or state.workload else ""),
                    "flow-scope": _scope(state),
                }
        if update is None:
            return (no_update, no_update, no_update, *_only_changed(open_page, frame_parts))
        if ctx.triggered_id == "tidy":
            update.payload["refit"] = True
        options = [{"label": group_title(name), "value": name} for name in update.namespaces]
        options += [
            {"label": group_title(name)[:60], "value": name}
            for name in state.namespaces
            if name not in update.namespaces
        ]
        return (
            update.payload,
            _timeline(open_page, update, state, whole),
            options if open_page.changed("ns", json.dumps(options)) else no_update,
            *_only_changed(open_page, frame_parts),
        )


def _only_changed(open_page: Page, parts: dict[str, Any]) -> list[Any]:
    answer = []
    for name in PART_NAMES:
        if name not in parts:
            answer.append(no_update)
            continue
        text = json.dumps(parts[name], cls=_PlotlyEncoder, sort_keys=True)
        answer.append(parts[name] if open_page.changed(name, text) else no_update)
    return answer


class _PlotlyEncoder(json.JSONEncoder):
    """Components as JSON, to compare them."""

    def default(self, o: Any) -> Any:
        """Write a Dash component as its tree."""
        return o.to_plotly_json()


def _timeline(open_page: Page, update: Update, state: PageState, whole: bool) -> Any:
    timeline = update.timeline
    if whole or open_page.sent.get("timeline-step") != str(timeline.step_ns):
        open_page.sent["timeline-step"] = str(timeline.step_ns)
        return figures.verdict_timeline(timeline)
    bars = figures.heights(timeline)
    # Plotly takes 20-40 ms of the browser's main thread: once a bucket is often enough.
    if not open_page.changed("timeline", f"{timeline.starts_ns[-1]} {to_search(state)}"):
        return no_update
    patch = Patch()
    for index, name in enumerate(figures.NAMES):
        patch["data"][index]["x"] = figures.starts(timeline)
        patch["data"][index]["y"] = list(bars[name])
    patch["layout"]["xaxis"]["range"] = figures.span(timeline)
    return patch


def _selection_text(state: PageState) -> str:
    shown = state.edge or state.workload
    if not shown:
        return ""
    names: Sequence[str] = [part.partition("/")[2] or part for part in shown.split(">")]
    text = " → ".join(names)
    return text if len(text) <= 60 else f"{text[:59]}…"


def _scope(state: PageState) -> str:
    words = []
    if state.edge:
        words.append("of one edge")
    elif state.workload:
        words.append(f"from and to {state.workload.partition('/')[2][:40]}")
    if state.verdict:
        words.append(f"{state.verdict} only")
    if state.text:
        words.append(f"with “{state.text[:40]}”")
    if state.namespaces:
        words.append("in " + ", ".join(group_title(name)[:30] for name in state.namespaces[:3]))
    return ", ".join(words) or "newest first, of every node"
