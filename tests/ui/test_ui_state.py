"""The page's state in the URL: there and back, and whatever people write into an address bar."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ui.errors import ListenAddressError
from ui.listen import is_loopback_name, parse_listen
from ui.navigation import Click, changed, clicked, new_clicks
from ui.state import MAX_LIMIT, TOLD_FAULTS, VERDICTS, WINDOWS_S, PageState, faults, parse, to_search

TEXTS = st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), max_size=40)
STATES = st.builds(
    PageState,
    namespaces=st.lists(TEXTS.filter(bool), max_size=4, unique=True).map(tuple),
    verdict=st.sampled_from(["", *VERDICTS]),
    text=TEXTS,
    window_s=st.sampled_from(WINDOWS_S),
    workload=TEXTS,
    edge=TEXTS,
    flow=TEXTS,
    theme=st.sampled_from(["", "light", "dark"]),
    paused=st.booleans(),
    limit=st.integers(1, MAX_LIMIT),
)


@given(STATES)
def test_a_state_survives_the_url(state: PageState) -> None:
    """What is written is read back."""
    assert parse(to_search(state)) == state


@given(TEXTS)
def test_nonsense_in_a_url_is_never_an_error(search: str) -> None:
    """Any text gives a state."""
    assert isinstance(parse("?" + search), PageState)


@pytest.mark.parametrize(
    "search",
    [
        "",
        "?",
        "?verdict=maybe",
        "?window=7",
        "?window=-1",
        "?theme=pink",
        "?limit=x",
        "?limit=٣",
        "?" + "a=1&" * 500,
    ],
)
def test_what_cannot_be_meant_is_left_at_its_default(search: str) -> None:
    """Unknown values do not hide anything."""
    assert parse(search) == PageState()


@given(STATES)
def test_what_a_page_writes_is_no_fault(state: PageState) -> None:
    """The page's own addresses are never complained of."""
    assert faults(to_search(state)) == []


@pytest.mark.parametrize(
    ("search", "said"),
    [
        ("?limit=abc", "limit=abc is no number from 1 to 1,000: 200 is used"),
        ("?limit=0", "limit=0 is no number from 1 to 1,000: 200 is used"),
        ("?limit=-4", "limit=-4 is no number from 1 to 1,000: 200 is used"),
        ("?limit=99999999999", "limit=99999999999 is no number from 1 to 1,000: 1,000 is used"),
        ("?window=7", "window=7 is none of 60, 300, 900: 300 is used"),
        ("?verdict=maybe", "verdict=maybe is none of forwarded, dropped, audit: all are shown"),
        ("?theme=pink", "theme=pink is none of light, dark: the system's choice is used"),
        ("?paused=yes", "paused=yes is none of 1, 0: the page goes on"),
        ("?q=" + "x" * 300, "q= is longer than 200 characters: the rest is left out"),
        ("?" + "ns=a&" * 60, "ns= is given more than 50 times: the rest is left out"),
        ("?colour=red", "colour is nothing this page knows"),
        ("?" + "a=1&" * 500, "the address has more than 100 parts: everything is shown"),
        (
            "?window=%00%1b" + "9" * 90,
            f"window={chr(0xFFFD) * 2}{'9' * 22}… is none of 60, 300, 900: 300 is used",
        ),
    ],
)
def test_what_cannot_be_meant_is_said_with_what_is_shown_instead(search: str, said: str) -> None:
    """Named as it was written, cut, without control characters; what is used agrees with `parse`."""
    assert faults(search) == [said]


@given(TEXTS)
def test_complaints_are_few_and_never_an_error(search: str) -> None:
    """Any text gives at most a handful of lines."""
    assert len(faults("?" + search)) <= TOLD_FAULTS + 1


def test_a_namespace_that_the_menu_does_not_offer_is_not_unchosen_by_it() -> None:
    """The menu throws out values it does not hold; only a person takes one away that it does."""
    state = PageState(namespaces=("late", "shop"))
    assert changed(state, "ns", {"ns": []}, (), offered=[]) == state
    assert changed(state, "ns", {"ns": ["shop"]}, (), offered=["shop"]) == state
    assert changed(state, "ns", {"ns": []}, (), offered=["late", "shop"]).namespaces == ()
    assert changed(state, "ns", {"ns": ["lab"]}, (), offered=["shop", "lab"]).namespaces == ("late", "lab")


