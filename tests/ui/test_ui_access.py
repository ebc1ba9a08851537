"""The page by keyboard, in narrow windows, and measured for contrast as the browser draws it."""

from typing import Any

import pytest

from tests.kit.wait import eventually
from tests.ui.conftest import OpenPage, StartUi, query, screenshot, until
from tests.ui.flowserver import FlowServer, large, shop

pytestmark = pytest.mark.browser

MAP_STOP = '#map-svg [tabindex="0"]'
FOCUSED = """
(() => {
  const item = document.activeElement, style = getComputedStyle(item);
  const svg = item.namespaceURI.includes("svg");
  const box = item.closest(".segments label, .dash-input-container") || item;
  const outlined = (each) => each.outlineStyle !== "none" && parseFloat(each.outlineWidth) > 0;
  const ring = svg ? parseFloat(getComputedStyle(item.querySelector(".face, .line")).strokeWidth) >= 4
    : [style, getComputedStyle(box)].some(outlined);
  return { tag: item.tagName, id: item.dataset.id || "", map: Boolean(item.closest("#map-svg")),
    row: Boolean(item.closest("#flow-rows")), body: item === document.body, ring };
})()
"""


def focused(page: Any) -> Any:
    return page.evaluate(FOCUSED)


def test_the_whole_page_is_used_by_keyboard(start_ui: StartUi, open_page: OpenPage) -> None:
    """A few stops, each with a ring; arrows walk the map and the rows, Enter opens, Escape goes back."""
    with FlowServer(shop(), rate=20) as source:
        page = open_page(start_ui(source.address).listen.url)
        page.locator(".label.dropped").first.wait_for()
        page.locator("#flow-rows tr").nth(3).wait_for()
        stops = []
        while len(stops) < 40:
            page.keyboard.press("Tab")
            stop = focused(page)
            if stop["body"]:
                break
            stops.append(stop)
        assert [stop for stop in stops if not stop["ring"]] == []
        assert [sum(stop[part] for stop in stops) for part in ("map", "row")] == [1, 1]
        assert len(stops) < 25
        page.locator(MAP_STOP).focus()
        walked = []
        for key in ("ArrowDown", "ArrowDown", "ArrowRight"):
            page.keyboard.press(key)
            walked.append(focused(page)["id"])
        assert walked == ["@outside/world", "lab/intruder", "lab/intruder>shop/api:8080/TCP"]
        page.keyboard.press("Enter")
        page.locator("#decision").get_by_text("shop/api-from-web").wait_for()
        page.keyboard.press("ArrowRight")
        assert focused(page)["id"] == "shop/api"
        until(page, "!document.querySelector('#flow-rows tr.forwarded')")
        page.locator("#flow-rows tr").first.focus()
        page.keyboard.press("ArrowDown")
        row = focused(page)["id"]
        # Rows hold still under whoever walks them; the newer ones are announced.
        page.locator("#flow-new", has_text="newer flows").wait_for()
        assert focused(page)["id"] == row
        page.keyboard.press("Enter")
        eventually(lambda: query(page).flow == row, timeout_s=15)
        page.locator("#panel .verdict-line").wait_for()
        page.keyboard.press("Escape")
        eventually(lambda: query(page).flow == "", timeout_s=15)
        page.keyboard.press("Escape")
        page.get_by_role("heading", name="Nodes and agents").wait_for()


def test_the_panels_updates_take_neither_focus_nor_clicks(start_ui: StartUi, open_page: OpenPage) -> None:
    """Lines change places, and their elements with them: the focus stays, a slow click counts."""
    with FlowServer(shop(), rate=60) as source:
        page = open_page(start_ui(source.address).listen.url)
        line = page.locator("#panel .edge-line", has_text="intruder → store")
        line.wait_for()
        line.focus()
        until(page, "(document.activeElement.dataset.id || '').includes('intruder>shop/store')")
        # Another line's element stands in its place: the next update makes a new one for it.
        page.evaluate("document.activeElement.remove()")
        until(page, "(document.activeElement.dataset.id || '').includes('intruder>shop/store')")
        line.hover()
        page.mouse.down()
        page.evaluate("(window.marked = document.querySelector('#panel .edge-line:hover')).remove()")
        line.wait_for()
        page.mouse.up()
        assert not page.evaluate("window.marked.isConnected")
        eventually(lambda: query(page).edge.startswith("lab/intruder>shop/"), timeout_s=15)


