"""A stream that outlives its server: dial again after a cut, ask again, say it once.

A relay ends every connection at its maximum age, and servers are restarted. What to ask again, and what of
the answer is new, is the asker's: `cli.flowresume`, `cli.livestream`, `cli.agenteventobserve`,
`cli.peerwatch`. Input: a way to dial and a way to ask; output: what the answers bring, as one iterator, and
text for people about each outage: one line when it begins, one when it is over.
"""

import contextlib
import signal
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import TypeVar

import grpc

from cli.errors import CallError, ServerUnreachableError
from cli.timespec import NS_PER_S
from palomar.clock import Clock, SystemClock

FIRST_WAIT_S = 0.25
LONGEST_WAIT_S = 15.0
STEADY_S = 2.0
"""An answer that lasted this long was one: the next wait is a short one again."""

CUT_OFF = frozenset({"UNAVAILABLE", "CANCELLED", "ABORTED", "DEADLINE_EXCEEDED"})
CUT_OFF_IN_THE_MIDDLE = frozenset({"INTERNAL", "UNKNOWN"})
"""What a torn connection may also be called; as a first answer they are the server's own failure."""
BUSY = frozenset({"RESOURCE_EXHAUSTED"})
"""A refusal at first; later what a server says that still counts the stream that was cut."""

T = TypeVar("T")
Dial = Callable[[], AbstractContextManager[grpc.Channel]]
Say = Callable[[str], None]
Ask = Callable[[grpc.Channel, Callable[[], None]], Iterator[T]]
"""Puts the question to a channel; calls its second argument once the server has taken it up."""


def resume(
    dial: Dial,
    ask: Ask[T],
    say: Say,
    *,
    is_over: Callable[[], bool] = lambda: False,
    clock: Clock | None = None,
    sleep: Callable[[float], None] = time.sleep,
) -> Iterator[T]:
    """Yield what `ask` brings, across as many connections as it takes.

    Ends where the server ends an answer and `is_over`. Raises what `dial` raises the first time, later only
    a refusal to talk to us, and CallError for an answer that another attempt would not change.
    """
    clock = clock or SystemClock()
    outage = Outage(say, clock)
    wait_s = FIRST_WAIT_S
    while True:
        began_ns, came, outage.begun = 0, False, False
        try:
            with dial() as channel:
                began_ns = outage.dialled_ns = clock.monotonic_ns()
                for item in ask(channel, outage.end):
                    came = True
                    outage.end()
                    yield item
            if is_over():
                return
            cause = "the server ended the answer"
        except ServerUnreachableError as error:
            if outage.since_ns is None or _refused(error):
                raise
            cause = error.cause
        except CallError as error:
            if not _cut_off(error.code, outage):
                raise
            cause = str(error)
        if came or (outage.begun and clock.monotonic_ns() - began_ns > STEADY_S * NS_PER_S):
            wait_s = FIRST_WAIT_S
        outage.start(cause, wait_s)
        sleep(wait_s)
        wait_s = min(2 * wait_s, LONGEST_WAIT_S)


class Outage:
    """The time without an answer, and the two lines that people read of it."""

    def __init__(self, say: Say, clock: Clock) -> None:
        """There is none yet."""
        self._say = say
        self._clock = clock
        self.since_ns: int | None = None
        """CLOCK_MONOTONIC of the cut; None while the server answers, and at the very start."""
        self.dialled_ns = 0
        self.begun = False
        """The server has taken up the question on this connection."""
        self.answered = False
        """It has done so on this or an earlier one."""

    def start(self, cause: str, wait_s: float) -> None:
        """The connection is lost, or still is: nothing is said of another attempt in vain."""
        if self.since_ns is None:
            self.since_ns = self._clock.monotonic_ns()
            self._say(f"connection lost: {cause}; trying again in {wait_s:g} s")

    def end(self) -> None:
        """The server answers (again); called as often as one likes."""
        self.begun = self.answered = True
        if self.since_ns is not None:
            away_s = (self.dialled_ns - self.since_ns) / NS_PER_S
            self.since_ns = None
            self._say(f"resumed after {away_s:.1f} s")


def _cut_off(code: str, outage: Outage) -> bool:
    """Tell whether another attempt may bring what this call did not."""
    return (
        code in CUT_OFF
        or (outage.begun and code in CUT_OFF_IN_THE_MIDDLE)
        or (outage.answered and code in BUSY)
    )


def _refused(error: ServerUnreachableError) -> bool:
    """Tell whether a certificate was not accepted, which a restart does not mend."""
    torn = (ssl.SSLEOFError, ssl.SSLZeroReturnError)
    return isinstance(error.__cause__, ssl.SSLError) and not isinstance(error.__cause__, torn)


@contextlib.contextmanager
def terminated_as_interrupted() -> Iterator[None]:
    """Make SIGTERM what Ctrl-C is, so that what stands at the end is still written."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextlib.contextmanager
def until_interrupted() -> Iterator[None]:
    """Make Ctrl-C and SIGTERM the ordinary end of what runs inside."""
    with contextlib.suppress(KeyboardInterrupt), terminated_as_interrupted():
        yield
