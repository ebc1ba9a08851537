"""Range flags become number, first, follow, since and until of the request."""

import pytest

from cli.errors import UsageError
from cli.selectors import EVERYTHING, Range, Selectors, resolve

NOW_NS = 1_795_248_000 * 10**9
MINUTE_NS = 60 * 10**9

CASES = [
    (Selectors(), Range(20, False, False, None, None)),
    (Selectors(last=5), Range(5, False, False, None, None)),
    (Selectors(last=0), Range(20, False, False, None, None)),
    (Selectors(first=7), Range(7, True, False, None, None)),
    (Selectors(all=True), Range(EVERYTHING, False, False, None, None)),
    (Selectors(follow=True), Range(0, False, True, None, None)),
    (Selectors(follow=True, last=3), Range(3, False, True, None, None)),
    (Selectors(since="5m"), Range(EVERYTHING, False, False, NOW_NS - 5 * MINUTE_NS, None)),
    (Selectors(since="5m", last=2), Range(2, False, False, NOW_NS - 5 * MINUTE_NS, None)),
    (Selectors(since="5m", follow=True), Range(EVERYTHING, False, True, NOW_NS - 5 * MINUTE_NS, None)),
    (Selectors(until="1m"), Range(EVERYTHING, False, False, None, NOW_NS - MINUTE_NS)),
]


@pytest.mark.parametrize(("given", "expected"), CASES, ids=[str(case[0]) for case in CASES])
def test_selectors_become_a_range(given, expected):
    assert resolve(given, NOW_NS) == expected


@pytest.mark.parametrize(
    ("given", "flags"),
    [
        (Selectors(first=1, last=1), ("--first", "--last")),
        (Selectors(all=True, last=1), ("--all", "--last")),
        (Selectors(all=True, first=1), ("--all", "--first")),
        (Selectors(all=True, since="1m"), ("--all", "--since")),
        (Selectors(first=1, follow=True), ("--first", "--follow")),
        (Selectors(since="1m", until="5m"), ("--since", "--until")),
    ],
)
def test_selectors_that_contradict_name_both_flags(given, flags):
    with pytest.raises(UsageError) as caught:
        resolve(given, NOW_NS)
    assert all(flag in str(caught.value) for flag in flags)
