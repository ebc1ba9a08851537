"""The Dash application: its routes and headers, and the callback between URL, filters and clicks.

Thin: the state is in the URL (`ui.state`), where a click leads says `ui.navigation`, what a page needs next
`ui.refresh`. Serves every asset itself, answers to loopback names only (against DNS rebinding), and adds
`/healthz` and `/metrics`.
"""

import json
from collections.abc import Sequence
from typing import Any

from dash import ClientsideFunction, Dash, Input, Output, State, ctx, no_update
from flask import Flask, Response, abort, request
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from palomar.clock import Clock
from ui import page
from ui.hub import Hub
from ui.listen import is_loopback_name
from ui.metrics import UiMetrics
from ui.names import group_title
from ui.navigation import changed, new_clicks
from ui.refresh import Refresh
from ui.state import parse, to_search

RENDERER = """var renderer = new DashRenderer({
  request_pre: function () { document.dispatchEvent(new Event("palomar-asked")); },
  request_post: function () { document.dispatchEvent(new Event("palomar-answered")); }
});"""
"""Tells `assets/pace.js` of questions and answers, so that one waits for the other."""


def make_app(hub: Hub, clock: Clock, server_words: Sequence[str] = ()) -> Dash:
    """Wire everything; nothing is served before the WSGI server runs `app.server`.

    `server_words` are the flags that lead a command line to the same flow server.
    """
    app = Dash(
        "ui",
        title="Palomar",
        update_title="",
        assets_folder="assets",
        serve_locally=True,
        include_assets_files=True,
    )
    app.layout = page.frame
    app.renderer = RENDERER
    metrics = UiMetrics(hub)
    _routes(app, hub, metrics)
    _theme(app)
    _state_callback(app)
    Refresh(hub, clock, metrics, server_words).register(app)
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
        Output("ns", "options", allow_duplicate=True),
        Output("verdict", "value"),
        Output("text", "value"),
        Output("window", "value"),
        Output("theme", "children"),
        Output("pause", "children"),
        Output("heard", "data"),
        Input("url", "search"),
        Input("ns", "value"),
        Input("verdict", "value"),
        Input("text", "value"),
        Input("window", "value"),
        Input("theme", "n_clicks"),
        Input("pause", "n_clicks"),
        Input("click", "data"),
        State("ns", "options"),
        State("heard", "data"),
        prevent_initial_call="initial_duplicate",
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
        options: Any,
        heard: Any,
    ) -> tuple[Any, ...]:
        before = parse(search or "")
        offered = [str(option["value"]) for option in options or ()]
        values = {"ns": ns, "verdict": verdict, "text": text, "window": window}
        clicks = new_clicks(click, heard)
        after = changed(before, ctx.triggered_id, values, clicks, offered)
        # The menu throws out chosen values that it does not offer: they come with the choice.
        missing = [name for name in after.namespaces if name not in offered]
        added = [{"label": group_title(name)[:60], "value": name} for name in missing]
        return (
            # What stands in the address stays there until somebody touches something, nonsense included.
            no_update if after == before else to_search(after),
            list(after.namespaces),
            [*(options or ()), *added] if added else no_update,
            after.verdict,
            after.text,
            after.window_s,
            f"Theme: {after.theme or 'auto'}",
            "Resume" if after.paused else "Pause",
            clicks[-1].number if clicks else no_update,
        )
