"""Each layout of --time-format, and the zone it is told."""

from datetime import UTC, timedelta, timezone

import pytest

from cli.errors import UsageError
from cli.format.timestamps import TimeFormat
from tests.cli.flowcast import SECOND_ZERO

LAYOUTS = [
    ("StampMilli", "Nov 21 08:00:01.120"),
    ("YearMonthDay", "2026-11-21"),
    ("YearMonthDayHour", "2026-11-21T08+00:00"),
    ("YearMonthDayHourMinute", "2026-11-21T08:00+00:00"),
    ("RFC3339", "2026-11-21T08:00:01Z"),
    ("RFC3339Milli", "2026-11-21T08:00:01.12Z"),
    ("RFC3339Micro", "2026-11-21T08:00:01.120034Z"),
    ("RFC3339Nano", "2026-11-21T08:00:01.120034Z"),
    ("RFC1123Z", "Sat, 21 Nov 2026 08:00:01 +0000"),
    ("rfc3339nano", "2026-11-21T08:00:01.120034Z"),
]


@pytest.mark.parametrize(("name", "expected"), LAYOUTS)
def test_layouts(name, expected):
    assert TimeFormat(name, UTC).text(SECOND_ZERO + 1, 120_034_000) == expected


def test_zone_is_applied_and_the_second_is_not_mixed_up():
    layout = TimeFormat("RFC3339Nano", timezone(timedelta(hours=5, minutes=30)))
    assert layout.text(SECOND_ZERO, 5) == "2026-11-21T13:30:00.000000005+05:30"
    assert layout.text(SECOND_ZERO + 1, 0) == "2026-11-21T13:30:01+05:30"
    assert layout.text(SECOND_ZERO, 0) == "2026-11-21T13:30:00+05:30"


def test_days_below_ten_are_padded():
    assert TimeFormat("StampMilli", UTC).text(SECOND_ZERO - 15 * 86400, 0) == "Nov  6 08:00:00.000"


def test_an_unknown_layout_lists_the_known_ones():
    with pytest.raises(UsageError, match=r"--time-format 'Kitchen'.*StampMilli.*RFC1123Z"):
        TimeFormat("Kitchen")
