"""Memory of relay, page server and page over ten minutes of traffic and churn: flat, once caches are full.

Real processes: 20 flow servers with 200 workloads, 2,000 flows/s and 100 new pods a second
(`tests.bench.soaknodes`), `palomar relay` and `palomar ui` over mutual TLS, a page open in Chromium, the
relay's other clients (`tests.bench.soakclients`). It churns: each second a client comes and leaves, each
minute a node is killed and returns ten seconds later, and a second page is opened for half a minute,
short-lived workloads push others out of the page server's edge table, and one client never reads.

Warm-up is as long as the slowest cache takes to fill. Bounds, and when this load reaches them:
relay, per client 16 MiB to be merged (the client that never reads: in 20 s) and 5 s of hashes; page server,
8,000 flows and 4,000 refused ones (4 s; 40 s), 20,000 uuids (10 s), 20,000 pod names (200 s, then emptied and
filled again), 4,096 edges with their latest flows (13 min) and their counts in 2 s columns of a ring that is
15 minutes long; page, 15 minutes of timeline. So 16 minutes; the table says "no" of a run that has not filled
the edges by then, and of one whose page server did not get the load.

Growth is the slope of Theil and Sen (median over all pairs) through the lowest sample of each half minute:
what is in flight to clients that are behind, a killed node's answers and a second page come and go, what is
kept stays. In ten minutes pass 1.2 million flows, 60,000 pods, 2,700 edges, 600 clients, 600 updates of the
page and ten kills. So 3 MiB of the relay would be 2.6 bytes a flow or 5 kB a client, 3 MiB of the page server
52 bytes a pod, 1 MiB of the page's heap 1.8 kB an update: less than one object of Python's kept of each flow
or pod, or one stream of each client. Less than that is not told from the allocator's noise.

`python -m tests.bench.soak [WARM_UP_S SECONDS]` prints; short runs show that it works, not that it is flat.
"""

import json
import re
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from statistics import median
from typing import Any, Self

from palomar.certs import Role
from tests.bench.child import Child
from tests.bench.soakclients import server_flags
from tests.bench.soaknodes import NODES, WORKLOADS
from tests.bench.ui import answers
from tests.kit.ports import free_port
from tests.kit.relaycluster import Certificates
from tests.kit.wait import eventually
from tests.ui.conftest import ARGUMENTS, CHROMIUM
from ui.edgetable import MAX_EDGES

REPO = Path(__file__).resolve().parents[2]
WARM_UP_S, SECONDS = 960.0, 600.0
SAMPLE_EVERY_S, HEAP_EVERY_S, PAGE_EVERY_S, TELL_EVERY_S = 5.0, 15.0, 30.0, 60.0
MARGIN_S = 60.0
"""What is compared: the last minute of the warm-up and the last minute of all."""
FLOOR_S = 30.0
LEAST_SHARE = 0.9
"""Of the offered flows that must have reached the page server: below that the load was another one."""
LIMIT_RELAY_MIB, LIMIT_UI_MIB, LIMIT_HEAP_MIB = 3.0, 3.0, 1.0
LIMIT_COUNT = 2
"""File descriptors or threads more than before; clients that are there at the moment of a sample vary."""
PATIENCE_S = 120.0
"""How long a process may take to answer: the machine is busy, and memory is what is measured."""
MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class Usage:
    """What a process holds at a moment."""

    pss_mib: float
    """Its own memory and its share of what others map too."""
    fds: int
    threads: int

    @classmethod
    def of(cls, pid: int) -> Self:
        """Read it from /proc."""
        proc = Path(f"/proc/{pid}")
        rollup = (proc / "smaps_rollup").read_text()
        return cls(
            int(_number(r"^Pss:\s+(\d+) kB", rollup)) * 1024 / MIB,
            len(list((proc / "fd").iterdir())),
            int(_number(r"^Threads:\s+(\d+)", (proc / "status").read_text())),
        )


