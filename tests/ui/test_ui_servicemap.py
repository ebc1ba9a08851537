"""The scene: what is drawn, marked, hidden and said to be hidden; differences between scenes."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from palomar_pb.flow import flow_pb2
from ui import units
from ui.edgetable import EdgeTable
from ui.flowrow import EdgeKey, FlowRow, VerdictClass
from ui.names import Workload
from ui.servicemap import (
    EMPTY,
    EdgeStat,
    Elements,
    build,
    difference,
    edge_label,
    edge_stats,
    label_room,
    scene_difference,
)

NOW_NS = 1_795_248_000_000_000_000
WEB, API, STORE = (Workload("shop", name) for name in ("web", "api", "store"))
ELEMENTS = st.dictionaries(
    st.sampled_from("abcde"),
    st.fixed_dictionaries({"x": st.integers(0, 3), "t": st.sampled_from("pq")}),
    max_size=5,
)


def stats_of(*flows: tuple[Workload, Workload, int, VerdictClass]) -> list[EdgeStat]:
    table = EdgeTable()
    for number, (source, destination, port, verdict) in enumerate(flows, 1):
        message = flow_pb2.Flow(
            uuid=str(number), drop_reason_desc=133 if verdict is VerdictClass.DROPPED else 0
        )
        row = FlowRow.of(number, EdgeKey(source, destination, "TCP", port), verdict, message, str(number))
        table.add(row, NOW_NS, NOW_NS)
    return edge_stats(table.window(NOW_NS, 30))


@given(ELEMENTS, ELEMENTS)
def test_a_difference_turns_the_old_into_the_new(old: Elements, new: Elements) -> None:
    """What the browser does with `set` and `del` gives exactly the new elements."""
    change = difference(old, new)
    held = {key: dict(payload) for key, payload in old.items() if key not in change.get("del", [])}
    for key, fields in change.get("set", {}).items():
        held.setdefault(key, {}).update(fields)
    assert held == new
    assert bool(change) == (old != new)


def test_an_unchanged_scene_sends_nothing() -> None:
    """The same counts twice are no difference."""
    stats = stats_of((WEB, API, 8080, VerdictClass.FORWARDED))
    scene, memory = build(stats, 200, [])
    again, _ = build(stats, 200, [], memory)
    assert scene_difference(scene, again) == {}
    assert set(scene_difference(EMPTY, scene)) == {"boxes", "cards", "edges", "size"}


def test_a_dropped_edge_is_marked_by_text_and_kind() -> None:
    """Not by colour alone: the label begins with a cross, both cards carry the mark."""
    stats = stats_of((WEB, API, 8080, VerdictClass.FORWARDED), (WEB, STORE, 6379, VerdictClass.DROPPED))
    scene, _ = build(stats, 200, [])
    dropped = scene.edges["shop/web>shop/store:6379/TCP"]
    assert dropped["k"] == "dropped"
    assert dropped["t"].startswith("✕ 6379/TCP")
    assert "Policy denied" in dropped["f"]
    assert scene.edges["shop/web>shop/api:8080/TCP"]["k"] == "forwarded"
    assert [card for card, payload in sorted(scene.cards.items()) if payload["d"]] == [
        "shop/store",
        "shop/web",
    ]


def test_the_limit_keeps_drops_and_the_selection_and_counts_the_rest() -> None:
    """Of 40 workloads 10 are shown: the dropped edge's ends and the selected one among them."""
    callers = [Workload("shop", f"caller-{number:02}") for number in range(38)]
    flows = [(caller, API, 80, VerdictClass.FORWARDED) for caller in callers for _ in range(3)]
    stats = stats_of(*flows, (WEB, API, 81, VerdictClass.DROPPED))
    scene, _ = build(stats, 10, ["shop/caller-37"])
    assert (scene.shown_workloads, scene.all_workloads) == (10, 40)
    assert {"shop/web", "shop/api", "shop/caller-37"} <= set(scene.cards)
    assert scene.shown_edges == len(scene.edges) == 9
    assert scene.all_edges == 39


