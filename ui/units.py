"""Numbers as the page writes them: rates, counts, bytes, durations.

Pure. Rounded to what a person reads at a glance, which also keeps updates small: a rate that has not
visibly changed is not sent again.
"""


def rate(per_second: float) -> str:
    """`0.4/s`, `12/s`, `1.2k/s`; empty for nothing, `<0.1/s` for next to nothing."""
    if per_second <= 0:
        return ""
    if per_second < 0.1:
        return "<0.1/s"
    return f"{_short(per_second)}/s"


def count(number: float) -> str:
    """`0`, `950`, `1.2k`, `34k`, `5.6M`."""
    return _short(number) if number >= 1000 else str(int(number))


def exact(number: int) -> str:
    """`1,234,567`."""
    return f"{number:,}"


def size(octets: int) -> str:
    """`512 B`, `1.5 KiB`, `3.0 MiB`."""
    value = float(octets)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024:
            return f"{value:.0f} B" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} TiB"


def duration(nanoseconds: int) -> str:
    """`4 s`, `12 min`, `3 h 5 min`, `2 d 4 h`."""
    seconds = abs(nanoseconds) // 1_000_000_000
    if seconds < 60:
        return f"{seconds} s"
    minutes, hours, days = seconds // 60, seconds // 3600, seconds // 86400
    if minutes < 60:
        return f"{minutes} min"
    if hours < 24:
        return f"{hours} h {minutes % 60} min" if minutes % 60 else f"{hours} h"
    return f"{days} d {hours % 24} h" if hours % 24 else f"{days} d"


def round_trip(microseconds: int) -> str:
    """`180 µs`, `1.4 ms`."""
    return f"{microseconds} µs" if microseconds < 1000 else f"{microseconds / 1000:.1f} ms"


def _short(number: float) -> str:
    for limit, unit, scale in ((1000, "", 1.0), (1e6, "k", 1e3), (1e9, "M", 1e6)):
        if number < limit:
            value = number / scale
            return f"{value:.1f}{unit}" if value < 9.95 and (unit or value % 1) else f"{value:.0f}{unit}"
    return f"{number / 1e9:.1f}G"
