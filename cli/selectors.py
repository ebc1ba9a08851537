"""Range selectors to a request: `--first`, `--last`, `--all`, `--since`, `--until`, `--follow`.

Pure: the current time is an argument. Without any of them the newest 20 are asked for; `--since`
without `--last` means everything since; `--follow` without `--last` or `--since` starts now.
"""

import argparse
from dataclasses import dataclass

from cli.errors import UsageError
from cli.timespec import NS_PER_S, parse_time_ns

DEFAULT_LAST = 20
EVERYTHING = 2**64 - 1
"""`number` of a request that wants all there is."""


@dataclass(frozen=True, slots=True)
class Selectors:
    """The flags as given; None (or a count of 0) where a flag was not."""

    first: int | None = None
    last: int | None = None
    all: bool = False
    since: str | None = None
    until: str | None = None
    follow: bool = False


@dataclass(frozen=True, slots=True)
class Range:
    """What to ask the server for; the fields are those of the request messages."""

    number: int
    first: bool
    follow: bool
    since_ns: int | None
    until_ns: int | None

    @property
    def reaches_back(self) -> bool:
        """Tell whether flows that have left the store may have belonged to the answer."""
        return self.first or self.number == EVERYTHING


def resolve(given: Selectors, now_ns: int) -> Range:
    """Check `given` and work out the range; raise UsageError where flags contradict."""
    _check(given)
    since_ns = None if given.since is None else parse_time_ns(given.since, "--since", now_ns)
    until_ns = None if given.until is None else parse_time_ns(given.until, "--until", now_ns)
    if since_ns is not None and until_ns is not None and since_ns > until_ns:
        raise UsageError("--since is later than --until: no flow can match")
    return Range(
        number=_number(given),
        first=bool(given.first),
        follow=given.follow,
        since_ns=since_ns,
        until_ns=until_ns,
    )


def _check(given: Selectors) -> None:
    for one, other, both in (
        ("--first", "--last", bool(given.first) and bool(given.last)),
        ("--all", "--first", given.all and bool(given.first)),
        ("--all", "--last", given.all and bool(given.last)),
        ("--all", "--since", given.all and given.since is not None),
        ("--first", "--follow", bool(given.first) and given.follow),
    ):
        if both:
            raise UsageError(f"{one} and {other} cannot be combined")


def _number(given: Selectors) -> int:
    if given.first or given.last:
        return given.first or given.last or 0
    if given.all or given.since is not None or given.until is not None:
        return EVERYTHING
    return 0 if given.follow else DEFAULT_LAST


def split_ns(moment_ns: int) -> tuple[int, int]:
    """Return a protobuf timestamp's seconds and nanos."""
    return divmod(moment_ns, NS_PER_S)


def count(text: str) -> int:
    """Read a number of flows for argparse, which names the flag in the error."""
    if not text.isascii() or not text.isdigit() or int(text) > EVERYTHING:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of flows: write a whole number such as 100")
    return int(text)
