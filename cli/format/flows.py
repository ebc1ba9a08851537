"""Flows as lines: compact, dict, table (and wide), in the field's exact forms.

Pure. Input: `observer.GetFlowsResponse`; output: text without the final newline. What the field does
not print is a suffix: the policy behind a refusal and the node that made it, unless names are off.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum

from cli.format import columns, words
from cli.format.palette import PLAIN, Palette
from cli.format.timestamps import TimeFormat
from palomar_pb.flow import flow_pb2
from palomar_pb.observer import observer_pb2

DICT_SEPARATOR = "------------"


class PolicyNames(Enum):
    """Which flows name their policies."""

    NEVER = "never"
    """Exactly the field's default text."""
    REFUSED = "refused"
    """The default: refused flows end with the policy, the rule and the node behind them."""
    ALWAYS = "always"
    """Every policy verdict says BY whom; refusals that no rule made are explained too."""


@dataclass(frozen=True, slots=True)
class Style:
    """How lines look."""

    time: TimeFormat = field(default_factory=TimeFormat)
    palette: Palette = PLAIN
    translate: bool = True
    """Names in place of addresses."""
    node_name: bool = False
    policy_names: PolicyNames = PolicyNames.REFUSED
    counters: bool = False
    """Packets, bytes and round trip behind the summary (`-o wide`)."""


@dataclass(frozen=True, slots=True)
class _Side:
    name: str
    port: int
    identity: str

    def text(self, palette: Palette) -> str:
        if palette is PLAIN:
            return words.with_port(self.name, self.port)
        plain = words.with_port(self.name, self.port)
        if not self.port:
            return palette.host(plain)
        head, _, tail = plain.rpartition(":")
        return f"{palette.host(head)}:{palette.port(tail)}"


def _sides(flow: flow_pb2.Flow, translate: bool) -> tuple[_Side, _Side]:
    if flow.HasField("ethernet") and not flow.HasField("IP"):
        return (
            _Side(flow.ethernet.source, 0, words.identity(flow.source.identity)),
            _Side(flow.ethernet.destination, 0, words.identity(flow.destination.identity)),
        )
    source_port, destination_port = words.ports(flow)
    source = words.host(flow.IP.source, flow.source, flow.source_service, flow.source_names, translate)
    destination = words.host(
        flow.IP.destination, flow.destination, flow.destination_service, flow.destination_names, translate
    )
    return (
        _Side(source, source_port, words.identity(flow.source.identity)),
        _Side(destination, destination_port, words.identity(flow.destination.identity)),
    )


def _verdict(flow: flow_pb2.Flow, style: Style) -> str:
    text = words.verdict(flow)
    if style.policy_names is PolicyNames.ALWAYS and flow.event_type.type == 5:
        named = words.policy_names(words.deciding_policies(flow))
        if named:
            text = f"{text} BY {named}"
    return style.palette.verdict(text)


def _suffix(flow: flow_pb2.Flow, style: Style) -> str:
    """Return what follows the field's text: the reason of a refusal, the counters."""
    parts = []
    if style.policy_names is not PolicyNames.NEVER:
        said = style.policy_names is PolicyNames.ALWAYS and flow.event_type.type == 5
        if not (said and words.deciding_policies(flow)):
            parts.append(style.palette.policy(words.explain(flow)))
    if style.counters:
        counted = words.counters(words.extension(flow))
        parts.append(f"[{counted}]" if counted else "")
    return "".join(f" {part}" for part in parts if part)


def compact(response: observer_pb2.GetFlowsResponse, style: Style) -> str:
    """Return one line; empty for a response that is neither a flow nor a loss."""
    kind = response.WhichOneof("response_types")
    if kind == "flow":
        return _compact_flow(response.flow, style)
    if kind == "lost_events":
        lost = response.lost_events
        stamp = style.time.text(response.time.seconds, response.time.nanos)
        node = f" [{response.node_name}]" if style.node_name else ""
        text = f"EVENTS LOST: {_source(lost)} CPU({lost.cpu.value}) {lost.num_events_lost}"
        return f"{stamp}{node} {style.palette.bad(text)}"
    return ""


