"""Keeps the flow metrics up with the store: reads what has come and counts it.

Input: a StoreFollower; output: the registry's totals. Blocks are taken as large as they are there, because
the cost per row falls with their size.
"""

import asyncio

from hubble.metrics.registry import FlowMetricsRegistry
from hubble.storefollower import StoreFollower
from palomar.clock import Clock

BLOCK_ROWS = 65536
POLL_S = 0.25


class FlowCounting:
    """One registry and its place in the store."""

    def __init__(self, registry: FlowMetricsRegistry, follower: StoreFollower, clock: Clock) -> None:
        """Nothing is read before `run` or `catch_up`."""
        self.registry = registry
        self.follower = follower
        self._clock = clock
        self._stores = 0

    def count_block(self) -> int:
        """Count what has come, at most one block; return how many rows that were."""
        block = self.follower.read(BLOCK_ROWS)
        if self.follower.stores != self._stores:
            self._stores = self.follower.stores
            self.registry.forget_names()
        if block is None:
            return 0
        self.registry.count(block, self._clock.monotonic_ns())
        self.follower.advance(len(block))
        return len(block)

    async def catch_up(self) -> None:
        """Count all that was there when this was called, with a pause for others after each block."""
        rows = self.follower.lag
        while rows > 0:
            counted = self.count_block()
            if not counted:
                return
            rows -= counted
            await asyncio.sleep(0)

    async def run(self) -> None:
        """Count until cancelled."""
        while True:
            self.count_block()
            await self.catch_up()
            await asyncio.sleep(POLL_S)
