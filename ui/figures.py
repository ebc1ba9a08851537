"""The verdict timeline as a plotly figure, and the changes that move it on.

Pure. Input: `ui.mapframe.Timeline`; output: figure JSON. Text and grid colours are the style sheet's, so that
the theme can change without a new figure; bar colours have contrast on both grounds.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
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


_HATCHING = {"fillmode": "overlay", "fgcolor": "rgba(255,255,255,0.65)", "size": 4, "solidity": 0.3}


def starts(timeline: Timeline) -> list[str]:
    """Return the middles of the bars as plotly's dates, UTC."""
    half = timeline.step_ns // 2
    return [
        datetime.fromtimestamp((start + half) / 1e9, UTC).strftime("%Y-%m-%dT%H:%M:%S")
        for start in timeline.starts_ns
    ]


def heights(timeline: Timeline) -> dict[str, Sequence[int]]:
    """Return the bars of each verdict class by its name."""
    return {"forwarded": timeline.forwarded, "dropped": timeline.dropped, "audit": timeline.audit}


def strip(timeline: Timeline) -> dict[str, Sequence[Any]]:
    """Return the marks under the axis: one where anything was dropped, else where anything was audited."""
    pairs = list(zip(timeline.dropped, timeline.audit, strict=True))
    kinds = ["dropped" if dropped else "audit" if audit else "" for dropped, audit in pairs]
    return {
        "y": [1 if kind else None for kind in kinds],
        "colour": [COLOURS[kind or "forwarded"] for kind in kinds],
        "shape": [PATTERNS[kind or "forwarded"] for kind in kinds],
    }


def span(timeline: Timeline) -> list[str]:
    """Return the range of the time axis."""
    first, last = timeline.starts_ns[0], timeline.starts_ns[-1] + timeline.step_ns
    return [
        datetime.fromtimestamp(moment / 1e9, UTC).strftime("%Y-%m-%dT%H:%M:%S.%f") for moment in (first, last)
    ]


def verdict_timeline(timeline: Timeline) -> dict[str, Any]:
    """Return the whole figure."""
    x, marks = starts(timeline), strip(timeline)
    figure = go.Figure(
        data=[
            go.Bar(
                name=name,
                x=x,
                y=list(values),
                marker={
                    "color": COLOURS[name],
                    "line": {"width": 0},
                    "pattern": {**_HATCHING, "shape": PATTERNS[name]},
                },
                hovertemplate=f"%{{y:,}} {name}<extra></extra>",
            )
            for name, values in ((name, heights(timeline)[name]) for name in NAMES)
        ]
        + [
            go.Bar(
                x=x,
                y=marks["y"],
                yaxis="y2",
                hoverinfo="skip",
                marker={
                    "color": marks["colour"],
                    "line": {"width": 0},
                    "pattern": {**_HATCHING, "shape": marks["shape"]},
                },
            )
        ],
        layout={
            "barmode": "stack",
            "bargap": 0.28,
            "margin": {"l": 44, "r": 12, "t": 6, "b": 20},
            "height": 104,
            "showlegend": False,
            "paper_bgcolor": "rgba(0,0,0,0)",
            "plot_bgcolor": "rgba(0,0,0,0)",
            "font": {"family": "Inter, system-ui, sans-serif", "size": 10},
            "hovermode": "x unified",
            "hoverlabel": {"font": {"size": 11}},
            "dragmode": False,
            "xaxis": {
                "type": "date",
                "anchor": "y2",
                "range": span(timeline),
                "showgrid": False,
                "nticks": 8,
                "fixedrange": True,
                "tickformat": "%H:%M:%S",
                "hoverformat": "%H:%M:%S UTC",
            },
            "yaxis2": {
                "domain": [0, STRIP_SHARE],
                "range": [0, 1],
                "tickvals": [0.5],
                "ticktext": ["✕ !"],
                "showgrid": False,
                "zeroline": False,
                "fixedrange": True,
            },
            "yaxis": {
                "domain": [STRIP_SHARE + STRIP_GAP, 1],
                "rangemode": "tozero",
                "autorangeoptions": {"include": [0, 4]},
                "nticks": 3,
                "fixedrange": True,
                "tickformat": "~s",
                "zeroline": False,
            },
        },
    )
    answer: dict[str, Any] = figure.to_plotly_json()
    answer["layout"].pop("template", None)  # 6 kB of defaults that this figure does not use
    return answer
