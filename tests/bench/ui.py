"""The page under load: 200 workloads, 2,000 flows/s. What an update costs the browser and the page server.

Prints one JSON line. The page server is a process of its own (its CPU time is read from /proc), the
browser is Debian's Chromium; main-thread time of an update is the sum of the tasks that a performance
trace records between two answers, by the clock (what a person waits, neighbours on the machine included) and
by the CPU.
Run: `python -m tests.bench.ui [SECONDS] [WORKLOADS] [FLOWS_PER_SECOND]`.
"""

import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

from tests.kit.ports import free_port
from tests.kit.wait import eventually
from tests.ui.conftest import ARGUMENTS, CHROMIUM
from tests.ui.flowserver import FlowServer, large

WORKLOADS, FLOWS_PER_S, SECONDS = 200, 2_000.0, 20.0
LIMIT_MAIN_THREAD_MS, LIMIT_CORES = 200.0, 0.5
SERVE = """
import sys
from palomar.clock import SystemClock
from ui.client import ServerTarget
from ui.listen import ListenAddress
from ui.main import UiConfig, serve
server = ServerTarget(sys.argv[1], sys.argv[1])
sys.exit(serve(UiConfig(server, ListenAddress("127.0.0.1", int(sys.argv[2])))))
"""


@dataclass(frozen=True, slots=True)
class Load:
    """CPU seconds and memory of a process at a moment."""

    cpu_s: float
    resident_mib: float

    @classmethod
    def of(cls, pid: int) -> "Load":
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
        return cls(
            (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK"),
            pages * os.sysconf("SC_PAGE_SIZE") / (1 << 20),
        )


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}healthz", timeout=2) as answer:
            return b"connected" in answer.read()
    except OSError:
        return False


def main_thread_ms(trace: Any) -> tuple[list[float], list[float]]:
    """Main-thread milliseconds between two updates, by the clock and by the CPU, from a trace."""
    events = trace["traceEvents"]
    threads = {
        (event["pid"], event["tid"])
        for event in events
        if event.get("name") == "thread_name" and event["args"].get("name") == "CrRendererMain"
    }
    marks = [
        (event["ts"], event["pid"], event["tid"])
        for event in events
        if event.get("name") == "TimeStamp" and "palomar" in json.dumps(event.get("args", {}))
    ]
    if len(marks) < 3:
        raise SystemExit("the trace has no updates: is the page drawn?")
    page_thread = marks[0][1:]
    if page_thread not in threads:
        raise SystemExit("the trace does not tell the page's main thread")
    # Chromium names the same stretch of work twice, one inside the other: count the outer one.
    tasks: list[tuple[float, float, float]] = []
    for begin, end, cpu in sorted(
        (event["ts"], event["ts"] + event["dur"], event.get("tdur", 0))
        for event in events
        if event.get("ph") == "X"
        and event.get("name") in ("RunTask", "ThreadControllerImpl::RunTask")
        and (event["pid"], event["tid"]) == page_thread
    ):
        if not tasks or begin >= tasks[-1][0] + tasks[-1][1]:
            tasks.append((begin, end - begin, cpu))
    # An update begins with the answer's arrival, a little before its mark: each span holds one.
    spans = list(pairwise(mark[0] for mark in marks))
    held = [[task for task in tasks if start <= task[0] < end] for start, end in spans]
    clock, cpu_time = ([sum(task[which] for task in span) / 1000 for span in held] for which in (1, 2))
    return clock, cpu_time


