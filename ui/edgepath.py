"""The curves between cards: where an edge leaves, which way it goes, where it arrives.

Pure. Input: rectangles of `ui.layout`; output: SVG path data and points along it for `ui.labels`. Ends on
the same side of a card are spread over its height in the order of where they come from.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from itertools import pairwise

from ui.layout import Rect

END_GAP = 17.0
"""Between two ends on one side: the height of a label and some air."""
ARROW = 9.0
"""Length of the arrow head; the curve ends before it."""
CLEARANCE = 11.0
"""How far from cards a passing line stays: half the gap between two rows."""
LANE_GAP = 7.0
"""Between two lines that run beside each other."""
LANES, FEW_CARDS = 6, 60
"""Lanes tried above and below each card; two where there are more cards: others' lanes are near enough."""
STEP = 12.0
"""Between two points along a line."""
MOST_STEPS = 48
"""Points on one part of a line; on longer parts they are further apart."""
MAX_OBSTACLES = 260
"""Lines go around cards up to this many; more would cost too much for lines nobody can follow."""


Point = tuple[float, float]
Bend = tuple[Point, Point, Point]
"""Two control points and the end of a cubic curve."""


class Side(Enum):
    """Where on a card an edge ends."""

    LEFT = -1
    RIGHT = 1


@dataclass(frozen=True, slots=True)
class Wire:
    """One edge to draw: two cards by their keys."""

    source: str
    target: str


@dataclass(frozen=True, slots=True)
class Curve:
    """A drawn edge."""

    path: str
    """SVG path data, rounded to whole units: the same place is the same text."""
    points: tuple[Point, ...]
    """Along the line from source to target, about STEP apart; further where a part is very long."""


def curves(wires: Sequence[Wire], cards: Mapping[str, Rect]) -> list[Curve]:
    """Return a curve for each wire, in their order; every wire's ends must be in `cards`."""
    sides = [_sides(cards[wire.source], cards[wire.target]) for wire in wires]
    ends: dict[tuple[str, Side], list[tuple[float, int, bool]]] = {}
    for index, (wire, (leaves, arrives)) in enumerate(zip(wires, sides, strict=True)):
        ends.setdefault((wire.source, leaves), []).append((cards[wire.target].y, index, True))
        ends.setdefault((wire.target, arrives), []).append((cards[wire.source].y, index, False))
    leave_y: dict[int, float] = {}
    arrive_y: dict[int, float] = {}
    for (key, _), found in ends.items():
        rect = cards[key]
        gap = min(END_GAP, (rect.height - 10) / max(len(found) - 1, 1))
        top = rect.y + rect.height / 2 - gap * (len(found) - 1) / 2
        for place, (_, index, leaving) in enumerate(sorted(found)):
            (leave_y if leaving else arrive_y)[index] = top + gap * place
    ways = _Ways(list(cards.values()) if len(cards) <= MAX_OBSTACLES else [])
    return [
        _curve(
            _Ends(sides[index], cards[wire.source], cards[wire.target], leave_y[index], arrive_y[index]),
            ways,
        )
        for index, wire in enumerate(wires)
    ]


def _sides(source: Rect, target: Rect) -> tuple[Side, Side]:
    if source.right + ARROW <= target.x:
        return Side.RIGHT, Side.LEFT
    if target.right + ARROW <= source.x:
        return Side.LEFT, Side.RIGHT
    return Side.RIGHT, Side.RIGHT


@dataclass(frozen=True, slots=True)
class _Ends:
    sides: tuple[Side, Side]
    source: Rect
    target: Rect
    leave_y: float
    arrive_y: float


def _curve(ends: _Ends, ways: "_Ways") -> Curve:
    leaves, arrives = ends.sides
    x1 = ends.source.right if leaves is Side.RIGHT else ends.source.x
    x2 = (ends.target.x if arrives is Side.LEFT else ends.target.right) + ARROW * arrives.value
    y1, y2 = ends.leave_y, ends.arrive_y
    if leaves is arrives:
        reach = 46 + min(abs(y2 - y1) / 6, 40)
        return _drawn((x1, y1), ((x1 + reach, y1), (x2 + reach, y2), (x2, y2)))
    return ways.across(x1, y1, x2, y2)


