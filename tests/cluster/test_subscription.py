"""A slow consumer of events gets the newest state, each key once, and Synced once."""

import asyncio

import pytest

from cluster.backend import Deleted, Synced, Upserted
from cluster.subscription import Subscription


async def test_what_is_known_comes_first_then_synced() -> None:
    table = {"a": 1, "b": 2}
    watch = Subscription(table.get, list(table))
    watch.sync()
    assert [await anext(watch) for _ in range(3)] == [Upserted("a", 1), Upserted("b", 2), Synced()]


async def test_several_changes_of_a_key_are_told_as_the_last() -> None:
    table = {"a": 1}
    watch = Subscription(table.get, list(table))
    assert await anext(watch) == Upserted("a", 1)
    for value in (2, 3):
        table["a"] = value
        watch.touch("a")
    assert await anext(watch) == Upserted("a", 3)
    del table["a"]
    watch.touch("a")
    assert await anext(watch) == Deleted("a", 3)


async def test_what_came_and_went_unseen_is_not_told() -> None:
    table: dict[str, int] = {}
    watch = Subscription(table.get, ())
    watch.touch("a")
    watch.sync()
    assert await anext(watch) == Synced()
    watch.sync()
    watch.close()
    with pytest.raises(StopAsyncIteration):
        await anext(watch)


async def test_a_waiting_consumer_wakes() -> None:
    table: dict[str, int] = {}
    watch = Subscription(table.get, ())
    async with asyncio.TaskGroup() as group:
        told = group.create_task(anext(watch))
        await asyncio.sleep(0)
        assert not told.done()
        table["a"] = 1
        watch.touch("a")
    assert told.result() == Upserted("a", 1)
