"""Child processes: kept running, restarted with backoff, ended with the agent."""

import asyncio
import os
import signal
import sys
from pathlib import Path

import pytest

from agent.supervisor import MIN_BACKOFF_S, ChildSpec, ChildState, ChildStatus, Supervisor, exit_text
from palomar.clock import SystemClock
from tests.kit.wait import eventually, eventually_async

ROOT = str(Path(__file__).resolve().parents[2])
SLEEPER = (sys.executable, "-c", "import time; time.sleep(60)")


def alive(pid: int) -> bool:
    """Whether a process runs; one that ended and was not waited for does not."""
    try:
        return " Z " not in Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


def status(supervisor: Supervisor) -> ChildStatus:
    (found,) = supervisor.status()
    return found


async def test_a_killed_child_is_started_again(tmp_path: Path) -> None:
    supervisor = Supervisor([ChildSpec("sleeper", SLEEPER)], SystemClock())
    assert status(supervisor).state is ChildState.STOPPED
    await supervisor.start()
    try:
        first = await eventually_async(lambda: status(supervisor).pid)
        os.kill(first, signal.SIGKILL)
        second = await eventually_async(
            lambda: pid if (pid := status(supervisor).pid) not in (0, first) else 0
        )
        assert status(supervisor).restarts == 1
        assert status(supervisor).last_exit == "signal SIGKILL"
        assert status(supervisor).state is ChildState.RUNNING
    finally:
        await supervisor.stop()
    assert status(supervisor).state is ChildState.STOPPED
    assert not alive(second)


async def test_a_child_that_keeps_failing_is_restarted_ever_more_slowly(tmp_path: Path) -> None:
    marks = tmp_path / "marks"
    script = f"import time; open({str(marks)!r}, 'a').write(f'{{time.monotonic()}}\\n'); raise SystemExit(3)"
    supervisor = Supervisor([ChildSpec("failing", (sys.executable, "-S", "-c", script))], SystemClock())
    await supervisor.start()
    try:
        await eventually_async(lambda: marks.exists() and len(marks.read_text().splitlines()) >= 3, 15)
        times = [float(line) for line in marks.read_text().splitlines()]
        assert times[1] - times[0] >= MIN_BACKOFF_S
        assert times[2] - times[1] >= 2 * MIN_BACKOFF_S
        assert status(supervisor).last_exit == "status 3"
    finally:
        await supervisor.stop()


async def test_a_program_that_does_not_exist_is_said_and_tried_again() -> None:
    supervisor = Supervisor([ChildSpec("missing", ("/nonexistent/program",))], SystemClock())
    await supervisor.start()
    try:
        await eventually_async(lambda: status(supervisor).restarts >= 1, 10)
        assert status(supervisor).last_exit.startswith("status ")
    finally:
        await supervisor.stop()


async def test_a_child_that_does_not_hear_sigterm_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agent.supervisor.STOP_TIMEOUT_S", 0.2)
    ready = tmp_path / "ready"
    script = (
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
        f" open({str(ready)!r}, 'w').close(); time.sleep(60)"
    )
    supervisor = Supervisor([ChildSpec("deaf", (sys.executable, "-c", script))], SystemClock())
    await supervisor.start()
    await eventually_async(ready.exists)
    pid = status(supervisor).pid
    await supervisor.stop()
    assert not alive(pid)


async def test_environment_reaches_the_child(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    script = f"import os, time; open({str(mark)!r}, 'w').write(os.environ['PALOMAR_TEST']); time.sleep(60)"
    spec = ChildSpec("child", (sys.executable, "-c", script), (("PALOMAR_TEST", "here"),))
    supervisor = Supervisor([spec], SystemClock())
    await supervisor.start()
    try:
        await eventually_async(lambda: mark.exists() and mark.read_text() == "here")
    finally:
        await supervisor.stop()


async def test_children_end_when_the_agent_is_killed(tmp_path: Path) -> None:
    """A process that supervises is killed by SIGKILL: its child ends too (PR_SET_PDEATHSIG)."""
    pid_file = tmp_path / "pid"
    script = f"""
import asyncio, sys
from agent.supervisor import ChildSpec, Supervisor
from palomar.clock import SystemClock
async def main():
    child = "import os, time; open({str(pid_file)!r}, 'w').write(str(os.getpid())); time.sleep(60)"
    supervisor = Supervisor([ChildSpec("child", (sys.executable, "-c", child))], SystemClock())
    await supervisor.start()
    await asyncio.Event().wait()
asyncio.run(main())
"""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", script, env={**os.environ, "PYTHONPATH": ROOT}
    )
    try:
        child = int(await eventually_async(lambda: pid_file.exists() and pid_file.read_text(), 10))
        assert alive(child)
    finally:
        process.kill()
        await process.wait()
    eventually(lambda: not alive(child))


@pytest.mark.parametrize(
    ("returncode", "text"),
    [(0, "status 0"), (2, "status 2"), (-9, "signal SIGKILL"), (-15, "signal SIGTERM"), (-99, "signal 99")],
)
def test_exits_are_named(returncode: int, text: str) -> None:
    assert exit_text(returncode) == text
