"""The callback that keeps open pages up to date, once a second each.

Thin: reads the model under its lock, lets `ui.view` and `ui.panel` make what the page shows, and sends what
differs from what that page was sent. Maps, timelines and panels are made once for pages that show the same.
"""

import json
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from dash import Dash, Input, Output, State, ctx, no_update

from palomar.clock import Clock
from ui import figures, page, panel, statuslines, tree
from ui.flowrow import FlowRow
from ui.hub import Hub, LinkPhase
from ui.mapframe import MapFrame, MapFrames
from ui.metrics import UiMetrics
from ui.model import Model
from ui.names import between, group_title
from ui.observecommand import observe_command
from ui.pages import Page, Pages
from ui.servicemap import EdgeStat
from ui.state import PageState, faults, parse, to_search

OPENED_FLOWS = 512
MAX_PANELS = 64


class OpenedFlows:
    """Flows that somebody looked at: their addresses work on after the model has forgotten them."""

    def __init__(self) -> None:
        """Nobody has looked at any."""
        self._rows: OrderedDict[str, FlowRow] = OrderedDict()

    def find(self, model: Model, uuid: str) -> FlowRow | None:
        """Find a flow and keep it; the longest unlooked-at makes room."""
        row = self._rows.pop(uuid, None) or (model.find_flow(uuid) if uuid else None)
        if row is not None:
            self._rows[uuid] = row
            if len(self._rows) > OPENED_FLOWS:
                self._rows.popitem(last=False)
        return row


class Refresh:
    """The callback that keeps a page up to date."""

    def __init__(self, hub: Hub, clock: Clock, metrics: UiMetrics, server_words: Sequence[str]) -> None:
        """`server_words` end the commands that the panel offers."""
        self._hub = hub
        self._clock = clock
        self._metrics = metrics
        self._server_words = server_words
        self._pages = Pages()
        self._frames = MapFrames()
        self._opened = OpenedFlows()
        self._panels: dict[tuple[object, ...], tuple[MapFrame, _Part]] = {}

    def register(self, app: Dash) -> None:
        """Run it at every tick, whenever the address changes and on Tidy."""
        app.callback(
            Output("update", "data"),
            Output("timeline", "figure"),
            Output("ns", "options"),
            Input("tick", "data"),
            Input("url", "search"),
            Input("tidy", "n_clicks"),
            State("page", "data"),
            State("applied", "data"),
        )(self.refresh)

    def refresh(self, _tick: Any, search: str | None, _tidy: Any, page_id: str, held: Any) -> tuple[Any, ...]:
        """Return what the page `page_id`, which holds version `held`, needs."""
        with (
            self._metrics.update_seconds.time(),
            self._pages.page(str(page_id)[:64], self._clock.monotonic_ns()) as open_page,
        ):
            self._metrics.pages = self._pages.open
            return self._answer(open_page, search or "", held if isinstance(held, int) else 0)

    def _answer(self, open_page: Page, search: str, held: int) -> tuple[Any, ...]:
        state, tidy = parse(search), ctx.triggered_id == "tidy"
        now_ns, link = self._clock.wall_ns(), self._hub.link
        whole = held != open_page.view.seq or held == 0
        if whole:
            open_page.sent.clear()
        with self._hub.locked() as model:
            parts = {
                "link": page.link_pill(statuslines.link_words(link, state)),
                "banner": page.banner(
                    [statuslines.fault_words(faults(search)), statuslines.banner_words(link, model, now_ns)]
                ),
                "totals": page.totals(statuslines.totals_words(model)),
            }
            if state.paused and ctx.triggered_id == "tick" and not whole:
                changed = _only_changed(open_page, _written(parts))
                return {"parts": changed} if changed else no_update, no_update, no_update
            at_ns = now_ns
            if link.phase is LinkPhase.BROKEN:
                # The last picture stays: without news nothing became quiet. A second more for what came last.
                at_ns = min(now_ns, link.since_ns + 1_000_000_000)
            update = open_page.view.update(model, state, held, at_ns, tidy, self._frames)
            frame = update.frame
            words = statuslines.empty_words(link, model, state, len(frame.stats), bool(frame.namespaces))
            parts |= {
                "map-empty": page.empty(words),
                "chips": page.chips(_selection_text(state, frame.stats), state.filtered),
                "timeline-title": "Verdicts" + (" of the selection" if state.edge or state.workload else ""),
                "flow-scope": _scope(state),
                "timeline-times": page.times(figures.ticks(frame.timeline)),
            }
            shown = _written(parts)
            shown["panel"] = self._panel(model, frame, state, link.phase is LinkPhase.BROKEN)
        update.payload["parts"] = _only_changed(open_page, shown)
        if tidy:
            update.payload["refit"] = True
        names = dict.fromkeys([*frame.namespaces, *state.namespaces])
        options = [{"label": group_title(name)[:60], "value": name} for name in names]
        return (
            update.payload,
            _timeline(open_page, frame, state),
            options if open_page.changed("ns", json.dumps(options)) else no_update,
        )

    def _panel(self, model: Model, frame: MapFrame, state: PageState, broken: bool) -> "_Part":
        key = (replace(state, theme="", paused=False), broken)
        found = self._panels.get(key)
        if found is not None and found[0] is frame:
            return found[1]
        flow = self._opened.find(model, state.flow)
        command = observe_command(state, frame.stats, self._server_words)
        made = _Part.of(panel.panel(model, frame.stats, state, broken, flow, command))
        if len(self._panels) >= MAX_PANELS:
            self._panels.clear()
        self._panels[key] = frame, made
        return made


@dataclass(frozen=True, slots=True)
class _Part:
    """Trees for the page, and the JSON by which two of them are compared."""

    trees: Sequence[tree.Tree]
    text: str

    @classmethod
    def of(cls, components: Any) -> "_Part":
        trees = tree.plain(components)
        return cls(trees, json.dumps(trees))


def _written(parts: Mapping[str, Any]) -> dict[str, _Part]:
    return {name: _Part.of(components) for name, components in parts.items()}


def _only_changed(open_page: Page, parts: Mapping[str, _Part]) -> dict[str, Sequence[tree.Tree]]:
    return {name: part.trees for name, part in parts.items() if open_page.changed(name, part.text)}


def _timeline(open_page: Page, frame: MapFrame, state: PageState) -> Any:
    # Plotly draws all of it anew, on the browser's main thread: once a bucket is often enough.
    if not open_page.changed("timeline", f"{frame.timeline.starts_ns[-1]} {to_search(state)}"):
        return no_update
    return figures.verdict_timeline(frame.timeline)


def _selection_text(state: PageState, stats: Sequence[EdgeStat]) -> str:
    text = state.workload.partition("/")[2] or state.workload
    if state.edge:
        key = next((stat.key for stat in stats if stat.key.id == state.edge), None)
        # An edge that is not there keeps its written name: only a key tells where a name ends.
        text = f"{between(key.source.name, key.destination.name)} {key.service}" if key else state.edge
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
