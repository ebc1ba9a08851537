"""The agent's child processes: started, watched, restarted with backoff, stopped with it.

Not what they do (`hubble.ingest`, `hubble.server`). They are told to die with the agent: PR_SET_PDEATHSIG is
set by setpriv(1) before the program starts, so that no Python code runs between fork and exec. Their output
goes to the agent's. Input: `ChildSpec`; output: `status()` for people and metrics.
"""

import asyncio
import logging
import os
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from palomar.clock import Clock
from palomar.tasks import spawn

logger = logging.getLogger(__name__)

MIN_BACKOFF_S = 0.2
MAX_BACKOFF_S = 30.0
STABLE_S = 10.0
"""A child that lived this long starts again with the least backoff."""
STOP_TIMEOUT_S = 5.0


class ChildState(StrEnum):
    """How a child is."""

    STARTING = "starting"
    RUNNING = "running"
    BACKOFF = "backoff"
    STOPPED = "stopped"


@dataclass(frozen=True, slots=True)
class ChildSpec:
    """A program to keep running."""

    name: str
    argv: tuple[str, ...]
    environment: tuple[tuple[str, str], ...] = ()
    """Variables beside the agent's own."""


@dataclass(frozen=True, slots=True)
class ChildStatus:
    """What is known of a child."""

    name: str
    state: ChildState
    pid: int
    """0 while it does not run."""
    restarts: int
    last_exit: str
    """How it ended last: `status 1`, `signal SIGKILL`; empty: never yet."""


class Child:
    """One program and the task that keeps it running."""

    def __init__(self, spec: ChildSpec, clock: Clock) -> None:
        """Nothing runs before `start`."""
        self.spec = spec
        self._clock = clock
        self._state = ChildState.STOPPED
        self._process: asyncio.subprocess.Process | None = None
        self._restarts = 0
        self._last_exit = ""
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to keep it running. Idempotent."""
        if self._task is None:
            self._state = ChildState.STARTING
            self._task = spawn(self._keep_running(), f"child {self.spec.name}")

    async def stop(self) -> None:
        """End it: SIGTERM, then SIGKILL after STOP_TIMEOUT_S. Idempotent."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait([task])
        self._state = ChildState.STOPPED

    def status(self) -> ChildStatus:
        """How it is now."""
        pid = self._process.pid if self._process is not None else 0
        return ChildStatus(self.spec.name, self._state, pid, self._restarts, self._last_exit)

    async def _keep_running(self) -> None:
        delay_s = MIN_BACKOFF_S
        while True:
            started_ns = self._clock.monotonic_ns()
            await self._run_once()
            if self._clock.monotonic_ns() - started_ns >= STABLE_S * 1e9:
                delay_s = MIN_BACKOFF_S
            self._state = ChildState.BACKOFF
            logger.warning(
                "child process ended",
                extra={"child": self.spec.name, "exit": self._last_exit, "restart_in_s": delay_s},
            )
            await asyncio.sleep(delay_s)
            delay_s = min(delay_s * 2, MAX_BACKOFF_S)
            self._restarts += 1

    async def _run_once(self) -> None:
        try:
            process = await asyncio.create_subprocess_exec(
                *("setpriv", "--pdeathsig", "TERM", "--", *self.spec.argv),
                stdin=asyncio.subprocess.DEVNULL,
                env={**os.environ, **dict(self.spec.environment)},
            )
        except OSError as error:
            self._last_exit = f"not started: {error.strerror}"
            return
        self._process = process
        self._state = ChildState.RUNNING
        logger.info("child process started", extra={"child": self.spec.name, "pid": process.pid})
        try:
            self._last_exit = exit_text(await process.wait())
        finally:
            await _end(process)
            self._process = None


async def _end(process: asyncio.subprocess.Process) -> None:
    if process.returncode is not None:
        return
    process.terminate()
    try:
        await asyncio.wait_for(process.wait(), STOP_TIMEOUT_S)
    except TimeoutError:
        process.kill()
        await process.wait()


def exit_text(returncode: int) -> str:
    """Return `status 1`, or `signal SIGKILL` for a process that was killed."""
    if returncode >= 0:
        return f"status {returncode}"
    try:
        return f"signal {signal.Signals(-returncode).name}"
    except ValueError:
        return f"signal {-returncode}"


class Supervisor:
    """Every child of the agent."""

    def __init__(self, specs: Sequence[ChildSpec], clock: Clock) -> None:
        """Nothing runs before `start`."""
        self._children = [Child(spec, clock) for spec in specs]

    async def start(self) -> None:
        """Start them all, in order."""
        for child in self._children:
            child.start()

    async def stop(self) -> None:
        """End them all, at the same time."""
        await asyncio.gather(*(child.stop() for child in self._children))

    def status(self) -> list[ChildStatus]:
        """How each is."""
        return [child.status() for child in self._children]