@dataclass(frozen=True, slots=True)
class Series:
    """Values over time."""

    times_s: Sequence[float]
    """Since the load began."""
    values: Sequence[float]

    def within(self, begin_s: float, end_s: float) -> "Series":
        """Return what lies between two moments."""
        kept = [
            (at, value) for at, value in zip(self.times_s, self.values, strict=True) if begin_s <= at < end_s
        ]
        return Series([at for at, _ in kept], [value for _, value in kept])

    def middle(self) -> float:
        """Return the median."""
        return median(self.values)

    def floor(self, every_s: float) -> "Series":
        """Return the lowest of each stretch of `every_s` seconds: without what is only in flight."""
        lowest: dict[int, tuple[float, float]] = {}
        for at_s, value in zip(self.times_s, self.values, strict=True):
            known = lowest.setdefault(int(at_s / every_s), (at_s, value))
            if value < known[1]:
                lowest[int(at_s / every_s)] = (at_s, value)
        kept = [lowest[number] for number in sorted(lowest)]
        return Series([at for at, _ in kept], [value for _, value in kept])

    def growth(self, per_s: float) -> float:
        """Return how much it grows in `per_s` seconds, by the slope of Theil and Sen."""
        points = zip(self.times_s, self.values, strict=True)
        return per_s * median((v2 - v1) / (t2 - t1) for (t1, v1), (t2, v2) in combinations(points, 2))


class Recorder:
    """The samples of a run by name."""

    def __init__(self) -> None:
        self._taken: dict[str, list[tuple[float, float]]] = {}

    def add(self, at_s: float, **values: float) -> None:
        for name, value in values.items():
            self._taken.setdefault(name, []).append((at_s, value))

    def series(self, name: str) -> Series:
        taken = self._taken[name]
        return Series([at for at, _ in taken], [value for _, value in taken])

    def all(self) -> dict[str, list[tuple[float, float]]]:
        """Return every sample as (seconds, value), for whoever wants to look."""
        return {
            name: [(round(at), round(value, 1)) for at, value in taken] for name, taken in self._taken.items()
        }

    def latest(self) -> dict[str, float]:
        return {name: round(taken[-1][1], 1) for name, taken in self._taken.items()}


