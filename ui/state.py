"""What a page shows, as a value, and its two ways to and from the URL's query string.

Pure. Anything may stand in a URL: what cannot be meant is left at its default and told by `faults`, long
texts are cut. A default is never written, so that the plain address stays plain.
"""

from collections.abc import Mapping, Sequence
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
MAX_FIELDS = 100
TOLD_FAULTS = 3
NAMES = ("ns", "verdict", "q", "window", "workload", "edge", "flow", "theme", "paused", "limit")


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
    query = _query(search)
    if query is None:
        return PageState()

    def text(name: str, limit: int = MAX_ID_CHARS) -> str:
        return query.get(name, [""])[0][:limit]

    def number(name: str) -> int:
        return _number(query.get(name, [""])[0])

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


def faults(search: str) -> list[str]:
    """Say what of a query string could not be meant, and what is shown instead; at most TOLD_FAULTS."""
    query = _query(search)
    if query is None:
        return [f"the address has more than {MAX_FIELDS} parts: everything is shown"]
    limit, longest = query.get("limit", [""])[0], len(query.get("q", [""])[0])
    number = _number(limit)
    told = [_choice(query, name, accepted, shown) for name, accepted, shown in _CHOICES]
    if limit and not 1 <= number <= MAX_LIMIT:
        instead = MAX_LIMIT if number > MAX_LIMIT else DEFAULT_LIMIT
        told.append(f"limit={_quoted(limit)} is no number from 1 to {MAX_LIMIT:,}: {instead:,} is used")
    if longest > MAX_TEXT_CHARS:
        told.append(f"q= is longer than {MAX_TEXT_CHARS} characters: the rest is left out")
    if len(query.get("ns", [])) > MAX_NAMESPACES:
        told.append(f"ns= is given more than {MAX_NAMESPACES} times: the rest is left out")
    told += [f"{_quoted(name)} is nothing this page knows" for name in query if name not in NAMES]
    told = [text for text in told if text]
    more = len(told) - TOLD_FAULTS
    return [*told[:TOLD_FAULTS], f"and {more} more"] if more > 0 else told


_CHOICES: tuple[tuple[str, Sequence[str], str], ...] = (
    ("verdict", VERDICTS, "all are shown"),
    ("window", tuple(map(str, WINDOWS_S)), f"{DEFAULT_WINDOW_S} is used"),
    ("theme", THEMES, "the system's choice is used"),
    ("paused", ("1", "0"), "the page goes on"),
)


def _choice(query: Mapping[str, Sequence[str]], name: str, accepted: Sequence[str], shown: str) -> str:
    given = query.get(name, [""])[0]
    if not given or given in accepted:
        return ""
    return f"{name}={_quoted(given)} is none of {', '.join(accepted)}: {shown}"


def _number(written: str) -> int:
    return int(written[:9]) if written.isascii() and written.isdigit() else 0


def _quoted(text: str) -> str:
    printable = "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in text[:24])
    return printable if len(text) <= 24 else f"{printable}…"


def _query(search: str) -> dict[str, list[str]] | None:
    try:
        return parse_qs(search.removeprefix("?"), max_num_fields=MAX_FIELDS)
    except ValueError:
        return None


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
