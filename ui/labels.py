"""Where the labels of edges stand: along their own line, never over a card, not over each other.

Pure. Input: the lines of `ui.edgepath` with the room that each label needs, and the cards; output: a place
for each label, or the word that it has none: the page shows such a label only while the pointer asks for it.
Greedy in the order of the claims, so what matters comes first. Not here: texts (`ui.servicemap`).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ui.layout import Rect

LABEL_HEIGHT = 13.0
CHAR_WIDTH = 6.5
"""Of the label's font at 11.5 px, on average with room to spare; `tests/ui/test_ui_page.py` measures it."""
END_ROOM = 5.0
"""Between a label and the arrow head or the card that its line comes from."""
MARGIN = 2.0
"""Kept free around cards."""
CANDIDATES = 32
"""Places tried along a line."""
FOREIGN_LINE_COST = 2.5
"""A label that covers another line might be taken for its; it rather moves on by so many candidates."""
MAX_LINES_AVOIDED = 250
"""With more lines than that, every place covers some."""
CELL = 48.0

Point = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Claim:
    """A label that wants a place."""

    width: float
    points: Sequence[Point]
    """Its line from source to target, at least two points."""


@dataclass(frozen=True, slots=True)
class Place:
    """Centre of a label."""

    x: float
    y: float
    fits: bool
    """False: every place along the line is over a card or another label."""

    def rect(self, width: float) -> Rect:
        """Return what a label of this width covers."""
        return Rect(self.x - width / 2, self.y - LABEL_HEIGHT / 2, width, LABEL_HEIGHT)


def text_width(characters: int) -> float:
    """Return the room for a label of so many characters."""
    return characters * CHAR_WIDTH


def place_labels(claims: Sequence[Claim], cards: Sequence[Rect]) -> list[Place]:
    """Return a place for each claim, in their order; earlier ones choose first."""
    blocked = _Plane()
    for card in cards:
        blocked.add(Rect(card.x - MARGIN, card.y - MARGIN, card.width + 2 * MARGIN, card.height + 2 * MARGIN))
    over_cards = _Plane()
    for card in cards:
        over_cards.add(card)
    lines = _Lines(claims if len(claims) <= MAX_LINES_AVOIDED else ())
    places: list[Place] = []
    for index, claim in enumerate(claims):
        tried = [Place(x, y, True) for x, y in _candidates(claim)]
        best, best_cost = None, float("inf")
        for order, place in enumerate(tried):
            if order >= best_cost:
                break
            rect = place.rect(claim.width)
            if blocked.meets(rect):
                continue
            cost = order + FOREIGN_LINE_COST * lines.covered(rect, index)
            if cost < best_cost:
                best, best_cost = place, cost
        if best is not None:
            blocked.add(best.rect(claim.width))
            places.append(best)
            continue
        hovering = next((place for place in tried if not over_cards.meets(place.rect(claim.width))), tried[0])
        places.append(Place(hovering.x, hovering.y, False))
    return places


def _candidates(claim: Claim) -> Iterator[Point]:
    """Yield centres: at the arrow head, then along the line back to where it begins."""
    (x1, y1), (x2, y2) = claim.points[0], claim.points[-1]
    from_left = claim.points[-2][0] <= x2
    half = claim.width / 2 + END_ROOM
    yield round(x2 - half if from_left else x2 + half), round(y2)
    stride = max(len(claim.points) // CANDIDATES, 1)
    for x, y in claim.points[::-stride]:
        yield round(x), round(y)
    leaves_right = claim.points[1][0] >= x1
    yield round(x1 + half if leaves_right else x1 - half), round(y1)


def _overlap(a: Rect, b: Rect) -> bool:
    return a.x < b.right and b.x < a.right and a.y < b.bottom and b.y < a.bottom


def _cells(rect: Rect) -> Iterator[tuple[int, int]]:
    for column in range(int(rect.x // CELL), int(rect.right // CELL) + 1):
        for row in range(int(rect.y // CELL), int(rect.bottom // CELL) + 1):
            yield column, row


class _Plane:
    """Rectangles, found by where they are."""

    def __init__(self) -> None:
        self._rects: dict[tuple[int, int], list[Rect]] = {}

    def add(self, rect: Rect) -> None:
        for cell in _cells(rect):
            self._rects.setdefault(cell, []).append(rect)

    def meets(self, rect: Rect) -> bool:
        return any(_overlap(rect, other) for cell in _cells(rect) for other in self._rects.get(cell, ()))


class _Lines:
    """Points of lines, found by where they are."""

    def __init__(self, claims: Sequence[Claim]) -> None:
        self._points: dict[tuple[int, int], list[tuple[float, float, int]]] = {}
        for index, claim in enumerate(claims):
            for x, y in claim.points:
                self._points.setdefault((int(x // CELL), int(y // CELL)), []).append((x, y, index))

    def covered(self, rect: Rect, own: int) -> int:
        """Return how many lines but its own a label there would cover."""
        return len(
            {
                index
                for cell in _cells(rect)
                for x, y, index in self._points.get(cell, ())
                if index != own and rect.x < x < rect.right and rect.y + 2 < y < rect.bottom - 2
            }
        )
