"""The verdict timeline as a plotly figure, and the times under it.

Pure. Input: `ui.mapframe.Timeline`; output: figure JSON, and which clock time stands where on the axis. Text
and grid colours are the style sheet's, so that the theme can change without a new figure; bar colours have
contrast on both grounds.

The times are not plotly's: it measures each tick label anew at each place where it stands, and remembers
10,000 of them; an axis that moves every two seconds takes a megabyte in ten minutes (docs/adr/0005).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import groupby
from typing import Any

import plotly.graph_objects as go

from ui.mapframe import Timeline

COLOURS = {"forwarded": "#3f8f85", "dropped": "#e0474c", "audit": "#b97b10"}
PATTERNS = {"forwarded": "", "dropped": "/", "audit": "."}
"""Dropped and audit bars are hatched: not by colour alone."""
NAMES = ("dropped", "audit", "forwarded")
"""From the bottom up: what was refused stands on the axis."""
STRIP = len(NAMES)
"""Index of the strip's bars among the figure's traces."""
STRIP_SHARE, STRIP_GAP = 0.12, 0.09
"""Of the plot's height. One drop among ten thousand flows is a bar without height: the strip says when there
was one, and no more; how many say the bars and the numbers under the pointer."""
BAR_SHARE = 0.72
"""Of the step; the rest is the gap to the next bar."""
LEAST_TOP = 4
TICK_STEPS_S = (10, 60, 180)
MOST_TICKS = 6

_HATCHING = {"fillmode": "overlay", "fgcolor": "rgba(255,255,255,0.65)", "size": 4, "solidity": 0.3}
_STILL = {"showgrid": False, "zeroline": False, "fixedrange": True}


@dataclass(frozen=True, slots=True)
class Mark:
    """A stretch of the strip in which something was refused in each bar."""

    kind: str
    """`dropped` where anything was, else `audit`."""
    first: int
    """Index of its first bar."""
    bars: int


@dataclass(frozen=True, slots=True)
class Tick:
    """A clock time and where it stands on the axis."""

    text: str
    share: float
    """0 is the axis's left end, 1 its right."""


BLANK: dict[str, Any] = {
    "data": [],
    "layout": {
        "height": 104,
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "xaxis": {"visible": False},
        "yaxis": {"visible": False},
    },
}
"""Before the first answer: plotly's own empty figure has axes from 0 to 6."""


def strip(timeline: Timeline) -> list[Mark]:
    """Return the marks under the axis: where anything was dropped, else where anything was audited."""
    pairs = zip(timeline.dropped, timeline.audit, strict=True)
    kinds = ["dropped" if dropped else "audit" if audit else "" for dropped, audit in pairs]
    marks, first = [], 0
    for kind, run in groupby(kinds):
        bars = len(list(run))
        if kind:
            marks.append(Mark(kind, first, bars))
        first += bars
    return marks


def ticks(timeline: Timeline) -> list[Tick]:
    """Return the round clock times, UTC, at most MOST_TICKS of them."""
    begin_ns, span_ns = timeline.starts_ns[0], _span_ns(timeline)
    step_ns = next(
        (step * 1_000_000_000 for step in TICK_STEPS_S if span_ns // (step * 1_000_000_000) <= MOST_TICKS),
        span_ns,
    )
    first_ns = -(-begin_ns // step_ns) * step_ns
    return [
        Tick(f"{datetime.fromtimestamp(at_ns // 1_000_000_000, UTC):%H:%M:%S}", (at_ns - begin_ns) / span_ns)
        for at_ns in range(first_ns, begin_ns + span_ns + 1, step_ns)
    ]


def top(timeline: Timeline) -> int:
    """Return the height of the count's axis: 1, 2 or 5 times a power of ten, so that it holds still."""
    columns = zip(timeline.forwarded, timeline.dropped, timeline.audit, strict=True)
    highest = max((sum(column) for column in columns), default=0)
    if highest <= LEAST_TOP:
        return LEAST_TOP
    power = int(10 ** (len(str(highest)) - 1))
    return next(factor * power for factor in (1, 2, 5, 10) if highest <= factor * power)


def verdict_timeline(timeline: Timeline) -> dict[str, Any]:
    """Return the whole figure; plotly refuses a word that it does not know."""
    bars = [_bars(timeline, name, getattr(timeline, name)) for name in NAMES]
    figure = go.Figure([*bars, _strip(timeline)], _layout(timeline))
    answer: dict[str, Any] = figure.to_plotly_json()
    answer["layout"].pop("template", None)  # 6 kB of defaults that this figure does not use
    return answer


def _bars(timeline: Timeline, name: str, counts: Sequence[int]) -> go.Bar:
    step_ms = timeline.step_ns // 1_000_000
    return go.Bar(
        name=name,
        x0=_date(timeline.starts_ns[0] + timeline.step_ns // 2),
        dx=step_ms,
        y=[count or None for count in counts],  # no element for a bar without height
        width=step_ms * BAR_SHARE,
        marker={
            "color": COLOURS[name],
            "line": {"width": 0},
            "pattern": {**_HATCHING, "shape": PATTERNS[name]},
        },
        hovertemplate=f"%{{y:,}} {name}<extra></extra>",
    )


def _strip(timeline: Timeline) -> go.Bar:
    marks, step_ns = strip(timeline), timeline.step_ns
    gap_ms = step_ns // 1_000_000 * (1 - BAR_SHARE)
    return go.Bar(
        x=[_date(timeline.starts_ns[mark.first] + mark.bars * step_ns // 2) for mark in marks],
        y=[1] * len(marks),
        width=[mark.bars * step_ns // 1_000_000 - gap_ms for mark in marks],
        yaxis="y2",
        hoverinfo="skip",
        marker={
            "color": [COLOURS[mark.kind] for mark in marks],
            "line": {"width": 0},
            "pattern": {**_HATCHING, "shape": [PATTERNS[mark.kind] for mark in marks]},
        },
    )


def _layout(timeline: Timeline) -> go.Layout:
    begin_ns = timeline.starts_ns[0]
    return go.Layout(
        barmode="stack",
        margin={"l": 44, "r": 12, "t": 6, "b": 20},
        height=104,
        showlegend=False,
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        font={"family": "Inter, system-ui, sans-serif", "size": 10},
        hovermode="x unified",
        hoverlabel={"font": {"size": 11}},
        dragmode=False,
        xaxis={
            **_STILL,
            "type": "date",
            "anchor": "y2",
            "range": [_date(begin_ns), _date(begin_ns + _span_ns(timeline))],
            "showticklabels": False,
            "hoverformat": "%H:%M:%S UTC",
        },
        yaxis2={
            **_STILL,
            "domain": [0, STRIP_SHARE],
            "range": [0, 1],
            "tickvals": [0.5],
            "ticktext": ["✕ !"],
        },
        yaxis={
            **_STILL,
            "domain": [STRIP_SHARE + STRIP_GAP, 1],
            "range": [0, top(timeline)],
            "showgrid": True,
            "nticks": 3,
            "tickformat": "~s",
        },
    )


def _span_ns(timeline: Timeline) -> int:
    return timeline.starts_ns[-1] + timeline.step_ns - timeline.starts_ns[0]


def _date(moment_ns: int) -> str:
    """Write a time as plotly reads it."""
    return f"{datetime.fromtimestamp(moment_ns / 1e9, UTC):%Y-%m-%dT%H:%M:%S.%f}"
