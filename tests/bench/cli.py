"""How fast commands start and lines are made, as ratios against Python itself in the same run.

Start-up: `palomar --help`, `palomar observe --help` and `palomar observe` up to its first dial,
against `python -c pass`; the mark is 0.25 s. Lines: CPU per flow formatted, against protobuf's own
JSON encoder. `python -m tests.bench.cli` prints the rows.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from statistics import median

from google.protobuf import json_format

from cli.format.flows import Style, compact
from cli.format.protojson import JsonFormat
from tests.cli import flowcast

START_LIMIT_MS = 250
FLOWS = 5_000

COMMANDS = {
    "palomar --help": ["--help"],
    "palomar observe --help": ["observe", "--help"],
    "palomar observe, to its first dial": ["observe"],
}


def _started_ms(argv: Sequence[str]) -> float:
    with tempfile.TemporaryDirectory() as empty:
        environment = os.environ | {"PALOMAR_RUN_DIR": empty}
        begin = time.perf_counter()
        subprocess.run(
            argv, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False
        )
        return (time.perf_counter() - begin) * 1000


def _start_up(repeats: int) -> list[dict[str, object]]:
    """Time each command, alternating with the baseline so that noise hits both."""
    taken: dict[str, list[float]] = {name: [] for name in COMMANDS}
    bare: list[float] = []
    for _ in range(5 * repeats):
        bare.append(_started_ms([sys.executable, "-c", "pass"]))
        for name, words in COMMANDS.items():
            taken[name].append(_started_ms([sys.executable, "-m", "cli.main", *words]))
    baseline = median(bare)
    return [
        {
            "what": f"start of {name}",
            "ours": median(times),
            "baseline": baseline,
            "ratio": median(times) / baseline,
            "unit": "ms",
            "limit": START_LIMIT_MS,
        }
        for name, times in taken.items()
    ]


def _per_flow_us(work: Callable[[], object], flows: int) -> float:
    begin = time.process_time()
    for _ in range(flows):
        work()
    return (time.process_time() - begin) / flows * 1e6


def _lines(repeats: int) -> list[dict[str, object]]:
    """Measure CPU per flow as a compact line and as JSON."""
    response = dict(flowcast.samples())["drop"]
    style, encoder = Style(), JsonFormat()

    def reference() -> str:
        return json.dumps(json_format.MessageToDict(response, preserving_proto_field_name=True))

    works = {
        "a flow as a compact line": lambda: compact(response, style),
        "a flow as a line of JSON": lambda: encoder.line(response),
    }
    taken: dict[str, list[float]] = {name: [] for name in works}
    baseline: list[float] = []
    for _ in range(repeats):
        baseline.append(_per_flow_us(reference, FLOWS // 10))
        for name, work in works.items():
            taken[name].append(_per_flow_us(work, FLOWS))
    return [
        {
            "what": name,
            "ours": median(times),
            "baseline": median(baseline),
            "ratio": median(times) / median(baseline),
            "unit": "µs CPU",
        }
        for name, times in taken.items()
    ]


def run(repeats: int) -> list[dict[str, object]]:
    """Return the rows of the benchmark page."""
    return [*_start_up(repeats), *_lines(repeats)]


if __name__ == "__main__":
    for row in run(3):
        print(row)
