"""The page in a real browser: from edge to flow to rule, themes, filters, outage and return."""

import threading
from pathlib import Path
from typing import Any

import pytest

from tests.kit.wait import eventually
from tests.ui.conftest import OpenPage, StartUi, query, screenshot, until
from tests.ui.flowserver import Call, FlowServer, Party, flow_of, large, shop
from ui.refresh import Refresh

pytestmark = pytest.mark.browser

ASSETS = Path(__file__).resolve().parents[2] / "ui" / "assets"


def test_a_click_leads_from_edge_to_flow_to_rule(start_ui: StartUi, open_page: OpenPage) -> None:
    """The dropped edge is marked; its panel names the policy, a flow of it the rule; the URL holds it."""
    with FlowServer(shop(), rate=30) as source:
        page = open_page(start_ui(source.address).listen.url)
        label = page.locator(".label.dropped", has_text="✕ 8080/TCP")
        label.wait_for()
        screenshot(page, "shop-light")
        label.click()
        decision = page.locator("#decision")
        decision.get_by_text("shop/api-from-web").wait_for()
        assert query(page).edge == "lab/intruder>shop/api:8080/TCP"
        until(page, "document.querySelectorAll('#flow-rows tr.forwarded').length === 0")
        screenshot(page, "edge")
        page.locator("#flow-rows tr.dropped").first.click()
        page.wait_for_url("**flow=00000000-**")
        page.locator("#panel .verdict-line").wait_for()
        decision.get_by_text("ingressDeny[0]").wait_for()
        screenshot(page, "flow")
        # The address alone leads another person to the same place.
        other = open_page(page.url, scheme="dark")
        other.locator("#decision").get_by_text("ingressDeny[0]").wait_for()
        page.keyboard.press("Escape")
        eventually(lambda: query(page).flow == "")
        page.keyboard.press("Escape")
        page.get_by_role("heading", name="Nodes and agents").wait_for()
        eventually(lambda: query(page).edge == "")


COLLISIONS = """
() => {
  const shown = (found) => [...document.querySelectorAll(found)].map((item) => [item.textContent,
    item.getBoundingClientRect()]).filter(([, box]) => box.width > 0);
  const labels = shown(".labels .label"), faces = shown(".card .face"), answer = [];
  const hit = (a, b, play) => a.left + play < b.right && b.left + play < a.right
    && a.top + play < b.bottom && b.top + play < a.bottom;
  labels.forEach(([text, box], index) => {
    if (faces.some(([, face]) => hit(box, face, 0.5))) answer.push(text + " covers a card");
    // A text's box is higher than its letters.
    for (const [other, area] of labels.slice(index + 1)) {
      if (hit(box, area, 3)) answer.push(text + " covers " + other);
    }
  });
  return [labels.length, answer];
}
"""


@pytest.mark.parametrize("size", [(1600, 1000), (1280, 800)])
def test_labels_keep_clear_of_cards_and_of_each_other(
    start_ui: StartUi, open_page: OpenPage, size: tuple[int, int]
) -> None:
    """As the browser draws them, in its own font."""
    with FlowServer(shop(), rate=60) as source:
        page = open_page(start_ui(source.address).listen.url, width=size[0], height=size[1])
        until(page, "document.querySelectorAll('.edge').length > 8")
        page.locator("#map-tools").get_by_text("+", exact=True).click()
        page.locator("#map-tools").get_by_text("+", exact=True).click()
        until(page, "document.querySelector('.labels .label').getBoundingClientRect().width > 0")
        shown, collisions = page.evaluate(COLLISIONS)
        assert shown > 4
        assert collisions == []


def test_names_of_boxes_stay_on_a_narrow_map(start_ui: StartUi, open_page: OpenPage) -> None:
    """From afar a name is wider than its box; it moves rather than being cut by the map's side."""
    with FlowServer(shop(), rate=60) as source:
        page = open_page(start_ui(source.address).listen.url, width=390, height=844)
        names = page.locator("#map-svg.farther .box-name")
        names.filter(has_text="outside the cluster").wait_for()
        canvas = page.locator("#map-canvas").bounding_box()
        boxes = [name.bounding_box() for name in names.all()]
        assert len(boxes) == 5
        assert all(canvas["x"] <= box["x"] for box in boxes)
        assert all(box["x"] + box["width"] <= canvas["x"] + canvas["width"] for box in boxes)