def _compact_flow(flow: flow_pb2.Flow, style: Style) -> str:
    palette = style.palette
    left, right = _sides(flow, style.translate)
    arrow = "<>"
    if flow.HasField("is_reply"):
        arrow = "->"
        if flow.is_reply.value:
            left, right, arrow = right, left, "<-"
    node = f" [{flow.node_name}]" if style.node_name else ""
    return (
        f"{style.time.text(flow.time.seconds, flow.time.nanos)}{node}: "
        f"{left.text(palette)} {palette.identity(left.identity)} {arrow} "
        f"{right.text(palette)} {palette.identity(right.identity)} "
        f"{words.event_type(flow)} {_verdict(flow, style)} ({words.summary(flow)}){_suffix(flow, style)}"
    )


def _source(lost: flow_pb2.LostEvent) -> str:
    known = flow_pb2.LostEventSource.values()
    return flow_pb2.LostEventSource.Name(lost.source) if lost.source in known else str(lost.source)


_DICT_KEYS = ("TIMESTAMP", "NODE", "SOURCE", "DESTINATION", "TYPE", "VERDICT", "SUMMARY")


def as_dict(response: observer_pb2.GetFlowsResponse, style: Style) -> str:
    """Return `KEY: value` lines; empty for a response that is neither a flow nor a loss."""
    cells = _cells(response, style)
    if cells is None:
        return ""
    pairs = list(zip(_DICT_KEYS, cells, strict=True))
    lost = response.WhichOneof("response_types") == "lost_events"
    skipped = {"DESTINATION"} if lost else set()
    if not style.node_name:
        skipped.add("NODE")
    return "\n".join(f"{key:>11}: {value}" for key, value in pairs if key not in skipped)


def _cells(response: observer_pb2.GetFlowsResponse, style: Style) -> tuple[str, ...] | None:
    kind = response.WhichOneof("response_types")
    if kind == "flow":
        flow = response.flow
        source, destination = _sides(flow, style.translate)
        return (
            style.time.text(flow.time.seconds, flow.time.nanos),
            flow.node_name,
            source.text(style.palette),
            destination.text(style.palette),
            words.event_type(flow),
            _verdict(flow, style),
            f"{words.summary(flow)}{_suffix(flow, style)}",
        )
    if kind == "lost_events":
        lost = response.lost_events
        return (
            style.time.text(response.time.seconds, response.time.nanos),
            response.node_name,
            _source(lost),
            "-",
            "EVENTS LOST",
            "-",
            f"CPU({lost.cpu.value}) - {lost.num_events_lost}",
        )
    return None


TABLE_HEADER = ("TIMESTAMP", "NODE", "SOURCE", "DESTINATION", "TYPE", "VERDICT", "SUMMARY")


class TableFormat:
    """Rows of the table output; widths are known at the end, or grow as rows come (`--follow`)."""

    def __init__(self, style: Style) -> None:
        """Start with the header's own widths."""
        self._style = style
        self._widths = columns.widths_of([self._visible(TABLE_HEADER)])

    def _visible(self, cells: Sequence[str]) -> tuple[str, ...]:
        return tuple(cells) if self._style.node_name else (cells[0], *cells[2:])

    def row(self, response: observer_pb2.GetFlowsResponse) -> tuple[str, ...] | None:
        """Return the cells of one response; None for one that is neither a flow nor a loss."""
        cells = _cells(response, self._style)
        return None if cells is None else self._visible(cells)

    def header(self) -> tuple[str, ...]:
        """Return the header's cells."""
        return self._visible(TABLE_HEADER)

    def grow(self, row: Sequence[str]) -> None:
        """Widen the columns to hold `row`."""
        self._widths = [
            max(width, visible_length(cell)) for width, cell in zip(self._widths, row, strict=True)
        ]

    def line(self, row: Sequence[str]) -> str:
        """Return `row` padded to the widths known so far; colour takes no room."""
        padded = [
            cell + " " * (width + columns.PADDING - visible_length(cell))
            for cell, width in zip(row[:-1], self._widths, strict=False)
        ]
        return "".join([*padded, row[-1]])


def visible_length(text: str) -> int:
    """Count the characters of `text` that take room on a terminal."""
    if "\x1b" not in text:
        return len(text)
    length, inside = 0, False
    for character in text:
        if character == "\x1b":
            inside = True
        elif inside:
            inside = character != "m"
        else:
            length += 1
    return length
