"""Where a click or a control leads: the next page state.

Pure. Input: the state in the URL, and what was touched; output: the state to write into it. Anything may come
from a browser: unknown controls, kinds and values change nothing.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ui.state import MAX_LIMIT, THEMES, VERDICTS, WINDOWS_S, PageState


@dataclass(frozen=True, slots=True)
class Click:
    """A click on something with `data-click`."""

    number: int
    """From 1, as the page counts."""
    kind: str
    target: str


def new_clicks(reported: Any, heard: Any) -> list[Click]:
    """Return the reported clicks after number `heard`.

    A page reports its last few each time: the answer to one may be thrown away because the next overtook it.
    """
    if not isinstance(reported, list):
        return []
    clicks = [
        Click(report["n"], str(report.get("kind", "")), str(report.get("id", "")))
        for report in reported
        if isinstance(report, dict) and isinstance(report.get("n"), int)
    ]
    return [click for click in clicks if click.number > (heard if isinstance(heard, int) else 0)]


def changed(
    state: PageState,
    control: str | None,
    values: Mapping[str, Any],
    click: Sequence[Click],
    offered: Collection[str] | None = None,
) -> PageState:
    """Return the state after a control or clicks.

    `offered` are the namespaces that the menu holds. One that it does not hold nobody can have unchosen
    there: the menu itself throws such values out.
    """
    if control == "ns":
        chosen = [str(name) for name in values["ns"] or ()]
        kept = [name for name in state.namespaces if offered is not None and name not in offered]
        return replace(state, namespaces=tuple(dict.fromkeys([*kept, *chosen])))
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
    if control == "click":
        for report in click:
            state = clicked(state, report.kind, report.target)
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
    if kind == "limit" and target.isascii() and target.isdigit():
        return replace(state, limit=min(max(int(target[:9]), 1), MAX_LIMIT))
    return state
