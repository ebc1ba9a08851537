"""Waiting for the outside world: poll a condition until it holds or a deadline passes, never a bare sleep."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")


def eventually(fn: Callable[[], T], timeout_s: float = 5.0, interval_s: float = 0.02) -> T:
    """Call `fn` until it returns something true and return that; AssertionError after `timeout_s`.

    An AssertionError raised by `fn` counts as "not yet" and its text ends up in the final error.
    """
    deadline = time.monotonic() + timeout_s
    last: object = None
    while True:
        try:
            last = fn()
            if last:
                return last  # type: ignore[return-value]  # `last` is fn's result here
        except AssertionError as error:
            last = error
        if time.monotonic() >= deadline:
            raise AssertionError(f"not within {timeout_s} s: last result {last!r}")
        time.sleep(interval_s)


async def eventually_async(
    fn: Callable[[], T | Awaitable[T]], timeout_s: float = 5.0, interval_s: float = 0.02
) -> T:
    """Like `eventually` for a plain or async `fn`, leaving the event loop free between calls."""
    deadline = time.monotonic() + timeout_s
    last: object = None
    while True:
        try:
            result = fn()
            last = await result if isinstance(result, Awaitable) else result
            if last:
                return last  # type: ignore[return-value]  # `last` is fn's result here
        except AssertionError as error:
            last = error
        if time.monotonic() >= deadline:
            raise AssertionError(f"not within {timeout_s} s: last result {last!r}")
        await asyncio.sleep(interval_s)
