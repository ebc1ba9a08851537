"""Things the agent does again and again: each a named task with an interval and counters for status."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from palomar.clock import Clock
from palomar.errors import PalomarError
from palomar.tasks import spawn

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class ControllerStatus:
    """How a controller did so far."""

    name: str
    interval_s: float
    successes: int = 0
    failures: int = 0
    consecutive_failures: int = 0
    last_error: str = ""
    last_success_ns: int = 0
    """Wall clock; 0: never."""
    last_failure_ns: int = 0
    duration_s: float = 0.0
    """Of the last run."""


class Controller:
    """Runs `work` every `interval_s`; an error is counted, and the next run comes as usual."""

    def __init__(
        self, name: str, interval_s: float, work: Callable[[], Awaitable[None]], clock: Clock
    ) -> None:
        """Nothing runs before `start`."""
        self.status = ControllerStatus(name, interval_s)
        self._work = work
        self._clock = clock
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Run for the first time after one interval."""
        if self._task is None:
            self._task = spawn(self._run(), f"controller {self.status.name}")

    async def stop(self) -> None:
        """End; a run under way is cancelled."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
            self._task = None

    async def run_once(self) -> None:
        """Run now and count."""
        status = self.status
        began_ns = self._clock.monotonic_ns()
        try:
            await self._work()
        except PalomarError as error:
            status.failures += 1
            status.consecutive_failures += 1
            status.last_error = str(error)
            status.last_failure_ns = self._clock.wall_ns()
            logger.warning("controller failed", extra={"controller": status.name, "error": str(error)})
        else:
            status.successes += 1
            status.consecutive_failures = 0
            status.last_success_ns = self._clock.wall_ns()
        status.duration_s = (self._clock.monotonic_ns() - began_ns) / 1e9

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(self.status.interval_s)
            await self.run_once()