def test_the_default_state_needs_no_query() -> None:
    """The plain address stays plain."""
    assert to_search(PageState()) == ""


def test_limits_are_bounded() -> None:
    """A million workloads are asked for, a thousand are drawn at most; long texts are cut."""
    state = parse("?limit=1000000&q=" + "x" * 5000)
    assert state.limit == MAX_LIMIT
    assert len(state.text) == 200


def test_clicks_lead_in_and_escape_leads_out_again() -> None:
    """Workload, edge, flow; then back step by step; a second click undoes."""
    state = clicked(PageState(), "workload", "shop/web")
    state = clicked(state, "edge", "e1")
    assert state.edge == "e1"
    state = clicked(replace(state, workload="shop/web"), "flow", "f1")
    steps = []
    for _ in range(3):
        state = clicked(state, "nothing", "")
        steps.append((state.flow, state.edge, state.workload))
    assert steps == [("", "e1", "shop/web"), ("", "", "shop/web"), ("", "", "")]
    assert clicked(clicked(PageState(), "edge", "e1"), "edge", "e1") == PageState()


def test_controls_change_their_part_only() -> None:
    """Filters keep the selection; unknown controls and clicks keep everything."""
    state = PageState(edge="e1")
    assert changed(state, "verdict", {"verdict": "dropped"}, ()) == replace(state, verdict="dropped")
    assert changed(state, "verdict", {"verdict": "evil"}, ()) == state
    assert changed(state, "ns", {"ns": ["shop"]}, ()) == replace(state, namespaces=("shop",))
    assert changed(state, "text", {"text": "  web "}, ()) == replace(state, text="web")
    assert changed(state, "theme", {}, ()).theme == "light"
    assert changed(state, "click", {}, [Click(1, "limit", "99999")]).limit == MAX_LIMIT
    assert changed(state, "click", {}, [Click(1, "boo", "3")]) == state


@pytest.mark.parametrize("text", ["127.0.0.1:8080", "localhost:0", "[::1]:9000", "127.1.2.3:80"])
def test_loopback_may_be_listened_on(text: str) -> None:
    """Every loopback address is accepted."""
    assert parse_listen(text).port == int(text.rpartition(":")[2])


@pytest.mark.parametrize(
    "text", ["0.0.0.0:8080", "10.0.0.1:80", "[::]:80", "example.org:80", "127.0.0.1.evil.org:80"]
)
def test_other_addresses_are_refused_with_the_remedy(text: str) -> None:
    """The error names the address and what to do."""
    with pytest.raises(ListenAddressError, match=r"no loopback address.*ssh -L"):
        parse_listen(text)


@pytest.mark.parametrize("text", ["8080", "127.0.0.1", "127.0.0.1:", "127.0.0.1:http", "127.0.0.1:70000", ""])
def test_an_address_without_a_port_is_refused(text: str) -> None:
    """The error shows how it is written."""
    with pytest.raises(ListenAddressError, match="write ADDRESS:PORT"):
        parse_listen(text)


def test_rebound_names_are_no_loopback() -> None:
    """The Host header must name this machine itself."""
    assert all(map(is_loopback_name, ["127.0.0.1:8080", "localhost", "[::1]:8080", "localhost:1"]))
    assert not any(map(is_loopback_name, ["evil.org:8080", "127.0.0.1.evil.org", "", "[::2]:80", "10.0.0.1"]))


def test_clicks_that_an_answer_overtook_are_heard_with_the_next_one_and_once() -> None:
    """Two Escapes within a round trip are two steps back; a click that was heard is not heard again."""
    deep = PageState(workload="shop/web", edge="e1", flow="f1")
    reported = [{"kind": "flow", "id": "f1", "n": 1}, {"kind": "nothing", "id": "", "n": 2}]
    reported.append({"kind": "nothing", "id": "", "n": 3})
    assert changed(deep, "click", {}, new_clicks(reported, 1)) == PageState(workload="shop/web")
    assert new_clicks(reported, 3) == []


@pytest.mark.parametrize("reported", [None, 3, {"n": 1}, [None, "x", {"kind": "flow"}, {"n": "2"}]])
def test_clicks_that_no_page_reports_are_none(reported: object) -> None:
    """Anything may come from a browser."""
    assert new_clicks(reported, 0) == []
    assert new_clicks([{"n": 1}], "much") == [Click(1, "", "")]
