"""Text in aligned columns, as tables of the field's commands are drawn.

Pure. Cells are padded to their column's widest cell plus three spaces; nothing is padded at the end
of a line.
"""

from collections.abc import Iterable, Sequence

PADDING = 3


def align(rows: Iterable[Sequence[str]], padding: int = PADDING) -> list[str]:
    """Return one line per row with the columns aligned; short rows are fine."""
    listed = [tuple(row) for row in rows]
    widths = widths_of(listed)
    return [join(row, widths, padding) for row in listed]


def widths_of(rows: Iterable[Sequence[str]]) -> list[int]:
    """Return the widest cell of each column."""
    widths: list[int] = []
    for row in rows:
        widths.extend([0] * (len(row) - len(widths)))
        for index, cell in enumerate(row):
            widths[index] = max(widths[index], len(cell))
    return widths


def join(row: Sequence[str], widths: Sequence[int], padding: int = PADDING) -> str:
    """Pad every cell of `row` but the last to its column's width."""
    padded = [cell.ljust(width + padding) for cell, width in zip(row, widths, strict=False)]
    return "".join(padded).rstrip()
