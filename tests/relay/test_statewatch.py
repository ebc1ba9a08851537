"""Watching a channel for long: every change is told, and looking on leaves nothing behind."""

import gc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import grpc

from relay.statewatch import StateWatch

READY = grpc.ChannelConnectivity.READY
PATIENCE_S = 20.0
LOOKS = 300


@asynccontextmanager
async def connected() -> AsyncIterator[tuple[grpc.aio.Server, grpc.aio.Channel]]:
    """Serve nothing, and be connected to it."""
    server = grpc.aio.server()
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            await channel.channel_ready()
            yield server, channel
    finally:
        await server.stop(0)


async def test_a_change_is_told_to_who_has_looked_often() -> None:
    """Also one that comes while nobody waits, and the next after it."""
    async with connected() as (server, channel):
        watch = StateWatch(channel)
        for _ in range(3):
            assert not await watch.wait(READY, 0.001)
        await server.stop(0)
        assert await watch.wait(READY, PATIENCE_S)
        channel.get_state(try_to_connect=True)
        assert await watch.wait(READY, PATIENCE_S), "it is not ready: that is told at once"
        watch.close()


async def test_closing_the_channel_is_a_change() -> None:
    """Whoever waits hears of it, and the state says what it was."""
    async with connected() as (_, channel):
        watch = StateWatch(channel)
        assert not await watch.wait(READY, 0.001)
        await channel.close()
        assert await watch.wait(READY, PATIENCE_S)
        assert channel.get_state() is grpc.ChannelConnectivity.SHUTDOWN
        assert await watch.wait(READY, PATIENCE_S), "and again"


async def test_looking_again_and_again_leaves_nothing_behind() -> None:
    """As a relay does that watches a node which is well."""
    async with connected() as (_, channel):
        watch = StateWatch(channel)

        async def look() -> int:
            for _ in range(LOOKS):
                assert not await watch.wait(READY, 0.0005)
            gc.collect()
            return len(gc.get_objects())

        before = await look()
        assert await look() - before < LOOKS // 2
        watch.close()
