"""The verdict timeline: true heights, a strip for what is too small to have one, round times."""

import json
from itertools import pairwise

import pytest

from ui.figures import LEAST_TOP, MOST_TICKS, NAMES, Mark, strip, ticks, top, verdict_timeline
from ui.mapframe import Timeline

NOW_NS = 1_795_248_000_000_000_000
TIMELINE = Timeline(
    starts_ns=[NOW_NS + bar * 2_000_000_000 for bar in range(6)],
    step_ns=2_000_000_000,
    forwarded=[10_000, 9_000, 8_000, 0, 0, 7],
    dropped=[1, 2, 3, 0, 0, 1],
    audit=[0, 2, 5, 3, 0, 0],
)


def of_counts(bars: int, step_s: int, highest: int = 10) -> Timeline:
    starts = [NOW_NS + 7_000_000_000 + bar * step_s * 1_000_000_000 for bar in range(bars)]
    return Timeline(starts, step_s * 1_000_000_000, [highest] * bars, [0] * bars, [0] * bars)


def test_one_drop_among_ten_thousand_flows_has_a_mark_of_full_height() -> None:
    """Dropped before audited; nothing where neither was; neighbours of a kind are one mark."""
    assert strip(TIMELINE) == [Mark("dropped", 0, 3), Mark("audit", 3, 1), Mark("dropped", 5, 1)]
    drawn = verdict_timeline(TIMELINE)["data"][-1]
    assert drawn["y"] == [1, 1, 1]
    assert len(set(drawn["marker"]["color"])) == len(set(drawn["marker"]["pattern"]["shape"])) == 2
    assert [text[17:] for text in drawn["x"]] == ["03.000000", "07.000000", "11.000000"]
    assert drawn["width"][1] < 2_000 < 5_000 < drawn["width"][0] < 6_000


def test_the_bars_and_their_numbers_stay_true() -> None:
    """The strip has an axis of its own and says nothing under the pointer; the bars hold the counts."""
    figure = verdict_timeline(TIMELINE)
    bars = figure["data"][:-1]
    assert [trace["name"] for trace in bars] == list(NAMES)
    for trace in bars:
        assert [count or 0 for count in trace["y"]] == getattr(TIMELINE, trace["name"])
    marks = figure["data"][-1]
    assert (marks["yaxis"], marks["hoverinfo"]) == ("y2", "skip")
    low, high = figure["layout"]["yaxis2"]["domain"], figure["layout"]["yaxis"]["domain"]
    assert low[1] < high[0]
    assert low[1] * (figure["layout"]["height"] - 26) > 3


@pytest.mark.parametrize("timeline", [TIMELINE, of_counts(30, 2), of_counts(75, 4), of_counts(90, 10)])
def test_a_figure_is_small(timeline: Timeline) -> None:
    """It goes to every page every other second, whole: without plotly's template."""
    assert len(json.dumps(verdict_timeline(timeline))) < 8_000


@pytest.mark.parametrize(
    ("bars", "step_s", "first"), [(30, 2, "08:00:10"), (75, 4, "08:01:00"), (90, 10, "08:03:00")]
)
def test_times_are_round_and_in_their_places(bars: int, step_s: int, first: str) -> None:
    """Few enough to be read, and none beyond the axis."""
    found = ticks(of_counts(bars, step_s))
    assert found[0].text == first
    assert 3 <= len(found) <= MOST_TICKS
    assert all(0 <= tick.share <= 1 for tick in found)
    gaps = [later.share - sooner.share for sooner, later in pairwise(found)]
    assert max(gaps) - min(gaps) < 1e-9


@pytest.mark.parametrize(
    ("highest", "expected"),
    [(0, LEAST_TOP), (4, LEAST_TOP), (9, 10), (10, 10), (11, 20), (4_321, 5_000), (9_999, 10_000)],
)
def test_the_axis_of_counts_is_round_and_never_lower_than_a_bar(highest: int, expected: int) -> None:
    """Round heights hold still while counts change."""
    assert top(of_counts(3, 2, highest)) == expected