def test_two_escapes_within_one_round_trip_are_two(start_ui: StartUi, open_page: OpenPage) -> None:
    """From an edge of a workload back to everything, as fast as a key repeats."""
    with FlowServer(shop(), rate=20) as source:
        start = start_ui(source.address).listen.url
        page = open_page(f"{start}?workload=shop/web&edge=shop/web%3Eshop/api:8080/TCP")
        page.locator("#panel .kicker", has_text="Edge").wait_for()
        page.evaluate(
            """() => {
              const press = () => new KeyboardEvent("keydown", { key: "Escape", bubbles: true });
              for (let presses = 0; presses < 2; presses += 1) document.body.dispatchEvent(press());
            }"""
        )
        eventually(lambda: (query(page).workload, query(page).edge) == ("", ""), timeout_s=15)


def test_scripts_load_in_any_order(browser: Any) -> None:
    """Dash loads them by name; none calls another while it loads."""
    page = browser.new_page()
    for script in sorted(ASSETS.glob("*.js"), reverse=True):
        page.add_script_tag(path=str(script))
    assert page.evaluate("Object.keys(dash_clientside.palomar).join()") == "apply,theme"
    page.close()


def test_nothing_is_kept_for_an_undo_that_the_page_has_not(start_ui: StartUi, open_page: OpenPage) -> None:
    """Dash's store remembers each value that a page sets; after some updates it holds none of them."""
    with FlowServer(shop(), rate=20) as source:
        page = open_page(start_ui(source.address).listen.url)
        until(page, "window.palomarApplied && window.palomarApplied.seq > 4", timeout_s=30)
        assert page.evaluate("dash_stores[0].getState().history.past.length") <= 1


def test_filters_write_the_url_and_the_back_button_undoes_them(
    start_ui: StartUi, open_page: OpenPage
) -> None:
    """Verdict, text and clearing; the map says what a filter hides."""
    with FlowServer(shop(), rate=30) as source:
        page = open_page(start_ui(source.address).listen.url)
        page.locator(".card").first.wait_for()
        page.locator("#verdict").get_by_text("Dropped").click()
        page.wait_for_url("**verdict=dropped**")
        until(page, "document.querySelectorAll('.edge').length === 2")
        page.locator("#map-notes", has_text="filters leave 2 of").wait_for()
        page.locator("#text").fill("store")
        until(page, "document.querySelectorAll('.edge').length === 1")
        page.locator("#text").fill("zebra")
        page.get_by_role("heading", name="Nothing matches the filters").wait_for()
        page.locator("#map-empty").get_by_text("Clear filters").click()
        until(page, "document.querySelectorAll('.edge').length > 8")
        page.go_back()
        page.get_by_role("heading", name="Nothing matches the filters").wait_for()


def test_the_table_filters_by_click_and_a_pause_holds_the_page_still(
    start_ui: StartUi, open_page: OpenPage
) -> None:
    """A workload's name in the table shows its flows only; paused, no row is added."""
    with FlowServer(shop(), rate=30) as source:
        page = open_page(start_ui(source.address).listen.url)
        page.locator("#flow-rows button.cell", has_text="cart").first.click()
        page.wait_for_url("**workload=shop%2Fcart**")
        until(
            page,
            "[...document.querySelectorAll('#flow-rows tr')].every(row => row.textContent.includes('cart'))",
        )
        page.get_by_role("heading", name="cart", exact=True).wait_for()
        page.get_by_role("button", name="Pause").click()
        page.locator("#link", has_text="Paused").wait_for()
        first = page.evaluate("document.querySelector('#flow-rows tr').dataset.id")
        sent = source.sent
        eventually(lambda: source.sent > sent + 60)
        page.locator("#totals").wait_for()
        assert page.evaluate("document.querySelector('#flow-rows tr').dataset.id") == first


def test_both_themes_and_the_switch_in_the_url(start_ui: StartUi, open_page: OpenPage) -> None:
    """The system's choice by default; the switch overrides it and is kept in the URL."""
    ground = "getComputedStyle(document.body).backgroundColor"
    with FlowServer(shop(), rate=30) as source:
        url = start_ui(source.address).listen.url
        dark, light = open_page(url, scheme="dark"), open_page(url, scheme="light")
        dark.locator(".card").first.wait_for()
        screenshot(dark, "shop-dark")
        dark_ground, light_ground = dark.evaluate(ground), light.evaluate(ground)
        assert dark_ground != light_ground
        light.get_by_role("button", name="Theme").click()
        light.wait_for_url("**theme=light**")
        light.get_by_role("button", name="Theme").click()
        light.wait_for_url("**theme=dark**")
        until(light, f"{ground} === '{dark_ground}'")


