"""The one thread in which this agent touches the kernel's maps, programs and devices.

Calls block for milliseconds, so they must not run on the event loop; they run one after the other in the
order in which they were made, so that nobody sees half of another's change. The thread stays in the network
namespace the process started in.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


class DatapathThread:
    """Runs blocking calls in order."""

    def __init__(self) -> None:
        """Start no thread before the first call."""
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="datapath")

    async def run(self, fn: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call `fn` in the thread and return its result or raise its error.

        A call whose waiter is cancelled still runs to its end: the kernel must not be left half changed.
        """
        future = self._executor.submit(fn, *args, **kwargs)
        return await asyncio.wrap_future(future)

    def close(self) -> None:
        """Let the calls made so far end, and the thread."""
        self._executor.shutdown(wait=True)
