"""The verdict timeline: true heights, and a strip that shows what is too small for them."""

from ui.figures import NAMES, PATTERNS, STRIP, strip, verdict_timeline
from ui.mapframe import Timeline

NOW_NS = 1_795_248_000_000_000_000
TIMELINE = Timeline(
    starts_ns=[NOW_NS + bar * 2_000_000_000 for bar in range(4)],
    step_ns=2_000_000_000,
    forwarded=[10_000, 9_000, 8_000, 0],
    dropped=[1, 0, 3, 0],
    audit=[0, 2, 5, 0],
)


def test_one_drop_among_ten_thousand_flows_has_a_mark_of_full_height() -> None:
    """Dropped before audited; nothing where neither was. Told apart by hatching too."""
    marks = strip(TIMELINE)
    assert marks["y"] == [1, 1, 1, None]
    assert marks["shape"][:3] == [PATTERNS["dropped"], PATTERNS["audit"], PATTERNS["dropped"]]
    assert len(set(marks["colour"][:2])) == 2


def test_the_bars_and_their_numbers_stay_true() -> None:
    """The strip has an axis of its own and says nothing under the pointer; the bars hold the counts."""
    figure = verdict_timeline(TIMELINE)
    counts = {trace["name"]: list(trace["y"]) for trace in figure["data"][:STRIP]}
    assert counts == {name: list(getattr(TIMELINE, name)) for name in NAMES}
    assert [trace["name"] for trace in figure["data"][:STRIP]] == list(NAMES)
    marks = figure["data"][STRIP]
    assert (marks["yaxis"], marks["hoverinfo"]) == ("y2", "skip")
    low, high = figure["layout"]["yaxis2"]["domain"], figure["layout"]["yaxis"]["domain"]
    assert low[1] < high[0]
    assert low[1] * (figure["layout"]["height"] - 26) > 3
