"""Frames shared between pages: made once, never stale for a lone page, never moved by a stranger."""

from dataclasses import replace

from tests.ui.flowserver import Call, Party, flow_of, shop
from ui.mapframe import FRAME_NS, IDLE_NS, MAX_FRAMES, FrameKey, MapFrames
from ui.model import Model
from ui.state import PageState
from ui.view import PageView

NOW_NS = 1_795_248_000_000_000_000
SECOND_NS = 1_000_000_000
EDGE = "shop/web>shop/api:8080/TCP"


def filled(now_ns: int = NOW_NS) -> Model:
    made = Model()
    made.add_responses([flow_of(call, now_ns) for call in shop()], now_ns, live=True)
    return made


def test_ten_pages_of_one_selection_make_one_frame_a_second() -> None:
    """Ten pages over five seconds, one after another: five frames, and each page ends up to date."""
    model, frames, views = filled(), MapFrames(), [PageView() for _ in range(10)]
    for tick in range(5):
        for number, view in enumerate(views):
            now_ns = NOW_NS + tick * SECOND_NS + number * SECOND_NS // 12
            view.update(model, PageState(), view.seq, now_ns, frames=frames)
    assert frames.made == 5
    now_ns = NOW_NS + 5 * SECOND_NS
    model.add_responses([flow_of(Call(Party("new"), Party("api"), 81), now_ns)], now_ns, live=True)
    for view in views:
        update = view.update(model, PageState(), view.seq, now_ns, frames=frames)
        assert "shop/new>shop/api:81/TCP" in update.payload["map"]["edges"]["set"]
        assert [row["a"] for row in update.payload["rows"]["add"]] == ["new"]


def test_the_table_is_as_fresh_as_the_page_asks_while_the_map_is_shared() -> None:
    """A flow that came after the shared frame is in the table at once."""
    model, frames = filled(), MapFrames()
    first, second = PageView(), PageView()
    first.update(model, PageState(), 0, NOW_NS, frames=frames)
    model.add_responses([flow_of(shop()[0], NOW_NS)], NOW_NS, live=True)
    late = second.update(model, PageState(), 0, NOW_NS + FRAME_NS // 2, frames=frames)
    assert frames.made == 1
    assert len(late.payload["rows"]["add"]) == len(shop()) + 1


def test_a_selection_a_filter_and_a_theme() -> None:
    """What changes the map has a frame of its own; what does not shares one."""
    model, frames = filled(), MapFrames()
    states = [
        PageState(),
        PageState(theme="dark"),
        PageState(flow="f"),
        PageState(paused=True),
        PageState(edge=EDGE),
        PageState(verdict="dropped"),
    ]
    for state in states:
        PageView().update(model, state, 0, NOW_NS, frames=frames)
    assert frames.made == 3


def test_selecting_does_not_move_cards_and_tidying_moves_nobody_elses() -> None:
    """Places go from frame to frame; a tidied page has its own, everybody else keeps theirs."""
    model, frames = filled(), MapFrames()
    mine, other = PageView(), PageView()
    before = mine.update(model, PageState(), 0, NOW_NS, frames=frames).frame.scene.cards
    selected = other.update(model, PageState(edge=EDGE), 0, NOW_NS, frames=frames).frame.scene.cards
    # Newcomers take free slots: arranged anew everything would stand elsewhere.
    late = [Call(Party(f"late-{number}"), Party("load", "lab"), 90) for number in range(3)]
    now_ns = NOW_NS + SECOND_NS
    model.add_responses([flow_of(call, now_ns) for call in late], now_ns, live=True)
    shown = other.update(model, PageState(), other.seq, now_ns, frames=frames).frame.scene.cards
    tidied = mine.update(model, PageState(), mine.seq, now_ns, tidy=True, frames=frames).frame.scene.cards
    again = other.update(model, PageState(), other.seq, now_ns, frames=frames).frame.scene.cards

    def at(cards: dict[str, dict[str, object]]) -> dict[str, tuple[object, object]]:
        return {name: (card["x"], card["y"]) for name, card in cards.items()}

    assert at(selected) == at(before)
    assert at(again) == at(shown)
    assert at(tidied) != at(shown)
    kept = mine.update(model, PageState(), mine.seq, now_ns + SECOND_NS, frames=frames).frame.scene.cards
    assert at(kept) == at(tidied)


def test_frames_are_forgotten() -> None:
    """Five seconds after the last page asked, and beyond a number of them: memory is flat."""
    model, frames = filled(), MapFrames()
    for number in range(MAX_FRAMES + 5):
        frames.frame(model, FrameKey(PageState(limit=number + 1)), NOW_NS)
    assert len(frames) == MAX_FRAMES
    frames.frame(model, FrameKey(PageState()), NOW_NS + IDLE_NS + 1)
    assert len(frames) == 1


def test_a_paused_page_holds_still_whatever_is_clicked_in_it() -> None:
    """A click on a row opens it; map, timeline and table stay as they were. Another filter is answered."""
    model, frames, view = filled(), MapFrames(), PageView()
    running = PageState()
    view.update(model, running, 0, NOW_NS, frames=frames)
    paused = replace(running, paused=True)
    held = view.update(model, paused, view.seq, NOW_NS + SECOND_NS, frames=frames).frame
    now_ns = NOW_NS + 4 * SECOND_NS
    model.add_responses([flow_of(call, now_ns) for call in shop()], now_ns, live=True)
    opened = view.update(model, replace(paused, flow="f1"), view.seq, now_ns, frames=frames)
    assert opened.frame is held
    assert not {"map", "rows"} & set(opened.payload)
    filtered = view.update(model, replace(paused, verdict="dropped"), view.seq, now_ns, frames=frames)
    assert {row["v"] for row in filtered.payload["rows"]["add"]} == {"dropped"}
    back = view.update(model, running, view.seq, now_ns + SECOND_NS, frames=frames)
    assert len(back.payload["rows"]["add"]) == 2 * len(shop())
