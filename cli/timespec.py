"""Points in time as people write them: `5m`, `1h30m`, `2026-11-21T08:00:00Z`, `2026-11-21`.

Pure: "now" is an argument. Durations are Go's (`300ms`, `1.5h`, `2h45m`) with days and weeks added.
"""

import re
from datetime import UTC, datetime, tzinfo

from cli.errors import UsageError

NS_PER_S = 1_000_000_000

_UNIT_NS = {
    "ns": 1,
    "us": 1_000,
    "µs": 1_000,
    "ms": 1_000_000,
    "s": NS_PER_S,
    "m": 60 * NS_PER_S,
    "h": 3_600 * NS_PER_S,
    "d": 86_400 * NS_PER_S,
    "w": 7 * 86_400 * NS_PER_S,
}
_PART = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(ns|us|µs|ms|s|m|h|d|w)")

ACCEPTED = "a duration such as 30s, 5m or 1h30m, or a timestamp such as 2026-11-21T08:00:00Z"


def parse_duration_ns(text: str, flag: str) -> int:
    """Read `1h30m` and the like as nanoseconds; raise UsageError naming `flag` otherwise."""
    position, total = 0, 0.0
    while position < len(text):
        part = _PART.match(text, position)
        if part is None:
            break
        total += float(part[1]) * _UNIT_NS[part[2]]
        position = part.end()
    if not text or position != len(text):
        raise UsageError(f"{flag} {text!r} is no duration: write 500ms, 30s, 5m or 1h30m")
    return round(total)


def parse_time_ns(text: str, flag: str, now_ns: int, local: tzinfo | None = None) -> int:
    """Read a duration ago, `now`, or a timestamp as nanoseconds since the epoch.

    A timestamp without a zone is in `local` (None: the machine's zone).
    """
    if text == "now":
        return now_ns
    if _PART.match(text) and not re.match(r"\d{4}-", text):
        return now_ns - parse_duration_ns(text, flag)
    fraction = re.search(r"[.,](\d+)", text)
    try:
        moment = datetime.fromisoformat(text if fraction is None else text.replace(fraction[0], ""))
    except ValueError:
        raise UsageError(f"{flag} {text!r} is no point in time: write {ACCEPTED}") from None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=local) if local else moment.astimezone()
    whole = round((moment - datetime(1970, 1, 1, tzinfo=UTC)).total_seconds())
    nanoseconds = int(fraction[1][:9].ljust(9, "0")) if fraction else 0
    return whole * NS_PER_S + nanoseconds
