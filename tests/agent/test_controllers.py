"""Controllers: run again and again, failures counted and survived."""

import asyncio
from pathlib import Path

import pytest

from agent.controllers import Controller
from agent.status import controller as shown
from palomar.clock import SystemClock
from palomar.errors import TransientError
from tests.agent.agentkit import config_for, running
from tests.kit.wait import eventually_async


async def test_failures_are_counted_and_the_next_run_comes() -> None:
    outcomes = iter([None, TransientError("first"), TransientError("second"), None])

    async def work() -> None:
        outcome = next(outcomes, None)
        if outcome is not None:
            raise outcome

    controller = Controller("test", 60, work, SystemClock())
    for _ in range(3):
        await controller.run_once()
    status = shown(controller.status)["status"]
    assert (status["success-count"], status["failure-count"], status["consecutive-failure-count"]) == (
        1,
        2,
        2,
    )
    assert status["last-failure-msg"] == "second"
    await controller.run_once()
    assert controller.status.consecutive_failures == 0


async def test_it_runs_by_itself_until_it_is_stopped() -> None:
    ran = asyncio.Event()

    async def work() -> None:
        ran.set()

    controller = Controller("test", 0.001, work, SystemClock())
    await controller.start()
    await controller.start()
    await asyncio.wait_for(ran.wait(), 3)
    await eventually_async(lambda: controller.status.successes >= 2)
    await controller.stop()
    await controller.stop()
    ran.clear()
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(ran.wait(), 0.05)


async def test_old_connections_are_counted_and_timed(tmp_path: Path) -> None:
    async with running(config_for(tmp_path)) as agent:
        await agent.daemon.collect_conntrack(agent.runtime)
        gc = agent.runtime.conntrack_gc
        assert (gc.runs, gc.last.seen, gc.last.deleted) == (1, 10, 4)
        assert gc.duration_s > 0
