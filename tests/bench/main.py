"""`make bench`: the benchmarks, three repeats, ratios within one run, written to docs/benchmarks.md.

Without BENCH every part but those that take too long for it (`ON_REQUEST`): these run when named, once
where their length is the point, and their rows say how long that was; their sections stay on the page.
A row is `what, ours, unit` with `baseline, ratio, target` (ratio at least `target`) or `limit` (ours at
most that; of the ratio where `limit_of` is "ratio"). Ends 0 also when a figure misses its mark: these
machines are noisy; the table says so.
"""

import importlib
import os
import platform
import sys
from pathlib import Path
from typing import Any

REPEATS = 3
PAGE = Path(__file__).resolve().parents[2] / "docs" / "benchmarks.md"
MODULES = [
    "ingest",
    "flows",
    "telemetry",
    "relay",
    "latency",
    "ui",
    "cli",
    "nodeagent",
    "network",
    "busynode",
]
ON_REQUEST = ["soak"]
"""Parts that run only when named: `make bench BENCH=soak` takes 26 minutes."""
HEAD = """# Benchmarks

Made by `make bench` (as root, {cpus} CPUs, Linux {kernel}): medians of {repeats} repeats. Machines differ and
are noisy; what counts is the ratio against a baseline measured in the same run, alternating with ours.
`make bench BENCH=network` runs one part; {on_request} runs only so, once, for as long as its rows say.

"""


def verdict(row: dict[str, Any]) -> str:
    """Say whether a row meets its mark."""
    if "target" in row:
        return "yes" if row["ratio"] >= row["target"] else "**no**"
    if "limit" in row:
        value = row["ratio"] if row.get("limit_of") == "ratio" else row["ours"]
        return "yes" if value <= row["limit"] else "**no**"
    return ""


def _number(value: object) -> str:
    if not isinstance(value, (int, float)):
        return ""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def table(name: str, rows: list[dict[str, Any]]) -> str:
    """Return the Markdown table of one module."""
    lines = [
        f"## {name}",
        "",
        "| what | ours | baseline | unit | ratio | mark | met |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        of_ratio = row.get("limit_of") == "ratio"
        mark = f"≥ {_number(row['target'])}" if "target" in row else ""
        mark = f"≤ {_number(row['limit'])}" if "limit" in row else mark
        mark += " (ratio)" if of_ratio else ""
        lines.append(
            f"| {row['what']} | {_number(row['ours'])} | {_number(row.get('baseline'))} | {row['unit']} "
            f"| {_number(row.get('ratio'))} | {mark} | {verdict(row)} |"
        )
    return "\n".join([*lines, ""])


def sections(page: str) -> dict[str, str]:
    """Split the page into its `## name` sections."""
    found = {}
    for part in page.split("\n## ")[1:]:
        name, _, body = part.partition("\n")
        found[name.strip()] = f"## {name}\n{body.rstrip()}\n"
    return found


def main() -> int:
    """Run the modules named by BENCH (all but ON_REQUEST by default) and write the page."""
    chosen = os.environ.get("BENCH", "").replace(",", " ").split() or MODULES
    known = sections(PAGE.read_text()) if PAGE.exists() else {}
    for name in chosen:
        print(f"bench {name} ...", flush=True)
        rows = importlib.import_module(f"tests.bench.{name}").run(REPEATS)
        known[name] = table(name, rows)
        print(known[name], flush=True)
    head = HEAD.format(
        cpus=os.cpu_count(),
        kernel=platform.release().split("-")[0],
        repeats=REPEATS,
        on_request=", ".join(ON_REQUEST),
    )
    listed = [*MODULES, *ON_REQUEST]
    ordered = [known[name] for name in [*listed, *sorted(set(known) - set(listed))] if name in known]
    PAGE.write_text(head + "\n".join(ordered))
    print(f"written to {PAGE.relative_to(Path.cwd()) if PAGE.is_relative_to(Path.cwd()) else PAGE}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