def test_a_large_map_is_one_stop_on_the_way_to_the_table(start_ui: StartUi, open_page: OpenPage) -> None:
    """With 200 workloads as with nine; with motion reduced nothing moves."""
    with FlowServer(large(200), rate=20, backlog=1500) as source:
        page = open_page(start_ui(source.address).listen.url)
        page.emulate_media(reduced_motion="reduce")
        until(page, "document.querySelectorAll('.card').length > 150")
        assert page.locator(MAP_STOP).count() == 1
        assert page.evaluate("getComputedStyle(document.querySelector('.card')).transitionDuration") == "0s"


@pytest.mark.parametrize("width", [1440, 1024, 768, 390])
def test_the_reason_stands_in_the_table_at_any_width(
    start_ui: StartUi, open_page: OpenPage, width: int
) -> None:
    """Columns give way from the right; the page never runs over its window."""
    with FlowServer(shop(), rate=20) as source:
        page = open_page(start_ui(source.address).listen.url, width=width, height=800)
        page.locator("#flow-rows tr.dropped").first.wait_for()
        cells = "[...document.querySelector('#flow-rows tr').children]"
        widths = page.evaluate(f"{cells}.map((td) => td.getBoundingClientRect().width)")
        who, whom, _, why = widths[2:6]
        assert min(who, whom, why) > 90
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        screenshot(page, f"width-{width}")


TEXT_CONTRAST = """
() => {
  const parse = (text) => {
    const parts = (text.match(/[\\d.]+/g) || [0, 0, 0]).map(Number), share = text.startsWith("color(srgb");
    const [r, g, b] = parts.map((part) => (share ? part * 255 : part));
    return [r, g, b, parts.length > 3 ? parts[3] : 1];
  };
  const over = (top, below) => [0, 1, 2].map((i) => top[i] * top[3] + below[i] * (1 - top[3])).concat(1);
  const linear = (part) => (part <= 0.03928 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4);
  const light = ([r, g, b]) => 0.2126 * linear(r / 255) + 0.7152 * linear(g / 255) + 0.0722 * linear(b / 255);
  const ratio = (a, b) => {
    const [x, y] = [light(a), light(b)];
    return (Math.max(x, y) + 0.05) / (Math.min(x, y) + 0.05);
  };
  const parents = (item) => (item ? [item, ...parents(item.parentElement)] : []);
  const ground = (item) => parents(item).reverse().reduce(
    (below, each) => over(parse(getComputedStyle(each).backgroundColor), below), [255, 255, 255, 1]);
  const found = {};
  let seen = 0;
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (texts.nextNode()) {
    const text = texts.currentNode.textContent.trim(), item = texts.currentNode.parentElement;
    // What steps back behind a selection is meant to be faint; the strip's mark is a shape under the axis.
    if (!text || !item.getClientRects().length || item.closest(".off, script, style, #map-keys")) continue;
    const drawn = item.namespaceURI.includes("svg"), style = getComputedStyle(item), below = ground(item);
    const colour = parse(drawn ? style.fill : style.color);
    colour[3] *= parents(item).reduce((share, each) => share * Number(getComputedStyle(each).opacity), 1);
    const value = ratio(over(colour, below), below);
    seen += 1;
    const name = item.id || item.getAttribute("class") || item.tagName;
    if (value < 4.5) found[`${name}: ${text.slice(0, 20)}`] = value;
  }
  const lines = { forwarded: ".edge.forwarded .line", dropped: ".edge.dropped .line" };
  for (const name in lines) {
    const style = getComputedStyle(document.querySelector(lines[name]));
    const below = ground(document.querySelector("#map"));
    const colour = parse(style.stroke);
    colour[3] *= Number(style.opacity);
    const value = ratio(over(colour, below), below);
    if (value < 3) found[name] = value;
  }
  return [seen, found];
}
"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_on_the_page_has_contrast(start_ui: StartUi, open_page: OpenPage, scheme: str) -> None:
    """At least 4.5:1 for each text on its own ground, 3:1 for lines (WCAG AA), as it is drawn."""
    with FlowServer(shop(), rate=20) as source:
        page = open_page(start_ui(source.address).listen.url, scheme=scheme)
        page.locator(".label.dropped", has_text="8080").wait_for()
        page.locator("#flow-rows tr.dropped").first.wait_for()
        seen, poor = page.evaluate(TEXT_CONTRAST)
        assert seen > 150
        assert poor == {}
        page.locator("#flow-rows tr.dropped").first.click()
        page.locator("#flow-rows tr.chosen").wait_for()
        page.locator("#panel .verdict-line").wait_for()
        assert page.evaluate(TEXT_CONTRAST)[1] == {}
