"""Timestamps of flows in the layouts that `--time-format` names.

Pure: the zone is an argument (None: the machine's). Text is kept per second, because flows come many
per second and `strftime` costs more than the rest of a line.
"""

from collections.abc import Callable
from datetime import UTC, datetime, tzinfo

from cli.errors import UsageError

DEFAULT = "StampMilli"


def _zone(moment: datetime) -> str:
    offset = moment.strftime("%z")
    return "Z" if offset in ("", "+0000") else f"{offset[:3]}:{offset[3:5]}"


def _numeric_zone(moment: datetime) -> str:
    offset = moment.strftime("%z") or "+0000"
    return f"{offset[:3]}:{offset[3:5]}"


def _trimmed(nanos: int, digits: int) -> str:
    text = f"{nanos:09d}"[:digits].rstrip("0")
    return f".{text}" if text else ""


_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")


def _stamp(moment: datetime) -> tuple[str, str]:
    return f"{_MONTHS[moment.month - 1]} {moment.day:2d} {moment:%H:%M:%S}", ""


def _rfc1123(moment: datetime) -> tuple[str, str]:
    name = f"{_DAYS[moment.weekday()]}, {moment.day:02d} {_MONTHS[moment.month - 1]}"
    return f"{name} {moment:%Y %H:%M:%S %z}", ""


def _rfc3339(moment: datetime) -> tuple[str, str]:
    return f"{moment:%Y-%m-%dT%H:%M:%S}", _zone(moment)


# name -> (text before and after the fraction, the fraction)
_LAYOUTS: dict[str, tuple[Callable[[datetime], tuple[str, str]], Callable[[int], str]]] = {
    "StampMilli": (_stamp, lambda nanos: f".{nanos // 1_000_000:03d}"),
    "YearMonthDay": (lambda moment: (f"{moment:%Y-%m-%d}", ""), lambda nanos: ""),
    "YearMonthDayHour": (
        lambda moment: (f"{moment:%Y-%m-%dT%H}{_numeric_zone(moment)}", ""),
        lambda nanos: "",
    ),
    "YearMonthDayHourMinute": (
        lambda moment: (f"{moment:%Y-%m-%dT%H:%M}{_numeric_zone(moment)}", ""),
        lambda nanos: "",
    ),
    "RFC3339": (_rfc3339, lambda nanos: ""),
    "RFC3339Milli": (_rfc3339, lambda nanos: _trimmed(nanos, 3)),
    "RFC3339Micro": (_rfc3339, lambda nanos: _trimmed(nanos, 6)),
    "RFC3339Nano": (_rfc3339, lambda nanos: _trimmed(nanos, 9)),
    "RFC1123Z": (_rfc1123, lambda nanos: ""),
}


class TimeFormat:
    """One layout in one zone: `text(seconds, nanos)` is what a line starts with."""

    def __init__(self, name: str = DEFAULT, zone: tzinfo | None = None) -> None:
        """`name` is a layout of `--time-format`; raises UsageError for any other."""
        layout = {known.lower(): value for known, value in _LAYOUTS.items()}.get(name.lower())
        if layout is None:
            raise UsageError(f"--time-format {name!r}: accepted is one of {', '.join(_LAYOUTS)}")
        self._whole, self._fraction = layout
        self._zone = zone
        self._second = -1
        self._around = ("", "")

    def text(self, seconds: int, nanos: int) -> str:
        """Return the layout of a protobuf timestamp's two parts."""
        if seconds != self._second:
            self._second = seconds
            moment = datetime.fromtimestamp(seconds, tz=UTC).astimezone(self._zone)
            self._around = self._whole(moment)
        before, after = self._around
        return before + self._fraction(nanos) + after
