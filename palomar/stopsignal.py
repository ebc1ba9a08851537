"""The wish that a process with an event loop ends: SIGTERM or SIGINT, as an event to wait for.

Not what is done then: whoever waits stops its parts, in order.
"""

import asyncio
import signal


def stop_signal() -> asyncio.Event:
    """Return an event that SIGTERM and SIGINT set; the running loop takes them from now on."""
    told = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, told.set)
    return told