def _drawn(start: Point, *parts: Bend | Point) -> Curve:
    """Draw from `start` through curves and, where a part is only a point, straight lines."""
    path = [f"M{start[0]:.0f} {start[1]:.0f}"]
    points = [start]
    for part in parts:
        begin = points[-1]
        if isinstance(part[0], tuple) and isinstance(part[1], tuple):
            bend: Bend = part
            path.append("C" + " ".join(f"{x:.0f} {y:.0f}" for x, y in bend))
        else:
            end: Point = part
            path.append(f"L{end[0]:.0f} {end[1]:.0f}")
            bend = (begin, end, end)
        # The control polygon is never shorter than its curve.
        length = sum(math.dist(a, b) for a, b in pairwise((begin, *bend)))
        steps = min(max(math.ceil(length / STEP), 2), MOST_STEPS)
        points += [_on_bend(begin, bend, step / steps) for step in range(1, steps + 1)]
    return Curve("".join(path), tuple(points))


def _on_bend(begin: Point, bend: Bend, t: float) -> Point:
    weights = (1 - t) ** 3, 3 * t * (1 - t) ** 2, 3 * t * t * (1 - t), t**3
    corners = (begin, *bend)
    return (
        sum(weight * corner[0] for weight, corner in zip(weights, corners, strict=True)),
        sum(weight * corner[1] for weight, corner in zip(weights, corners, strict=True)),
    )


class _Ways:
    """Finds ways between columns: around cards, and beside lines that already run there."""

    def __init__(self, cards: Sequence[Rect]) -> None:
        self._cards = cards
        self._tried = LANES if len(cards) <= FEW_CARDS else 2
        self._lanes: list[tuple[float, float, float]] = []

    def across(self, x1: float, y1: float, x2: float, y2: float) -> Curve:
        """Draw from one column to another; in a lane of its own where cards are in the way."""
        sign = 1 if x2 > x1 else -1
        left, right = min(x1, x2) + CLEARANCE, max(x1, x2) - CLEARANCE
        between = [rect for rect in self._cards if rect.x < right and rect.right > left]
        low, high = min(y1, y2) - CLEARANCE, max(y1, y2) + CLEARANCE
        if not any(rect.y < high and rect.bottom > low for rect in between):
            reach = max(abs(x2 - x1) / 2, 40) * sign
            return _drawn((x1, y1), ((x1 + reach, y1), (x2 - reach, y2), (x2, y2)))
        first = min(rect.x for rect in between) - CLEARANCE
        last = max(rect.right for rect in between) + CLEARANCE
        lane = self._free_lane(y1, y2, between, first, last)
        self._lanes.append((lane, first, last))
        enter, leave = (first, last) if sign > 0 else (last, first)
        half1, half2 = (enter - x1) / 2, (x2 - leave) / 2
        return _drawn(
            (x1, y1),
            ((x1 + half1, y1), (enter - half1, lane), (enter, lane)),
            (leave, lane),
            ((leave + half2, lane), (x2 - half2, y2), (x2, y2)),
        )

    def _free_lane(self, y1: float, y2: float, between: Sequence[Rect], first: float, last: float) -> float:
        """Return the height nearest to both ends at which a line meets neither card nor line."""
        wanted = (y1 + y2) / 2
        heights = {y1, y2, wanted}
        for rect in between:
            for lane in range(self._tried):
                shift = CLEARANCE + (lane - 1) * LANE_GAP
                heights |= {rect.y - shift, rect.bottom + shift}
        taken = [y for y, begin, end in self._lanes if begin < last and end > first]
        nearest: float | None = None
        for y in sorted(heights, key=lambda y: (abs(y - y1) + abs(y - y2), y)):
            if any(rect.y - 4 < y < rect.bottom + 4 for rect in between):
                continue
            if not any(abs(y - other) < LANE_GAP for other in taken):
                return y
            nearest = y if nearest is None else nearest
        return wanted if nearest is None else nearest