def test_who_is_on_the_map_stays_when_another_becomes_busier() -> None:
    """A full map does not change its cards each second with the rates."""
    callers = [Workload("shop", f"caller-{number}") for number in range(9)]
    quiet = [(caller, API, 80, VerdictClass.FORWARDED) for caller in callers]
    scene, memory = build(stats_of(*quiet), 5, [])
    left_out = next(caller for caller in callers if caller.id not in scene.cards)
    busy = [(left_out, API, 80, VerdictClass.FORWARDED)] * 50
    again, _ = build(stats_of(*quiet, *busy), 5, [], memory)
    assert set(again.cards) == set(scene.cards)
    afresh, _ = build(stats_of(*quiet, *busy), 5, [])
    assert left_out.id in afresh.cards


def test_labels_without_room_are_spared_and_counted() -> None:
    """Forty services between the same two cards: some labels are shown, the others counted."""
    flows = [(WEB, API, 8000 + number, VerdictClass.FORWARDED) for number in range(40)]
    scene, _ = build(stats_of(*flows), 200, [])
    shown = sum(edge["l"] for edge in scene.edges.values())
    assert 4 <= shown < len(scene.edges)
    assert scene.hidden_labels == len(scene.edges) - shown


def test_labels_hold_still_while_rates_change() -> None:
    """More flows on the same edges change texts, not places."""
    flows = [(WEB, API, 8080, VerdictClass.FORWARDED), (WEB, STORE, 6379, VerdictClass.DROPPED)]
    scene, memory = build(stats_of(*flows), 200, [])
    again, _ = build(stats_of(*flows * 700), 200, [], memory)
    for key, edge in scene.edges.items():
        assert again.edges[key]["t"] != edge["t"]
        assert [again.edges[key][name] for name in "xylp"] == [edge[name] for name in "xylp"]


@given(st.floats(0, 9e6), st.floats(0, 9e6), st.integers(0, 65535), st.booleans())
def test_no_label_outgrows_its_room(rate: float, dropped_rate: float, port: int, dropped: bool) -> None:
    """Places are given for the longest text that an edge may get."""
    verdict = VerdictClass.DROPPED if dropped else VerdictClass.FORWARDED
    (stat,) = stats_of((WEB, API, port, verdict))
    stat = replace(stat, rate=rate, dropped_rate=dropped_rate)
    assert len(edge_label(stat)) <= label_room(stat)


def test_long_names_are_cut_on_cards_and_whole_in_titles() -> None:
    """A card has room for sixteen characters."""
    long = Workload("shop", "x" * 60)
    scene, _ = build(stats_of((long, API, 80, VerdictClass.FORWARDED)), 200, [])
    card = scene.cards[long.id]
    assert len(card["t"]) == 16
    assert long.name in card["f"]


def test_numbers_are_written_for_people() -> None:
    """Rates, counts, sizes and durations at a glance."""
    assert [units.rate(value) for value in (0, 0.01, 0.44, 9.99, 12.4, 1234, 56_789)] == [
        "", "<0.1/s", "0.4/s", "10/s", "12/s", "1.2k/s", "57k/s",
    ]  # fmt: skip
    assert [units.count(value) for value in (0, 999, 1000, 34_000, 5_600_000)] == [
        "0",
        "999",
        "1.0k",
        "34k",
        "5.6M",
    ]
    assert [units.size(value) for value in (12, 1536, 3 << 20)] == ["12 B", "1.5 KiB", "3.0 MiB"]
    seconds = (4, 720, 3600, 11_100, 187_200)
    assert [units.duration(value * 10**9) for value in seconds] == [
        "4 s",
        "12 min",
        "1 h",
        "3 h 5 min",
        "2 d 4 h",
    ]
    assert [units.round_trip(value) for value in (180, 1400)] == ["180 µs", "1.4 ms"]