@contextmanager
def command(*words: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run `palomar WORDS`."""
    process = subprocess.Popen([sys.executable, "-m", "cli.main", *words], cwd=REPO)
    try:
        yield process
    finally:
        process.terminate()
        process.wait(30)


def _number(pattern: str, text: str) -> float:
    found = re.search(pattern, text, re.MULTILINE)
    return float(found.group(1)) if found else 0.0


def scrape(port: int) -> str:
    """Return a process's metrics."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=PATIENCE_S) as answer:
        text: str = answer.read().decode()
    return text


class Browser:
    """The page that stays open, and those that are opened and closed."""

    def __init__(self, chromium: Any, url: str) -> None:
        self._url = url
        self._browser = chromium.launch(executable_path=str(CHROMIUM), args=list(ARGUMENTS))
        self._page = self._browser.new_page(viewport={"width": 1680, "height": 1050})
        self._visitor: Any = None
        self._page.goto(url, timeout=PATIENCE_S * 1000)
        self._session = self._page.context.new_cdp_session(self._page)
        eventually(lambda: self._page.evaluate("document.querySelectorAll('.card').length") > 100, PATIENCE_S)

    def wait(self, seconds: float) -> None:
        """Pass time; the browser's own messages are taken meanwhile."""
        self._page.wait_for_timeout(1000 * seconds)

    def heap(self) -> tuple[float, int]:
        """Return the page's live JavaScript heap (MiB) and its number of DOM nodes."""
        self._session.send("HeapProfiler.collectGarbage")
        used = self._session.send("Runtime.getHeapUsage")["usedSize"] / MIB
        return used, int(self._session.send("Memory.getDOMCounters")["nodes"])

    def updates(self) -> int:
        """Return the number of the page's last update."""
        return int(self._page.evaluate("(window.palomarApplied || {}).seq || 0"))

    def visit(self) -> None:
        """Open a second page, as another person would; the next time close it."""
        if self._visitor is not None:
            self._visitor.close()
            self._visitor = None
        else:
            self._visitor = self._browser.new_context()
            self._visitor.new_page().goto(self._url, wait_until="commit", timeout=PATIENCE_S * 1000)

    def close(self) -> None:
        self._browser.close()


@dataclass
class Soak:
    """A running one."""

    nodes: Child
    clients: Child
    browser: Browser
    pids: dict[str, int]
    """`relay`, `ui`."""
    ui_port: int
    relay_metrics: int

    def counts(self) -> dict[str, float]:
        """Return what passed so far, from everyone's own books."""
        page, relay = scrape(self.ui_port), scrape(self.relay_metrics)
        received = re.findall(r"^palomar_ui_flows_received_total\{.*\} (\S+)", page, re.MULTILINE)
        told = self.nodes.ask()
        if told["ended"]:
            raise SystemExit(f"flow servers of nodes {told['ended']} ended by themselves")
        return {
            "written": told["written"],
            "kills": told["kills"],
            "pods": told["pods"],
            "ui_flows": sum(map(float, received)),
            "edges": _number(r"^palomar_ui_edges (\S+)", page),
            "unplaced": _number(r"^palomar_ui_flows_unplaced_total (\S+)", page),
            "pages": _number(r"^palomar_ui_pages (\S+)", page),
            "streams": _number(r"^palomar_relay_streams (\S+)", relay),
            "relay_sent": _number(r"^palomar_relay_sent_flows_total (\S+)", relay),
            "updates": self.browser.updates(),
            **self.clients.ask(),
        }

    def run(self, seconds: float, recorder: Recorder, begin_s: float) -> None:
        """Sample and churn pages for `seconds` from `begin_s` on (monotonic)."""
        heap_s = page_s = tell_s = began_s = time.monotonic()
        turn = 0
        while (now_s := time.monotonic()) < began_s + seconds:
            at_s = now_s - begin_s
            for name, pid in self.pids.items():
                usage = Usage.of(pid)
                recorder.add(
                    at_s, **{name: usage.pss_mib, f"{name}_fds": usage.fds, f"{name}_threads": usage.threads}
                )
            if now_s >= heap_s:
                heap_s += HEAP_EVERY_S
                heap_mib, dom_nodes = self.browser.heap()
                recorder.add(at_s, heap=heap_mib, dom_nodes=dom_nodes)
            if now_s >= page_s:
                page_s += PAGE_EVERY_S
                self.browser.visit()
            if now_s >= tell_s:
                tell_s += TELL_EVERY_S
                print(json.dumps({"at_s": round(at_s), **recorder.latest(), **self.counts()}), flush=True)
            turn += 1
            self.browser.wait(max(0.0, began_s + turn * SAMPLE_EVERY_S - time.monotonic()))


@contextmanager
def soaking(folder: Path) -> Iterator[Soak]:
    """Start everything; stop it afterwards."""
    from playwright.sync_api import sync_playwright

    certificates = Certificates(folder / "certs")
    tls = certificates.issue(Role.RELAY, "relay")
    client = certificates.issue(Role.CLIENT, "someone")
    relay_port, relay_metrics, ui_port = free_port(), free_port(), free_port()
    url = f"http://127.0.0.1:{ui_port}/"
    with ExitStack() as stack:
        nodes = Child("tests.bench.soaknodes", str(folder))
        stack.callback(nodes.close)
        announcing = nodes.line()[0]
        relay = stack.enter_context(
            command(
                *("relay", "--listen", f"127.0.0.1:{relay_port}", "--peer-service", f"unix://{announcing}"),
                *("--metrics-listen", f"127.0.0.1:{relay_metrics}", "--tls-cert-file", str(tls.cert)),
                *("--tls-key-file", str(tls.key), "--tls-ca-file", str(tls.ca), "--log-level", "ERROR"),
            )
        )
        connected = rf'^palomar_relay_peers\{{state="connected"\}} {NODES}\.0$'
        eventually(lambda: re.search(connected, _scraped(relay_metrics), re.MULTILINE), 120)
        listen = f"127.0.0.1:{ui_port}"
        page = stack.enter_context(command("ui", "--listen", listen, *server_flags(relay_port, client)))
        eventually(lambda: answers(url), 60)
        clients = Child("tests.bench.soakclients", str(relay_port), str(folder))
        stack.callback(clients.close)
        driver = stack.enter_context(sync_playwright())
        browser = Browser(driver.chromium, url)
        stack.callback(browser.close)
        yield Soak(nodes, clients, browser, {"relay": relay.pid, "ui": page.pid}, ui_port, relay_metrics)


def _scraped(port: int) -> str:
    """Return the metrics; nothing while the process does not serve them yet."""
    try:
        return scrape(port)
    except OSError:
        return ""


def measure(warm_up_s: float, seconds: float) -> list[dict[str, Any]]:
    """Soak and return the rows."""
    recorder = Recorder()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("told to end"))  # so that what was started ends too
    with tempfile.TemporaryDirectory() as name, soaking(Path(name)) as soak:
        begin_s = time.monotonic()
        soak.run(warm_up_s, recorder, begin_s)
        before, filled_s = soak.counts(), time.monotonic() - begin_s
        soak.run(seconds, recorder, begin_s)
        after, end_s = soak.counts(), time.monotonic() - begin_s
    print(json.dumps({"samples": recorder.all()}))
    passed = {what: after[what] - before[what] for what in after}
    passed["edges"] = before["edges"]
    return [
        *_load_rows(passed, end_s - filled_s, warm_up_s),
        *_memory_rows(recorder, filled_s, end_s, seconds),
    ]


