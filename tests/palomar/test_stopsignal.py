"""A process with an event loop hears that it shall end."""

import asyncio
import os
import signal

import pytest

from palomar.stopsignal import stop_signal


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_both_signals_set_the_event(number: signal.Signals) -> None:
    loop = asyncio.get_running_loop()
    told = stop_signal()
    try:
        assert not told.is_set()
        os.kill(os.getpid(), number)
        await asyncio.wait_for(told.wait(), 5)
    finally:
        for taken in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(taken)