def measure(seconds: float, workloads: int, flows_per_s: float) -> dict[str, Any]:
    from playwright.sync_api import sync_playwright

    port = free_port()
    url = f"http://127.0.0.1:{port}/"
    with FlowServer(large(workloads), rate=flows_per_s, backlog=2000) as source, sync_playwright() as driver:
        process = subprocess.Popen([sys.executable, "-c", SERVE, source.address, str(port)])
        try:
            eventually(lambda: answers(url), timeout_s=30)
            browser = driver.chromium.launch(executable_path=str(CHROMIUM), args=list(ARGUMENTS))
            page = browser.new_page(viewport={"width": 1680, "height": 1050})
            page.goto(url)
            drawn = f"document.querySelectorAll('.card').length > {workloads * 0.9}"
            eventually(lambda: page.evaluate(drawn), timeout_s=60)
            page.evaluate(
                """() => {
                  window.longTasks = [];
                  const note = (list) => list.getEntries().forEach((entry) => longTasks.push(entry.duration));
                  new PerformanceObserver(note).observe({ type: "longtask" });
                  window.appliedMs = [];
                  setInterval(() => {
                    const applied = window.palomarApplied;
                    if (applied && applied.seq !== window.lastSeq) {
                      window.lastSeq = applied.seq;
                      appliedMs.push(applied.ms);
                      console.timeStamp("palomar");
                    }
                  }, 50);
                }"""
            )
            session = page.context.new_cdp_session(page)
            chunks: list[Any] = []
            session.on("Tracing.dataCollected", lambda part: chunks.extend(part["value"]))
            ended: list[bool] = []
            session.on("Tracing.tracingComplete", lambda _: ended.append(True))
            categories = "toplevel,devtools.timeline,disabled-by-default-devtools.timeline"
            session.send("Tracing.start", {"transferMode": "ReportEvents", "categories": categories})
            before, began, sent = Load.of(process.pid), time.monotonic(), source.sent
            page.wait_for_timeout(seconds * 1000)
            after, took = Load.of(process.pid), time.monotonic() - began
            rate = (source.sent - sent) / took
            session.send("Tracing.end")
            while not ended:
                page.wait_for_timeout(50)
            updates, cpu_updates = main_thread_ms({"traceEvents": chunks})
            long_tasks = page.evaluate("longTasks")
            applied = page.evaluate("appliedMs")
            browser.close()
            with urllib.request.urlopen(f"{url}metrics", timeout=5) as answer:
                metrics = answer.read().decode()
            made = {
                name: float(re.search(rf"palomar_ui_update_seconds_{name} (\S+)", metrics).group(1))  # type: ignore[union-attr]  # the metric is there
                for name in ("sum", "count")
            }
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(timeout=30)
    return {
        "workloads": workloads,
        "flows_per_s": round(rate),
        "updates": len(updates),
        "main_thread_ms_median": round(median(updates), 1),
        "main_thread_ms_max": round(max(updates), 1),
        "main_thread_cpu_ms_median": round(median(cpu_updates), 1),
        "own_script_ms_median": round(median(applied), 1),
        "long_tasks_max_ms": round(max(long_tasks, default=0.0), 1),
        "server_cores": round((after.cpu_s - before.cpu_s) / took, 3),
        "server_update_ms_mean": round(1000 * made["sum"] / made["count"], 1),
        "server_resident_mib": round(after.resident_mib),
        "server_growth_mib": round(after.resident_mib - before.resident_mib, 1),
    }


def run(repeats: int) -> list[dict[str, Any]]:
    """Return the rows of the benchmark page."""
    found = [measure(SECONDS / 2, WORKLOADS, FLOWS_PER_S) for _ in range(repeats)]
    sent_per_s = median(row["flows_per_s"] for row in found)
    load = f"{WORKLOADS} workloads, {sent_per_s:,.0f} flows/s"
    main_thread_ms = median(row["main_thread_ms_median"] for row in found)
    main_thread_cpu_ms = median(row["main_thread_cpu_ms_median"] for row in found)
    cores = median(row["server_cores"] for row in found)
    return [
        {
            "what": f"page, main thread per update, {load}",
            "ours": main_thread_ms,
            "unit": "ms",
            "limit": LIMIT_MAIN_THREAD_MS,
        },
        {"what": f"page, of it CPU time, {load}", "ours": main_thread_cpu_ms, "unit": "ms"},
        {"what": f"page server, {load}", "ours": cores, "unit": "cores", "limit": LIMIT_CORES},
    ]


def main(argv: list[str]) -> int:
    """Print the result; 1 where a limit is broken."""
    given = [float(word) for word in argv] + [SECONDS, WORKLOADS, FLOWS_PER_S][len(argv) :]
    result = measure(given[0], int(given[1]), given[2])
    print(json.dumps({"bench": "ui", **result}))
    good = result["main_thread_ms_median"] <= LIMIT_MAIN_THREAD_MS and result["server_cores"] <= LIMIT_CORES
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
