"""The page's address in a real browser: links, reloads, nonsense, what is gone, a restarted page server."""

import pytest

from tests.kit.wait import eventually
from tests.ui.conftest import OpenPage, StartUi, query, until
from tests.ui.flowserver import FlowServer, shop

pytestmark = pytest.mark.browser
EDGE = "lab/intruder>shop/api:8080/TCP"


def test_a_link_to_a_namespace_shows_that_namespace(start_ui: StartUi, open_page: OpenPage) -> None:
    """Followed, reloaded, beside another page: each keeps its own filter, also for a name not seen yet."""
    with FlowServer(shop(), rate=30) as source:
        url = start_ui(source.address).listen.url
        lab, unseen = open_page(f"{url}?ns=lab"), open_page(f"{url}?ns=tomorrow&ns=kube-system")
        for _ in range(2):
            lab.locator("#map-notes", has_text="filters leave 3 of").wait_for()
            lab.locator("#ns", has_text="lab").wait_for()
            assert query(lab).namespaces == ("lab",)
            lab.reload()
        unseen.locator("#map-notes", has_text="filters leave 2 of").wait_for()
        assert query(unseen).namespaces == ("tomorrow", "kube-system")
        lab.locator("#chips", has_text="Clear filters").get_by_role("button").click()
        eventually(lambda: query(lab).namespaces == ())
        lab.go_back()
        until(lab, "document.querySelectorAll('.edge').length === 3")
        assert query(lab).namespaces == ("lab",)


def test_nonsense_in_the_address_is_said_and_goes_with_the_next_choice(
    start_ui: StartUi, open_page: OpenPage
) -> None:
    """What cannot be meant is named with what is shown instead; the address stays as written till then."""
    with FlowServer(shop(), rate=30) as source:
        page = open_page(f"{start_ui(source.address).listen.url}?limit=abc&window=7&colour=%3Cb%3E")
        banner = page.locator("#banner .busy", has_text="limit=abc is no number from 1 to 1,000: 200 is used")
        banner.wait_for()
        assert "window=7 is none of" in banner.inner_text()
        page.locator(".card").first.wait_for()
        assert "limit=abc" in page.evaluate("location.search")
        page.locator("#verdict").get_by_text("Dropped").click()
        until(page, "location.search === '?verdict=dropped'")
        until(page, "!document.querySelector('#banner').children.length")


def test_a_flow_that_is_gone_says_so_and_how_to_find_it(start_ui: StartUi, open_page: OpenPage) -> None:
    """Its address is no blank page: what happened, its edge, and a command that asks the nodes' stores."""
    gone = "00000000-0000-8000-8000-fffffffffff0"
    with FlowServer(shop(), rate=30) as source:
        page = open_page(f"{start_ui(source.address).listen.url}?edge={EDGE.replace('>', '%3E')}&flow={gone}")
        page.get_by_role("heading", name="No longer kept here").wait_for()
        assert f"palomar observe --uuid {gone}" in page.locator("#command").inner_text()
        page.get_by_role("button", name="Show its edge instead").click()
        page.locator("#decision").get_by_text("shop/api-from-web").wait_for()


def test_the_command_for_what_is_shown_is_copied(start_ui: StartUi, open_page: OpenPage) -> None:
    """For everything, for an edge; the clipboard holds what stands in the panel."""
    with FlowServer(shop(), rate=30) as source:
        page = open_page(start_ui(source.address).listen.url)
        page.context.grant_permissions(["clipboard-read", "clipboard-write"])
        page.locator("#command", has_text=f"palomar observe --last 100 --server {source.address}").wait_for()
        page.locator(".label.dropped", has_text="8080/TCP").click()
        page.locator("#command", has_text="--from-workload intruder").wait_for()
        page.get_by_role("button", name="Copy").click()
        page.locator("#terminal .copy[data-done]").wait_for()
        copied = page.evaluate("navigator.clipboard.readText()")
        assert copied == page.locator("#command").inner_text()
        assert "--to-workload api --protocol tcp --to-port 8080" in copied


def test_a_page_outlives_the_restart_of_its_own_server(start_ui: StartUi, open_page: OpenPage) -> None:
    """A new process on the old port: the page gets everything again and keeps what was selected."""
    with FlowServer(shop(), rate=30) as source:
        first = start_ui(source.address)
        page = open_page(f"{first.listen.url}?edge={EDGE.replace('>', '%3E')}")
        page.locator("#decision").wait_for()
        first.stop()
        start_ui(source.address, port=first.listen.port)
        sent = source.sent
        eventually(lambda: source.sent > sent + 30)
        # A row that the first server never saw.
        newest = "document.querySelector('#flow-rows tr.dropped').dataset.id"
        before = page.evaluate(newest)
        until(page, f"{newest} > '{before}'")
        assert query(page).edge == EDGE
        assert page.locator(".card").count() == 9
        assert not page.locator("#stale").is_visible()
