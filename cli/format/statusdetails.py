"""What `palomar status --verbose` shows besides the report: a table each of controllers, processes, maps, ...

Pure. Input: the decoded answer of `GET /v1/healthz`; output: titles and rows of text (`cli.format.columns`
aligns them). The report itself is in `cli.format.status`.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from cli.format.agent import Json, at

Rows = list[Sequence[str]]

PROCESSES = {"Name": "name", "State": "state", "PID": "pid", "Restarts": "restarts"}
CERTIFICATES = {"File": "file", "Subject": "subject", "Not after": "not_after", "Problem": "problem"}
TABLES = {"Name": "name", "Rows": "rows", "Pending": "pending", "Errors": "errors"}
MAPS = {"Name": "name", "Size": "size"}
NODES = {
    "Name": "name",
    "Address": "primary-address ipv4 ip",
    "Pod CIDR": "primary-address ipv4 alloc-range",
}
"""Heading of each column, and the keys that lead to its value."""


def details(status: Json) -> Iterator[tuple[str, Rows]]:
    """Yield the title and the rows of every table; the first row is the heading."""
    yield "Controllers", _controllers(status.get("controllers") or [])
    yield "Processes", _rows(PROCESSES, processes(status))
    yield "Certificates", _rows(CERTIFICATES, at(status, "palomar", "certificates"))
    yield "Tables", _rows(TABLES, at(status, "palomar", "tables"))
    yield "BPF Maps", _rows(MAPS, at(status, "bpf-maps", "maps"))
    allocations = at(status, "ipam", "allocations") or {}
    yield "Allocated addresses", [("Address", "Owner"), *((str(a), str(o)) for a, o in allocations.items())]
    yield "Nodes", _rows(NODES, at(status, "cluster", "nodes"))


def _rows(columns: Mapping[str, str], items: Iterable[Json] | None) -> Rows:
    keys = [path.split() for path in columns.values()]
    return [tuple(columns), *(tuple(text_of(at(item, *path)) for path in keys) for item in items or ())]


def _controllers(controllers: Iterable[Json]) -> Rows:
    rows: Rows = [("Name", "Success", "Failures", "Last error")]
    for item in controllers:
        counts = (text_of(at(item, "status", f"{what}-count")) for what in ("success", "failure"))
        # An error that was overcome is none.
        error = at(item, "status", "last-failure-msg") if failures(item) else None
        rows.append((text_of(item.get("name")), *counts, text_of(error or "no error")))
    return rows


def failures(controller: Json) -> int:
    """Return how often a controller has failed since it last succeeded."""
    return int(at(controller, "status", "consecutive-failure-count") or 0)


def processes(status: Json) -> list[Json]:
    """Return the node's processes; an agent may give a list, or a mapping of name to facts."""
    given = at(status, "palomar", "processes") or []
    if isinstance(given, Mapping):
        return [
            {"name": name, **(facts if isinstance(facts, Mapping) else {"state": facts})}
            for name, facts in given.items()
        ]
    return [item for item in given if isinstance(item, Mapping)]


def text_of(value: Any) -> str:
    """Return a value as text, nothing for one that is not there."""
    return "" if value is None else str(value)
