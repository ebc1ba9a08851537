"""Time as an argument: the one place that reads a clock.

Pure code takes `now_ns`; components take a `Clock`. Tests hand in their own.
"""

import time
from typing import Protocol


class Clock(Protocol):
    """What a component may ask about time."""

    def wall_ns(self) -> int:
        """Nanoseconds since the Unix epoch; may step."""
        ...

    def monotonic_ns(self) -> int:
        """Nanoseconds of CLOCK_MONOTONIC, the clock of `bpf_ktime_get_ns`; never steps."""
        ...


class SystemClock:
    """The machine's clocks."""

    def wall_ns(self) -> int:
        """Nanoseconds since the Unix epoch."""
        return time.time_ns()

    def monotonic_ns(self) -> int:
        """Nanoseconds of CLOCK_MONOTONIC."""
        return time.monotonic_ns()
