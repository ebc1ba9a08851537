"""Consumers' way through the entries of one kind: async iterators of events.

Each holds which keys changed since they were last told, not a queue of changes: a slow consumer gets the
newest value of each, and memory is bounded by the number of keys. Fed by `cluster.shared`; the consumer
is a task of the agent.
"""

import asyncio
import weakref
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Generic, TypeVar

from cluster import keys
from cluster.backend import Deleted, Event, Synced, Upserted

E = TypeVar("E")


class Subscription(Generic[E]):
    """Events of one kind for one consumer; iterate it in one task only."""

    def __init__(self, current: Callable[[str], E | None], known: Iterable[str]) -> None:
        """Start with the keys `known`; `current` returns the entry of a key now."""
        self._current = current
        self._dirty: dict[str, None] = dict.fromkeys(known)
        self._told: dict[str, E] = {}
        self._synced = False
        self._synced_told = False
        self._closed = False
        self._wake = asyncio.Event()
        self._wake.set()

    def touch(self, key: str) -> None:
        """Note that `key` may have changed. The last touched is told last."""
        self._dirty.pop(key, None)
        self._dirty[key] = None
        self._wake.set()

    def sync(self) -> None:
        """Note that everything touched before this was the first complete listing."""
        self._synced = True
        self._wake.set()

    def close(self) -> None:
        """End the iteration after what is left to tell."""
        self._closed = True
        self._wake.set()

    def __aiter__(self) -> "Subscription[E]":
        """Return itself."""
        return self

    async def __anext__(self) -> Event[E]:
        """Return the next event; StopAsyncIteration once closed and drained."""
        while True:
            event = self._next()
            if event is not None:
                return event
            if self._closed:
                raise StopAsyncIteration
            self._wake.clear()
            await self._wake.wait()

    def _next(self) -> Event[E] | None:
        while self._dirty:
            key = next(iter(self._dirty))
            del self._dirty[key]
            now = self._current(key)
            before = self._told.get(key)
            if now == before:
                continue
            if now is not None:
                self._told[key] = now
                return Upserted(key, now)
            if before is not None:
                del self._told[key]
                return Deleted(key, before)
        if self._synced and not self._synced_told:
            self._synced_told = True
            return Synced()
        return None


class Subscriptions:
    """Every consumer, by the kind of entries it follows."""

    def __init__(self) -> None:
        """Start without any."""
        self._by_kind: dict[keys.Kind, weakref.WeakSet[Subscription[Any]]] = {}
        self._synced = False

    def add(self, kind: keys.Kind, table: Mapping[str, E]) -> Subscription[E]:
        """Return a new consumer of `kind`, whose entries stand in `table`."""
        subscription = Subscription(table.get, list(table))
        if self._synced:
            subscription.sync()
        # Weak: a consumer that ended its loop needs no further call to be forgotten.
        self._by_kind.setdefault(kind, weakref.WeakSet()).add(subscription)
        return subscription

    def tell(self, touched: Iterable[str]) -> None:
        """Note that these keys may have changed."""
        for key in touched:
            for subscription in self._by_kind.get(keys.kind_of(key), ()):
                subscription.touch(key)

    def sync(self) -> None:
        """Note that everything told before this was the first complete listing."""
        self._synced = True
        for subscription in self._all():
            subscription.sync()

    def close(self) -> None:
        """End every iteration after what is left to tell."""
        for subscription in self._all():
            subscription.close()

    def _all(self) -> list[Subscription[Any]]:
        return [subscription for several in self._by_kind.values() for subscription in several]
