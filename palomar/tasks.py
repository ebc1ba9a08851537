"""Named asyncio tasks whose failures are heard.

A bare `asyncio.create_task` may be collected while it runs and its error lost; `spawn` keeps a
reference, logs the traceback and calls `on_error`.
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

logger = logging.getLogger(__name__)

T = TypeVar("T")

_running: set[asyncio.Task[Any]] = set()


def spawn(
    coroutine: Coroutine[Any, Any, T],
    name: str,
    on_error: Callable[[BaseException], None] | None = None,
) -> asyncio.Task[T]:
    """Start `coroutine` as the task `name`; an error is logged and handed to `on_error`."""
    task = asyncio.get_running_loop().create_task(coroutine, name=name)
    _running.add(task)

    def finished(done: asyncio.Task[T]) -> None:
        _running.discard(done)
        if done.cancelled():
            return
        error = done.exception()
        if error is not None:
            logger.error("task failed", extra={"task": name}, exc_info=error)
            if on_error is not None:
                on_error(error)

    task.add_done_callback(finished)
    return task