def _load_rows(passed: dict[str, float], took_s: float, warm_up_s: float) -> list[dict[str, Any]]:
    span = f"{took_s / 60:.3g} min after {warm_up_s / 60:.3g} min of warm-up"
    events = (
        f"{NODES} nodes, {WORKLOADS} workloads, {passed['pods']:,.0f} pods, {passed['kills']:.0f} kills, "
        f"{passed['came']:.0f} clients that came and left ({passed['failed']:.0f} failed)"
    )
    return [
        {"what": f"flows written, {span}: {events}", "ours": passed["written"] / took_s, "unit": "flows/s"},
        {
            "what": "flows taken in by the page server, of those written",
            "ours": passed["ui_flows"] / took_s,
            "baseline": passed["written"] / took_s,
            "unit": "flows/s",
            "ratio": passed["ui_flows"] / passed["written"],
            "target": LEAST_SHARE,
        },
        {
            "what": "flows shown by `palomar observe --follow`, of those written",
            "ours": passed["observed"] / took_s,
            "baseline": passed["written"] / took_s,
            "unit": "flows/s",
            "ratio": passed["observed"] / passed["written"],
        },
        {"what": "updates of the page", "ours": passed["updates"] / took_s, "unit": "1/s"},
        {
            "what": f"edges in the page server's table at the warm-up's end, of {MAX_EDGES:,}",
            "ours": passed["edges"],
            "baseline": MAX_EDGES,
            "unit": "edges",
            "ratio": passed["edges"] / MAX_EDGES,
            "target": 1,
        },
    ]


def _memory_rows(recorder: Recorder, filled_s: float, end_s: float, seconds: float) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    margin_s = min(MARGIN_S, seconds / 2, filled_s / 2)
    told = (
        ("relay", "relay, Pss", LIMIT_RELAY_MIB),
        ("ui", "page server, Pss", LIMIT_UI_MIB),
        ("heap", "page, JavaScript heap after a collection", LIMIT_HEAP_MIB),
    )
    for name, what, limit in told:
        series = recorder.series(name)
        before = series.within(filled_s - margin_s, filled_s).middle()
        last = series.within(end_s - margin_s, end_s).middle()
        rows.append(
            {
                "what": f"{what}, last minute (baseline: last of the warm-up)",
                **{"ours": last, "baseline": before, "unit": "MiB", "ratio": last / before},
            }
        )
        highest = max(series.values)
        rows.append({"what": f"{what}, highest, warm-up included", "ours": highest, "unit": "MiB"})
        grown = series.within(filled_s, end_s).floor(FLOOR_S).growth(600.0)
        rows.append(
            {"what": f"{what}, growth of its floor", "ours": grown, "unit": "MiB/10 min", "limit": limit}
        )
    counted = [
        (f"{name}_{kind}", f"{what}, {kind}")
        for name, what in (("relay", "relay"), ("ui", "page server"))
        for kind in ("fds", "threads")
    ]
    for name, what in [*counted, ("dom_nodes", "page, DOM nodes")]:
        series = recorder.series(name)
        before = series.within(filled_s - margin_s, filled_s).middle()
        last = series.within(end_s - margin_s, end_s).middle()
        row = {"what": what, "ours": last, "baseline": before, "unit": "", "ratio": last / before}
        rows.append(row if name == "dom_nodes" else row | {"limit": before + LIMIT_COUNT})
    return rows


def run(_repeats: int) -> list[dict[str, Any]]:
    """Return the rows of the benchmark page: one run, whole."""
    return measure(WARM_UP_S, SECONDS)


def main(argv: Sequence[str]) -> None:
    """Print the rows of a run of the given length."""
    warm_up_s, seconds = [float(word) for word in argv] or (WARM_UP_S, SECONDS)
    for row in measure(warm_up_s, seconds):
        print(json.dumps(row))


if __name__ == "__main__":
    main(sys.argv[1:])
