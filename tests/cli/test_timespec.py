"""Durations and timestamps as people write them."""

from datetime import UTC, timedelta, timezone

import pytest

from cli.errors import UsageError
from cli.timespec import NS_PER_S, parse_duration_ns, parse_time_ns

NOW_NS = 1_795_248_000 * NS_PER_S  # 2026-11-21T08:00:00Z

DURATIONS = [
    ("300ms", 300_000_000),
    ("5m", 300 * NS_PER_S),
    ("1h30m", 5400 * NS_PER_S),
    ("1.5h", 5400 * NS_PER_S),
    ("2d", 172_800 * NS_PER_S),
    ("1w", 604_800 * NS_PER_S),
    ("10us", 10_000),
    ("7ns", 7),
]


@pytest.mark.parametrize(("text", "expected"), DURATIONS)
def test_durations_are_read(text, expected):
    assert parse_duration_ns(text, "--timeout") == expected
    assert parse_time_ns(text, "--since", NOW_NS) == NOW_NS - expected


TIMES = [
    ("now", NOW_NS),
    ("2026-11-21T08:00:00Z", NOW_NS),
    ("2026-11-21T08:00:00.123456789Z", NOW_NS + 123_456_789),
    ("2026-11-21T08:00:00.5+00:00", NOW_NS + 500_000_000),
    ("2026-11-21T09:00:00+01:00", NOW_NS),
    ("2026-11-21 08:00:00", NOW_NS),
    ("2026-11-21T08:00", NOW_NS),
    ("2026-11-21", NOW_NS - 8 * 3600 * NS_PER_S),
]


@pytest.mark.parametrize(("text", "expected"), TIMES)
def test_timestamps_are_read(text, expected):
    assert parse_time_ns(text, "--since", 0 if text != "now" else NOW_NS, UTC) == expected


def test_a_timestamp_without_zone_is_local():
    local = timezone(timedelta(hours=2))
    assert parse_time_ns("2026-11-21T10:00:00", "--since", 0, local) == NOW_NS


@pytest.mark.parametrize("text", ["", "5", "5x", "m", "yesterday", "2026-13-01", "5m later", "-5m", "25:61"])
def test_nonsense_names_the_flag(text):
    with pytest.raises(UsageError, match="--until"):
        parse_time_ns(text, "--until", NOW_NS)


@pytest.mark.parametrize("text", ["", "5", "5mm5", "1h x", "Infinity"])
def test_a_bad_duration_names_the_flag(text):
    with pytest.raises(UsageError, match="--timeout"):
        parse_duration_ns(text, "--timeout")