CONTRAST = """
() => {
  const parse = (text) => text.match(/[\\d.]+/g).map(Number);
  const linear = (part) => (part <= 0.03928 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4);
  const light = (rgb) => {
    const [r, g, b] = rgb.map((part) => linear(part / 255));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const probe = document.createElement("div");
  document.body.appendChild(probe);
  const colour = (name) => {
    probe.style.color = `var(--${name})`;
    return parse(getComputedStyle(probe).color).slice(0, 3);
  };
  const ratio = (a, b) => {
    const [x, y] = [light(colour(a)), light(colour(b))];
    return (Math.max(x, y) + 0.05) / (Math.min(x, y) + 0.05);
  };
  const pairs = [
    ["text", "surface"], ["text-2", "surface"], ["text-3", "surface"], ["text-2", "ground"],
    ["text-2", "map"], ["text-3", "sunken"], ["good", "good-soft"], ["bad", "bad-soft"],
    ["warn", "warn-soft"], ["accent", "accent-soft"], ["bad", "map"], ["good", "map"],
    ["bad", "surface"], ["text-2", "bad-soft"], ["text-2", "warn-soft"],
  ];
  return pairs.map(([a, b]) => [`${a} on ${b}`, ratio(a, b)]).filter(([, found]) => found < 4.5);
}
"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_colour_has_contrast(start_ui: StartUi, open_page: OpenPage, scheme: str) -> None:
    """At least 4.5:1 for every pair of text and ground that the style sheet uses (WCAG AA)."""
    page = open_page(start_ui("127.0.0.1:1").listen.url, scheme=scheme)
    page.locator("#map").wait_for()
    assert page.evaluate(CONTRAST) == []


def test_an_empty_server_and_a_missing_one_say_what_to_expect(start_ui: StartUi, open_page: OpenPage) -> None:
    """No flows yet is not an error; no server names it, the cause and the remedy."""
    with FlowServer([], rate=0) as source:
        page = open_page(start_ui(source.address).listen.url)
        page.get_by_role("heading", name="No flows yet").wait_for()
        screenshot(page, "empty")
    missing = open_page(start_ui("127.0.0.1:1").listen.url, scheme="dark")
    missing.get_by_role("heading", name="No connection to the flow server").wait_for()
    missing.locator("#map-empty", has_text="--server").wait_for()
    screenshot(missing, "no-server-dark")


def test_the_page_outlives_its_flow_server(start_ui: StartUi, open_page: OpenPage) -> None:
    """It says that the server is gone and shows what it has; it goes on by itself when it is back."""
    source = FlowServer(shop(), rate=30).start()
    try:
        page = open_page(start_ui(source.address).listen.url)
        page.locator(".card").first.wait_for()
        source.stop()
        page.locator("#banner .bad", has_text="does not answer").wait_for()
        assert page.locator(".card").count() >= 8
        screenshot(page, "broken")
        source.start()
        page.locator("#link .pill.good").wait_for(timeout=20_000)
        until(page, "!document.querySelector('#banner').children.length")
    finally:
        source.stop()


def test_the_page_says_when_its_own_server_is_gone(start_ui: StartUi, open_page: OpenPage) -> None:
    """Without answers for six seconds a line says so."""
    with FlowServer(shop(), rate=30) as source:
        server = start_ui(source.address)
        page = open_page(server.listen.url)
        page.locator(".card").first.wait_for()
        server.stop()
        page.locator("#stale").wait_for(state="visible", timeout=20_000)
        assert page.locator(".card").count() >= 8


def test_a_paused_page_does_not_miss_its_server(start_ui: StartUi, open_page: OpenPage) -> None:
    """Nothing new is no sign that nobody answers."""
    with FlowServer(shop(), rate=30) as source:
        page = open_page(start_ui(source.address).listen.url + "?paused=1")
        page.locator(".card").first.wait_for()
        paused_ms = page.evaluate("performance.now()")
        until(page, f"performance.now() > {paused_ms} + 7500")
        assert not page.locator("#stale").is_visible()


def test_the_page_goes_on_when_its_own_server_is_back(start_ui: StartUi, open_page: OpenPage) -> None:
    """An open page is nothing that a person must reload; the new server sends it everything."""
    with FlowServer(shop(), rate=30) as source:
        first = start_ui(source.address)
        page = open_page(first.listen.url)
        page.locator(".card").first.wait_for()
        first.stop()
        page.locator("#stale").wait_for(state="visible", timeout=20_000)
        start_ui(source.address, port=first.listen.port)
        page.locator("#stale").wait_for(state="hidden", timeout=20_000)
        before = page.evaluate("window.palomarApplied.seq")
        until(page, f"window.palomarApplied.seq > {before}")


def test_a_server_slower_than_the_page_asks_does_not_freeze_it(
    start_ui: StartUi, open_page: OpenPage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each answer is waited for: one that the next question overtook would be thrown away, for ever."""
    answer, overtaken = Refresh._answer, threading.Event()

    def slow(self: Refresh, *args: Any) -> Any:
        overtaken.wait(1.6)
        return answer(self, *args)

    with FlowServer(shop(), rate=30) as source:
        page = open_page(start_ui(source.address).listen.url)
        page.locator(".card").first.wait_for()
        monkeypatch.setattr(Refresh, "_answer", slow)
        before = page.evaluate("window.palomarApplied.seq")
        until(page, f"window.palomarApplied.seq > {before} + 3", timeout_s=30)


