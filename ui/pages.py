"""The open pages: one `PageView` each, the longest idle forgotten first."""

import threading
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager

from ui.view import PageView

MAX_PAGES = 64
IDLE_NS = 60_000_000_000
"""A page that has not asked for a minute counts as closed."""


class Page:
    """One page's view, what its panel last showed, and its lock: a browser may ask twice at once."""

    def __init__(self) -> None:
        """Nothing has been sent."""
        self.lock = threading.Lock()
        self.view = PageView()
        self.sent: dict[str, str] = {}
        """Last value of each part that is sent only when it changes, as JSON."""
        self.asked_ns = 0

    def changed(self, name: str, text: str) -> bool:
        """Tell whether the part differs from what was sent, and take note."""
        if self.sent.get(name) == text:
            return False
        self.sent[name] = text
        return True


class Pages:
    """Pages by the id each got when it was loaded."""

    def __init__(self) -> None:
        """None open."""
        self._lock = threading.Lock()
        self._pages: OrderedDict[str, Page] = OrderedDict()

    @contextmanager
    def page(self, page_id: str, now_ns: int) -> Iterator[Page]:
        """Lend out a page, locked; an unknown id opens a new one."""
        with self._lock:
            page = self._pages.pop(page_id, None) or Page()
            self._pages[page_id] = page
            page.asked_ns = now_ns
            while (
                len(self._pages) > MAX_PAGES or next(iter(self._pages.values())).asked_ns < now_ns - IDLE_NS
            ):
                self._pages.popitem(last=False)
            count = len(self._pages)
        self.open = count
        with page.lock:
            yield page

    open = 0
    """Pages that asked within the last minute."""
