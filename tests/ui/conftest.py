"""A page server in this process, and Debian's Chromium to look at it."""

import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from palomar.clock import SystemClock
from tests.kit.wait import eventually
from ui.client import ServerTarget
from ui.listen import ListenAddress
from ui.main import UiConfig, UiServer
from ui.state import parse

CHROMIUM = Path("/usr/bin/chromium")
ARGUMENTS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
ARTEFACTS = Path(__file__).resolve().parents[2] / "artefacts" / "ui"

StartUi = Callable[..., UiServer]
OpenPage = Callable[..., Any]


@pytest.fixture
def start_ui() -> Iterator[StartUi]:
    """Start page servers for a flow server's address; all are stopped afterwards."""
    started: list[UiServer] = []
    logging.getLogger("waitress.queue").setLevel(logging.ERROR)

    def start(address: str, port: int = 0, **target: Any) -> UiServer:
        config = UiConfig(ServerTarget(address, address, **target), ListenAddress("127.0.0.1", port))
        server = UiServer(config, SystemClock())
        server.start()
        started.append(server)
        return server

    yield start
    for server in started:
        server.stop()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """One Chromium for a module's tests."""
    if not CHROMIUM.exists():
        pytest.skip(f"{CHROMIUM} is missing: run `make setup-test`")
    playwright = pytest.importorskip(
        "playwright.sync_api", reason="playwright is missing: run `make setup-test`"
    )
    with playwright.sync_playwright() as driver:
        started = driver.chromium.launch(executable_path=str(CHROMIUM), args=list(ARGUMENTS))
        yield started
        started.close()


@pytest.fixture
def open_page(browser: Any) -> Iterator[Callable[..., Any]]:
    """Open a page; errors of its scripts fail the test at its end."""
    contexts: list[Any] = []
    errors: list[str] = []

    def open_(url: str, scheme: str = "light", width: int = 1440, height: int = 900) -> Any:
        context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(15_000)
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(url)
        return page

    yield open_
    for context in contexts:
        context.close()
    assert not errors


def screenshot(page: Any, name: str) -> None:
    """Keep what the page looks like for people."""
    ARTEFACTS.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=str(ARTEFACTS / f"{name}.png"))


def until(page: Any, expression: str, timeout_s: float = 15.0) -> None:
    """Wait for an expression; from outside, because the page's policy forbids evaluating text inside."""
    eventually(lambda: page.evaluate(expression), timeout_s, interval_s=0.1)


def query(page: Any) -> Any:
    return parse(page.evaluate("location.search"))
