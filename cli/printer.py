"""Where responses become output: one printer per `--output`, all writing to one text stream.

`write` takes responses as they come, `flush` is called after each batch, `close` at the end.
"""

from typing import IO, Protocol

from cli.format.flows import DICT_SEPARATOR, Style, TableFormat, as_dict, compact
from cli.format.protojson import JsonFormat
from palomar_pb.observer import observer_pb2

OUTPUTS = ("compact", "wide", "dict", "json", "jsonpb", "table", "tab")


class Printer(Protocol):
    """What the observe command needs of an output format."""

    def write(self, response: observer_pb2.GetFlowsResponse) -> None:
        """Take one flow or loss; what a relay says of its nodes is not for printers."""
        ...

    def flush(self) -> None:
        """Show what was written so far, as far as the format allows."""
        ...

    def close(self) -> None:
        """Show the rest."""
        ...


class LinePrinter:
    """Compact: a line per flow or loss."""

    def __init__(self, style: Style, out: IO[str]) -> None:
        """Write to `out` in `style`."""
        self._style = style
        self._out = out

    def write(self, response: observer_pb2.GetFlowsResponse) -> None:
        """Write one line."""
        line = compact(response, self._style)
        if line:
            self._out.write(line + "\n")

    def flush(self) -> None:
        """Flush the stream."""
        self._out.flush()

    def close(self) -> None:
        """Flush the stream."""
        self._out.flush()


class DictPrinter(LinePrinter):
    """Blocks of `KEY: value` with a separator between."""

    def __init__(self, style: Style, out: IO[str]) -> None:
        """Write to `out` in `style`."""
        super().__init__(style, out)
        self._first = True

    def write(self, response: observer_pb2.GetFlowsResponse) -> None:
        """Write one block."""
        block = as_dict(response, self._style)
        if block:
            self._out.write(block + "\n" if self._first else f"{DICT_SEPARATOR}\n{block}\n")
            self._first = False


class JsonPrinter:
    """A response per line."""

    def __init__(self, out: IO[str]) -> None:
        """Write to `out`."""
        self._out = out
        self._format = JsonFormat()

    def write(self, response: observer_pb2.GetFlowsResponse) -> None:
        """Write one line."""
        self._out.write(self._format.line(response) + "\n")

    def flush(self) -> None:
        """Flush the stream."""
        self._out.flush()

    def close(self) -> None:
        """Flush the stream."""
        self._out.flush()


class TablePrinter:
    """Aligned columns: of everything at the end, or growing with the rows when `follow`."""

    def __init__(self, style: Style, out: IO[str], follow: bool) -> None:
        """With `follow` rows are written at each flush and columns only ever widen."""
        self._format = TableFormat(style)
        self._out = out
        self._follow = follow
        self._rows: list[tuple[str, ...]] = [self._format.header()]

    def write(self, response: observer_pb2.GetFlowsResponse) -> None:
        """Keep one row."""
        row = self._format.row(response)
        if row is not None:
            self._format.grow(row)
            self._rows.append(row)

    def flush(self) -> None:
        """Write the rows so far where the widths may still change (`follow`); else wait."""
        if self._follow:
            self.close()

    def close(self) -> None:
        """Write the rows kept."""
        self._out.writelines(self._format.line(row) + "\n" for row in self._rows)
        self._rows.clear()
        self._out.flush()


def printer(output: str, style: Style, out: IO[str], follow: bool) -> Printer:
    """Return the printer of `--output` (one of OUTPUTS; `wide` is compact with counters)."""
    if output in ("json", "jsonpb"):
        return JsonPrinter(out)
    if output in ("table", "tab"):
        return TablePrinter(style, out, follow)
    return DictPrinter(style, out) if output == "dict" else LinePrinter(style, out)
