"""Ranks and places: callers left of callees, nothing overlaps, cards stay where they are."""

import math
import random
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from ui.edgepath import END_GAP, Wire, curves
from ui.layering import columns, ranks, sequence
from ui.layout import ROW_GAP, WIDEST_ROW_GAP, Rect, arrange, geometry
from ui.names import Workload

WORLD = Workload("@outside", "world")
WEB, API, STORE, CART = (Workload("shop", name) for name in ("web", "api", "store", "cart"))
SHOP_CALLS = {(WORLD, WEB), (WEB, API), (API, STORE), (WEB, CART), (CART, STORE)}
VERTICES = st.integers(0, 12)
LINKS = st.sets(st.tuples(VERTICES, VERTICES), max_size=40)


def overlap(a: Rect, b: Rect) -> bool:
    return a.x < b.right and b.x < a.right and a.y < b.bottom and b.y < a.bottom


@given(LINKS)
def test_links_of_the_opened_graph_point_right(links: set[tuple[int, int]]) -> None:
    """Every link that follows the sequence leads to a higher rank; every vertex has one."""
    vertices = sorted({end for link in links for end in link})
    place = {vertex: index for index, vertex in enumerate(sequence(vertices, links))}
    found = ranks(vertices, links)
    assert set(found) == set(vertices)
    assert all(found[a] < found[b] for a, b in links if place[a] < place[b])


@given(LINKS)
def test_an_acyclic_graph_has_no_link_that_points_left(links: set[tuple[int, int]]) -> None:
    """Without cycles every caller is left of its callee, and columns hold every vertex once."""
    acyclic = {(min(link), max(link)) for link in links if link[0] != link[1]}
    vertices = sorted({end for link in acyclic for end in link})
    found = ranks(vertices, acyclic)
    assert all(found[a] < found[b] for a, b in acyclic)
    assert sorted(vertex for column in columns(found, acyclic) for vertex in column) == vertices


def test_callers_stand_left_of_callees_inside_and_between_boxes() -> None:
    """world, web, api, store from left to right."""
    cards = geometry(arrange({WORLD, WEB, API, STORE, CART}, SHOP_CALLS)).cards
    xs = [cards[workload].x for workload in (WORLD, WEB, API, STORE)]
    assert xs == sorted(xs)
    assert len(set(xs)) == 4


def test_nothing_overlaps_on_a_large_map() -> None:
    """Cards of 300 workloads do not cover each other, and each lies inside its box and no other."""
    rng = random.Random(3)
    parties = [Workload(f"ns-{index % 12}", f"w{index}") for index in range(300)]
    calls = {(rng.choice(parties), rng.choice(parties)) for _ in range(500)}
    placed = geometry(arrange(parties, calls))
    assert len(placed.cards) == 300
    rects = list(placed.cards.values())
    assert not any(overlap(a, b) for index, a in enumerate(rects) for b in rects[index + 1 :])
    for workload, rect in placed.cards.items():
        for namespace, box in placed.boxes.items():
            inside = (
                box.x <= rect.x and rect.right <= box.right and box.y <= rect.y and rect.bottom <= box.bottom
            )
            assert inside if namespace == workload.namespace else not overlap(rect, box)


def test_cards_stay_when_one_leaves_and_returns() -> None:
    """Nobody moves when a card goes; when it is back it stands where it stood."""
    everyone = {WORLD, WEB, API, STORE, CART}
    first = arrange(everyone, SHOP_CALLS)
    without = arrange(everyone - {CART}, {call for call in SHOP_CALLS if CART not in call}, first)
    before, during = geometry(first).cards, geometry(without).cards
    assert CART not in during
    assert all(during[workload] == before[workload] for workload in everyone - {CART})
    back = arrange(everyone, SHOP_CALLS, without)
    assert geometry(back).cards == before


def test_a_newcomer_gets_a_free_place_and_moves_nobody_of_its_column() -> None:
    """One more caller appears; ranks and order of the others are as they were."""
    everyone = {WORLD, WEB, API, STORE, CART}
    first = arrange(everyone, SHOP_CALLS)
    newcomer = Workload("shop", "admin")
    after = arrange(everyone | {newcomer}, SHOP_CALLS | {(newcomer, API)}, first)
    assert all(after.slots[workload] == first.slots[workload] for workload in everyone)
    assert after.slots[newcomer].rank < after.slots[API].rank


def test_the_same_graph_gives_the_same_map_whatever_the_order() -> None:
    """Reloading a page does not shuffle it."""
    rng = random.Random(5)
    workloads, calls = [WORLD, WEB, API, STORE, CART], list(SHOP_CALLS)
    wanted = geometry(arrange(workloads, calls))
    for _ in range(5):
        rng.shuffle(workloads)
        rng.shuffle(calls)
        assert geometry(arrange(workloads, calls)) == wanted


def test_an_empty_map_has_no_size() -> None:
    """Nothing to place is no error."""
    assert geometry(arrange([], [])).cards == {}


def test_edges_that_arrive_together_end_a_label_apart() -> None:
    """Three callers of one card end at three heights with room for a label between."""
    cards = {
        "a": Rect(0, 0, 100, 50),
        "b": Rect(0, 100, 100, 50),
        "c": Rect(0, 200, 100, 50),
        "t": Rect(400, 100, 100, 50),
    }
    drawn = curves([Wire("a", "t"), Wire("b", "t"), Wire("c", "t")], cards)
    heights = sorted(curve.points[-1][1] for curve in drawn)
    assert [b - a for a, b in pairwise(heights)] == [END_GAP, END_GAP]


def test_the_points_of_a_line_lead_from_card_to_card() -> None:
    """They begin at the caller's border and end before the callee's, also on the way around a card."""
    cards = {"a": Rect(0, 0, 100, 50), "m": Rect(300, 0, 100, 50), "t": Rect(600, 0, 100, 50)}
    for curve in curves([Wire("a", "m"), Wire("a", "t"), Wire("t", "a"), Wire("m", "m")], cards):
        assert all(math.dist(a, b) < 40 for a, b in pairwise(curve.points))
        assert not any(
            rect.x + 1 < x < rect.right - 1 and rect.y < y < rect.bottom
            for x, y in curve.points
            for rect in cards.values()
        )


def test_a_wide_flat_map_gets_room_between_its_rows() -> None:
    """A chain beside two others is spread; a newcomer does not change the rows of those that stand."""
    chain = [Workload("shop", f"w{number}") for number in range(5)]
    side = [Workload("shop", "x"), Workload("shop", "y")]
    calls = {*pairwise(chain), *((other, chain[1]) for other in side)}
    first = arrange([*chain, *side], calls)
    assert ROW_GAP < first.row_gap <= WIDEST_ROW_GAP
    newcomer = Workload("shop", "z")
    after = arrange([*chain, *side, newcomer], calls | {(newcomer, chain[1])}, first)
    assert after.row_gap == first.row_gap


def test_an_edge_goes_around_a_card_in_its_way() -> None:
    """A line between outer columns keeps clear of the card in the middle one."""
    cards = {"a": Rect(0, 0, 100, 50), "m": Rect(300, 0, 100, 50), "t": Rect(600, 0, 100, 50)}
    (straight,) = curves([Wire("a", "m")], cards)
    (around,) = curves([Wire("a", "t")], cards)
    assert "L" not in straight.path
    lane = float(around.path.partition("L")[2].partition("C")[0].split(" ")[1])
    assert not 0 <= lane <= 50
