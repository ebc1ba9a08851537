"""What a page shows, as a value, and its two ways to and from the URL's query string.

Pure. Anything may stand in a URL: what cannot be meant is left at its default, long texts are cut. A
default is never written, so that the plain address stays plain.
"""

from dataclasses import dataclass
from urllib.parse import parse_qs, urlencode

VERDICTS = ("forwarded", "dropped", "audit")
WINDOWS_S = (60, 300, 900)
THEMES = ("light", "dark")
DEFAULT_WINDOW_S = 300
DEFAULT_LIMIT, MAX_LIMIT = 200, 1_000
MAX_TEXT_CHARS = 200
MAX_ID_CHARS = 400
MAX_NAMESPACES = 50


@dataclass(frozen=True, slots=True)
class PageState:
    """Everything of a page that a link carries."""

    namespaces: tuple[str, ...] = ()
    """Show edges that touch one of these; empty is all."""
    verdict: str = ""
    """One of VERDICTS, or all."""
    text: str = ""
    window_s: int = DEFAULT_WINDOW_S
    workload: str = ""
    """Selected card (Workload.id)."""
    edge: str = ""
    """Selected edge (EdgeKey.id)."""
    flow: str = ""
    """Selected flow (uuid)."""
    theme: str = ""
    """Empty follows the system."""
    paused: bool = False
    limit: int = DEFAULT_LIMIT
    """Workloads on the map at most."""

    @property
    def filtered(self) -> bool:
        """Tell whether anything is left out on purpose."""
        return bool(self.namespaces or self.verdict or self.text)


def parse(search: str) -> PageState:
    """Read `?ns=shop&verdict=dropped`; never raises."""
    try:
        query = parse_qs(search.removeprefix("?"), max_num_fields=100)
    except ValueError:
        return PageState()

    def text(name: str, limit: int = MAX_ID_CHARS) -> str:
        return query.get(name, [""])[0][:limit]

    def number(name: str) -> int:
        written = text(name, 9)
        return int(written) if written.isascii() and written.isdigit() else 0

    window, limit = number("window"), number("limit")
    return PageState(
        namespaces=tuple(dict.fromkeys(name[:MAX_ID_CHARS] for name in query.get("ns", [])))[:MAX_NAMESPACES],
        verdict=text("verdict") if text("verdict") in VERDICTS else "",
        text=text("q", MAX_TEXT_CHARS),
        window_s=window if window in WINDOWS_S else DEFAULT_WINDOW_S,
        workload=text("workload"),
        edge=text("edge"),
        flow=text("flow"),
        theme=text("theme") if text("theme") in THEMES else "",
        paused=text("paused") == "1",
        limit=min(max(limit, 1), MAX_LIMIT) if limit else DEFAULT_LIMIT,
    )


def to_search(state: PageState) -> str:
    """Write the query string, with `?` in front unless it is empty."""
    pairs: list[tuple[str, str]] = [("ns", name) for name in state.namespaces]
    pairs += [
        ("verdict", state.verdict),
        ("q", state.text),
        ("window", str(state.window_s) if state.window_s != DEFAULT_WINDOW_S else ""),
        ("workload", state.workload),
        ("edge", state.edge),
        ("flow", state.flow),
        ("theme", state.theme),
        ("paused", "1" if state.paused else ""),
        ("limit", str(state.limit) if state.limit != DEFAULT_LIMIT else ""),
    ]
    written = urlencode([(name, value) for name, value in pairs if value])
    return f"?{written}" if written else ""
