"""Labels: never over a card, never over each other; what has no room says so."""

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from ui.edgepath import Wire, curves
from ui.labels import Claim, Place, place_labels
from ui.layout import Rect, arrange, geometry
from ui.names import Workload

NUMBERS = st.integers(0, 9)
CALLS = st.lists(st.tuples(NUMBERS, NUMBERS), min_size=1, max_size=30)
WIDTHS = st.sampled_from([40.0, 85.0, 110.0, 160.0])


def overlap(a: Rect, b: Rect) -> bool:
    return a.x < b.right and b.x < a.right and a.y < b.bottom and b.y < a.bottom


def meets(places: list[Place], claims: list[Claim], cards: list[Rect]) -> bool:
    """Say whether a shown label covers a card or another one: every pair is looked at."""
    shown = [place.rect(claim.width) for place, claim in zip(places, claims, strict=True) if place.fits]
    return any(
        any(overlap(rect, other) for other in shown[index + 1 :])
        or any(overlap(rect, card) for card in cards)
        for index, rect in enumerate(shown)
    )


@settings(deadline=None)
@given(CALLS, st.lists(WIDTHS, min_size=30, max_size=30))
def test_no_label_covers_a_card_or_another_label(calls: list[tuple[int, int]], widths: list[float]) -> None:
    """Whatever calls whom in three namespaces."""
    parties = [Workload(f"ns-{number % 3}", f"w{number}") for number in range(10)]
    pairs = [(parties[a], parties[b]) for a, b in calls]
    cards = {
        party.id: rect
        for party, rect in geometry(arrange({end for pair in pairs for end in pair}, pairs)).cards.items()
    }
    drawn = curves([Wire(a.id, b.id) for a, b in pairs], cards)
    claims = [Claim(width, curve.points) for width, curve in zip(widths, drawn, strict=False)]
    places = place_labels(claims, list(cards.values()))
    assert len(places) == len(claims)
    assert places[0].fits or widths[0] > 110
    assert not meets(places, claims, list(cards.values()))


@settings(deadline=None)
@given(st.lists(st.tuples(*[st.integers(-300, 300)] * 4), max_size=25), st.integers(0, 2**16))
def test_labels_keep_clear_of_arbitrary_cards(lines: list[tuple[int, ...]], seed: int) -> None:
    """Also where cards lie across the lines, left of zero, or over each other."""
    rng = random.Random(seed)
    cards = [Rect(rng.randint(-300, 300), rng.randint(-300, 300), 142, 50) for _ in range(12)]
    claims = [
        Claim(
            rng.choice([20.0, 90.0]), [(x1 + (x2 - x1) * t / 20, y1 + (y2 - y1) * t / 20) for t in range(21)]
        )
        for x1, y1, x2, y2 in lines
    ]
    assert not meets(place_labels(claims, cards), claims, cards)


def test_the_first_claim_stands_at_its_arrow_and_others_give_way() -> None:
    """Two labels of one line: the first at the end, the second further back; a third has no room."""
    line = [(float(x), 0.0) for x in range(0, 201, 10)]
    first, second, third = place_labels([Claim(90, line)] * 3, [])
    assert (first.x, first.y, first.fits) == (150, 0, True)
    assert second.fits
    assert second.x <= 60
    assert not third.fits


def test_a_label_rather_stands_on_its_own_line_than_over_another() -> None:
    """Where another line passes through the usual place, the label moves back along its own."""
    line = [(float(x), 0.0) for x in range(0, 401, 10)]
    crossing = [(340.0, float(y)) for y in range(-60, 61, 3)]
    alone, _ = place_labels([Claim(60, line), Claim(60, [(0.0, 500.0), (300.0, 500.0)])], [])
    moved, _ = place_labels([Claim(60, line), Claim(60, crossing)], [])
    assert alone.x == 365
    assert not moved.x - 30 < 340 < moved.x + 30
    assert moved.fits
