"""What a store must be able to do: a flat map of texts with revisions, transactions and leases.

`cluster.shared.SharedState` builds the meaning (identities, republication, grace) on this; a driver
knows nothing of it. Every operation is bounded in time and raises BackendUnavailableError when the
store does not answer. A driver keeps no state that a second `connect` could not rebuild.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Stored:
    """A value in the store."""

    value: str
    lease: int = 0
    """0: lives until it is deleted."""
    revision: int = 0
    """When it was last written; later is greater."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All keys below a prefix at one moment."""

    revision: int
    values: Mapping[str, Stored]
    origin: str = ""
    """Which store it came from, where the driver can tell one from its replacement."""


@dataclass(frozen=True, slots=True)
class Change:
    """One key was written, or deleted (`value` None)."""

    key: str
    value: str | None


@dataclass(frozen=True, slots=True)
class Batch:
    """Changes that became visible together, in order; keys of one lease end in one batch."""

    revision: int
    changes: tuple[Change, ...]


@dataclass(frozen=True, slots=True)
class Absent:
    """Condition: no such key."""

    key: str


@dataclass(frozen=True, slots=True)
class PrefixAbsent:
    """Condition: no key starts like this."""

    prefix: str


@dataclass(frozen=True, slots=True)
class Equals:
    """Condition: the key exists and holds this value."""

    key: str
    value: str


Condition = Absent | PrefixAbsent | Equals


@dataclass(frozen=True, slots=True)
class Put:
    """Write a value; `lease` 0 for one without."""

    key: str
    value: str
    lease: int = 0


@dataclass(frozen=True, slots=True)
class Delete:
    """Remove a key."""

    key: str


Operation = Put | Delete


class Driver(Protocol):
    """A store."""

    @property
    def name(self) -> str:
        """Name for people, e.g. `etcd 127.0.0.1:2379`."""
        ...

    async def connect(self) -> None:
        """Reach the store, dropping an earlier connection."""
        ...

    async def close(self) -> None:
        """Drop the connection; never raises."""
        ...

    async def grant_lease(self, ttl_s: int) -> int:
        """Return a new lease that ends `ttl_s` after its last renewal."""
        ...

    async def keep_alive(self, lease: int) -> bool:
        """Renew a lease; False when it has ended."""
        ...

    async def revoke_lease(self, lease: int) -> None:
        """End a lease now, and its keys; one that has ended already is no error."""
        ...

    async def snapshot(self, prefix: str) -> Snapshot:
        """Read all keys below `prefix`, consistent."""
        ...

    async def transact(self, conditions: Sequence[Condition], operations: Sequence[Operation]) -> bool:
        """Carry out `operations` atomically if all `conditions` hold; tell whether they did.

        At most 100 operations, each key once.
        """
        ...

    def watch(self, prefix: str, since: Snapshot) -> AsyncIterator[Batch]:
        """Changes below `prefix` after the listing `since` of it, until the connection breaks.

        Raises PositionLostError where the store cannot continue from there.
        """
        ...