def test_a_node_that_goes_is_said_on_the_page(start_ui: StartUi, open_page: OpenPage) -> None:
    """The banner and the node's card name it; the others' flows go on."""
    with FlowServer(shop(), rate=30) as source:
        page = open_page(start_ui(source.address).listen.url)
        page.locator(".node .state.connected").nth(2).wait_for()
        source.nodes["default/node-3"] = 2
        source.say_lost("default/node-1", 42)
        page.locator("#banner", has_text="node-3").wait_for()
        page.locator(".node .state.unavailable").wait_for()
        page.locator(".number.bad", has_text="42").wait_for()
        screenshot(page, "node-gone")


def test_names_with_markup_are_text(start_ui: StartUi, open_page: OpenPage) -> None:
    """Labels with HTML and 1 kB names neither run nor break the page: no element comes of them."""
    evil = "<img src=x onerror=\"document.title='owned'\"><script>document.title='owned'</script>"
    calls = [
        Call(Party(evil, evil, 4301, "10.1.0.9"), Party("n" * 1000, "s" * 1000, 4302), 80, denied_by=evil),
        Call(Party("web"), Party("x'\"&;", identity=4303), 443),
    ]
    with FlowServer(calls, rate=20) as source:
        page = open_page(start_ui(source.address).listen.url)
        page.locator(".card").nth(3).wait_for()
        screenshot(page, "markup")
        page.locator(".label.dropped").first.click()
        page.locator("#decision").wait_for()
        page.locator("#flow-rows tr.dropped").first.click()
        page.locator("#decision .rule").wait_for()
        assert page.title() == "Palomar"
        assert page.locator("#app img, #app script").count() == 0
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_a_busy_cluster_says_what_it_hides_and_shows_more_on_demand(
    start_ui: StartUi, open_page: OpenPage
) -> None:
    """260 workloads: 200 are drawn, the note offers the rest; rows that were not shown are counted."""
    with FlowServer(large(260), rate=1500, backlog=2000) as source:
        page = open_page(start_ui(source.address).listen.url, width=1680, height=1050)
        note = page.locator("#map-notes button", has_text="map shows 200 of")
        note.wait_for()
        page.locator("#flow-note", has_text="flows not shown").wait_for()
        screenshot(page, "busy")
        note.click()
        page.wait_for_url("**limit=**")
        until(page, "document.querySelectorAll('.card').length > 240")


def test_a_flow_is_on_the_page_within_a_second_and_a_half(start_ui: StartUi, open_page: OpenPage) -> None:
    """From sending to the row in the browser, ten times over; the slowest counts."""
    with FlowServer(shop(), rate=5) as source:
        page = open_page(start_ui(source.address).listen.url)
        page.locator("#flow-rows tr").first.wait_for()
        slowest_ms = 0.0
        for _ in range(10):
            marked = flow_of(shop()[0], 1_795_248_000_000_000_000)
            began = page.evaluate("performance.now()")
            source.send(marked)
            page.wait_for_selector(f'#flow-rows tr[data-id="{marked.flow.uuid}"]', state="attached")
            slowest_ms = max(slowest_ms, page.evaluate("performance.now()") - began)
        assert slowest_ms < 1500
