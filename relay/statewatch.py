"""When a channel's state changes: asked again and again with patience, with one watch in gRPC.

gRPC lets go of a watch only when the state changes. One that nobody waits for any more, as
`asyncio.wait_for` leaves it, stays for as long as the connection lasts: 700 bytes each, and a peer that is
well is looked at every few seconds for months.
"""

import asyncio
from contextlib import suppress

import grpc

from palomar import tasks


class StateWatch:
    """The changes of one channel's state, for one waiter at a time."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        """Nothing is asked of gRPC before `wait`."""
        self._channel = channel
        self._change: asyncio.Task[None] | None = None

    async def wait(self, state: grpc.ChannelConnectivity, timeout_s: float) -> bool:
        """Wait until it is no longer `state`, at most `timeout_s`; tell whether it changed.

        May tell a change too much, never one too few. Closing the channel is a change.
        """
        if self._change is None:
            self._change = tasks.spawn(self._until_not(state), "a channel's state")
        # One that began with another state has seen that end: it is done, or is just about to be.
        done, _ = await asyncio.wait((self._change,), timeout=timeout_s)
        if done:
            self._change = None
        return bool(done)

    def close(self) -> None:
        """Wait no more; gRPC's own watch ends with the channel."""
        if self._change is not None:
            self._change.cancel()
            self._change = None

    async def _until_not(self, state: grpc.ChannelConnectivity) -> None:
        with suppress(grpc.aio.UsageError):  # the channel is closed
            await self._channel.wait_for_state_change(state)
