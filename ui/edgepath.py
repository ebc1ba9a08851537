"""The curves between cards: where an edge leaves, where it arrives, where its label stands.

Pure. Input: rectangles of `ui.layout`; output: SVG path data. Ends on the same side of a card are spread
over its height in the order of where they come from, so that neighbouring labels do not cover each other.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

from ui.layout import Rect

END_GAP = 14.0
"""Between two ends on one side: the height of a label."""
ARROW = 9.0
"""Length of the arrow head; the curve ends before it."""
CLEARANCE = 11.0
"""How far from cards a passing line stays: half the gap between two rows."""
LANE_GAP = 6.0
"""Between two lines that run beside each other."""
MAX_OBSTACLES = 260
"""Lines go around cards up to this many; more would cost too much for lines nobody can follow."""


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
    label_x: float
    label_y: float
    anchor: str
    """`end`: the label ends at label_x (arrival on the left side); `start` otherwise."""
    arrival: int
    """Number of the end among those on its side of the target, from the top."""


def curves(wires: Sequence[Wire], cards: Mapping[str, Rect]) -> list[Curve]:
    """Return a curve for each wire, in their order; every wire's ends must be in `cards`."""
    sides = [_sides(cards[wire.source], cards[wire.target]) for wire in wires]
    ends: dict[tuple[str, Side], list[tuple[float, int, bool]]] = {}
    for index, (wire, (leaves, arrives)) in enumerate(zip(wires, sides, strict=True)):
        ends.setdefault((wire.source, leaves), []).append((cards[wire.target].y, index, True))
        ends.setdefault((wire.target, arrives), []).append((cards[wire.source].y, index, False))
    leave_y: dict[int, float] = {}
    arrive_y: dict[int, float] = {}
    arrival: dict[int, int] = {}
    for (key, _), found in ends.items():
        rect = cards[key]
        gap = min(END_GAP, (rect.height - 10) / max(len(found) - 1, 1))
        top = rect.y + rect.height / 2 - gap * (len(found) - 1) / 2
        for place, (_, index, leaving) in enumerate(sorted(found)):
            (leave_y if leaving else arrive_y)[index] = top + gap * place
            if not leaving:
                arrival[index] = place
    ways = _Ways(list(cards.values()) if len(cards) <= MAX_OBSTACLES else [])
    return [
        _curve(
            _Ends(sides[index], cards[wire.source], cards[wire.target], leave_y[index], arrive_y[index]),
            arrival[index],
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


def _curve(ends: _Ends, arrival: int, ways: "_Ways") -> Curve:
    leaves, arrives = ends.sides
    x1 = ends.source.right if leaves is Side.RIGHT else ends.source.x
    x2 = (ends.target.x if arrives is Side.LEFT else ends.target.right) + ARROW * arrives.value
    y1, y2 = ends.leave_y, ends.arrive_y
    if leaves is arrives:
        reach = 46 + min(abs(y2 - y1) / 6, 40)
        path = f"M{x1:.0f} {y1:.0f}{_bend(x1 + reach, y1, x2 + reach, y2, x2)}"
    else:
        path = ways.across(x1, y1, x2, y2)
    anchor = "end" if arrives is Side.LEFT else "start"
    return Curve(path, round(x2 + 5 * arrives.value), round(y2), anchor, arrival)


def _bend(control1: float, y1: float, control2: float, y2: float, x2: float) -> str:
    return f"C{control1:.0f} {y1:.0f} {control2:.0f} {y2:.0f} {x2:.0f} {y2:.0f}"


class _Ways:
    """Finds ways between columns: around cards, and beside lines that already run there."""

    def __init__(self, cards: Sequence[Rect]) -> None:
        self._cards = cards
        self._lanes: list[tuple[float, float, float]] = []

    def across(self, x1: float, y1: float, x2: float, y2: float) -> str:
        """Draw from one column to another; in a lane of its own where cards are in the way."""
        sign = 1 if x2 > x1 else -1
        left, right = min(x1, x2) + CLEARANCE, max(x1, x2) - CLEARANCE
        between = [rect for rect in self._cards if rect.x < right and rect.right > left]
        low, high = min(y1, y2) - CLEARANCE, max(y1, y2) + CLEARANCE
        if not any(rect.y < high and rect.bottom > low for rect in between):
            reach = max(abs(x2 - x1) / 2, 40) * sign
            return f"M{x1:.0f} {y1:.0f}{_bend(x1 + reach, y1, x2 - reach, y2, x2)}"
        first = min(rect.x for rect in between) - CLEARANCE
        last = max(rect.right for rect in between) + CLEARANCE
        lane = self._free_lane(y1, y2, between, first, last)
        self._lanes.append((lane, first, last))
        enter, leave = (first, last) if sign > 0 else (last, first)
        half1, half2 = (enter - x1) / 2, (x2 - leave) / 2
        return (
            f"M{x1:.0f} {y1:.0f}{_bend(x1 + half1, y1, enter - half1, lane, enter)}"
            f"L{leave:.0f} {lane:.0f}{_bend(leave + half2, lane, x2 - half2, y2, x2)}"
        )

    def _free_lane(self, y1: float, y2: float, between: Sequence[Rect], first: float, last: float) -> float:
        """Return the height nearest to both ends at which a line meets neither card nor line."""
        wanted = (y1 + y2) / 2
        heights = {y1, y2, wanted}
        for rect in between:
            for shift in (0, LANE_GAP):
                heights |= {rect.y - CLEARANCE + shift, rect.bottom + CLEARANCE - shift}
            heights |= {rect.y - CLEARANCE - LANE_GAP * 2, rect.bottom + CLEARANCE + LANE_GAP * 2}
        taken = [y for y, begin, end in self._lanes if begin < last and end > first]
        free = [y for y in heights if not any(rect.y - 4 < y < rect.bottom + 4 for rect in between)]
        return min(
            free,
            key=lambda y: (any(abs(y - other) < LANE_GAP for other in taken), abs(y - y1) + abs(y - y2), y),
            default=wanted,
        )
