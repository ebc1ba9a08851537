"""Flows from a file of JSON lines in place of a server: `--input-file`, `-` is standard input.

Each line is a `GetFlowsResponse` (or `ExportEvent`) as `-o json` writes it. Filters and time range
are applied here. A line that cannot be read is reported and skipped; fields of a newer version are
reported once and ignored.
"""

import json
import re
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import IO, Any

from google.protobuf import json_format

from cli.errors import UsageError
from cli.flowfilter import FilterLists
from cli.flowmatch import passes
from cli.flowstream import Batch
from cli.selectors import EVERYTHING, Range
from cli.timespec import NS_PER_S
from palomar_pb.observer import observer_pb2

Report = Callable[[str], None]


def read_batches(
    file: str, wanted: Range, lists: FilterLists, report: Report | None = None
) -> Iterator[Batch]:
    """Yield the wanted responses of `file`, one per batch; raise UsageError where it cannot be read."""
    say = report or (lambda text: print(f"palomar: {text}", file=sys.stderr))
    if file == "-":
        yield from _batches(sys.stdin, wanted, lists, say)
        return
    try:
        with Path(file).open(encoding="utf-8", errors="replace") as lines:
            yield from _batches(lines, wanted, lists, say)
    except OSError as error:
        raise UsageError(f"--input-file {file}: {error.strerror or error}") from error


def _batches(lines: IO[str], wanted: Range, lists: FilterLists, report: Report) -> Iterator[Batch]:
    responses = (item for item in parse_lines(lines, report) if _wanted(item, wanted, lists))
    if wanted.number != EVERYTHING and not wanted.first:
        yield Batch(tuple(deque(responses, maxlen=wanted.number)))
        return
    for index, response in enumerate(responses):
        if index >= wanted.number:
            return
        yield Batch((response,))


def _wanted(response: observer_pb2.GetFlowsResponse, wanted: Range, lists: FilterLists) -> bool:
    kind = response.WhichOneof("response_types")
    stamp = response.flow.time if kind == "flow" else response.time
    moment = stamp.seconds * NS_PER_S + stamp.nanos
    if wanted.since_ns is not None and moment < wanted.since_ns:
        return False
    if wanted.until_ns is not None and moment > wanted.until_ns:
        return False
    return kind != "flow" or passes(response.flow, lists)


def parse_lines(lines: Iterable[str], report: Report) -> Iterator[observer_pb2.GetFlowsResponse]:
    """Yield the flows and losses of JSON `lines`; everything else is skipped or reported."""
    warned = False
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            tree = json.loads(line)
            response, unknown = _parse(tree)
        except (ValueError, json_format.ParseError) as error:
            report(f"line {number} is no flow and is skipped: {str(error).splitlines()[0]}")
            continue
        if unknown and not warned and response.WhichOneof("response_types"):
            warned = True
            report(f"line {number}: this version does not know the field {unknown} (said once)")
        if response.WhichOneof("response_types") in ("flow", "lost_events"):
            yield response


def _parse(tree: Any) -> tuple[observer_pb2.GetFlowsResponse, str]:
    """Return the response and the first field that is not known (empty: all are).

    An extension of somebody else's is such a field; it is taken out of `tree`.
    """
    if not isinstance(tree, dict):
        raise json_format.ParseError("not a JSON object")
    try:
        return json_format.ParseDict(tree, observer_pb2.GetFlowsResponse()), ""
    except json_format.ParseError as error:
        field = re.search(r'no field named "([^"]+)"', str(error))
        if field is None:
            flow = tree.get("flow")
            if not isinstance(flow, dict) or flow.pop("extensions", None) is None:
                raise
            response, unknown = _parse(tree)
            return response, unknown or "extensions"
    response = json_format.ParseDict(tree, observer_pb2.GetFlowsResponse(), ignore_unknown_fields=True)
    return response, field[1]
