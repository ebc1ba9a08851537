"""Identities on this node: which labels count, numbers from the cluster, and everything the cluster knows.

Joins the pure parts (`agent.identity`) with the shared state (`cluster.backend.Backend`). Input: labels of
endpoints, identity events of the cluster. Output: numbers to the endpoint manager, all identities to the
cache that policy resolution hears. An identity used here stays known whatever the store says.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable

from agent.identity.cache import IdentityCache
from agent.identity.labelfilter import LabelFilter
from agent.identity.reserved import reserved_labels
from cluster.backend import Backend, Deleted, Upserted
from palomar.identity import NumericIdentity, Reserved
from palomar.labels import LabelSet
from palomar.tasks import spawn

logger = logging.getLogger(__name__)

Moved = Callable[[LabelSet, NumericIdentity], Awaitable[None]]
"""Called with labels used here and their new number."""


class NodeIdentities:
    """See the module's text. One event loop owns it."""

    def __init__(self, backend: Backend, cache: IdentityCache, label_filter: LabelFilter) -> None:
        """Nothing is followed before `start`."""
        self.cache = cache
        self.moved: Moved | None = None
        self._backend = backend
        self._filter = label_filter
        self._used: Counter[LabelSet] = Counter()
        self._numbers: dict[LabelSet, NumericIdentity] = {}
        self._task: asyncio.Task[None] | None = None
        backend.on_identity_moved(self._identity_moved)

    def security_relevant(self, labels: LabelSet) -> LabelSet:
        """Return the labels that make the identity; those of `init` where none of them counts."""
        relevant, _ = self._filter.split(labels)
        return relevant if len(relevant) else reserved_labels(Reserved.INIT)

    async def acquire(self, labels: LabelSet, preferred: int | None = None) -> NumericIdentity:
        """Return the number of security-relevant labels and count one use.

        Reserved labels have theirs without the store. Raises BackendUnavailableError,
        IdentityExhaustedError.
        """
        if labels.has_source("reserved"):
            number = self.cache.number(labels)
            if number is not None:
                return number
        identity = await self._backend.allocate_identity(labels, preferred)
        self._used[labels] += 1
        self._numbers[labels] = identity
        self.cache.update({identity: labels})
        return identity

    def release(self, labels: LabelSet) -> None:
        """Count one use less; unknown labels are no error."""
        if not self._used[labels]:
            return
        self._used[labels] -= 1
        self._backend.release_identity(labels)
        if not self._used[labels]:
            del self._used[labels], self._numbers[labels]

    async def start(self) -> None:
        """Begin to follow the cluster's identities."""
        if self._task is None:
            self.refresh()
            self._task = spawn(self._follow(), "follow identities")

    def refresh(self) -> None:
        """Learn every identity the backend knows now, ahead of its events."""
        self.cache.update({number: entry.labels for number, entry in self._backend.identities().items()})

    async def stop(self) -> None:
        """Stop following; what is known stays."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
            self._task = None

    async def _follow(self) -> None:
        async for event in self._backend.watch_identities():
            if isinstance(event, Upserted):
                self.cache.update({event.entry.identity: event.entry.labels})
            elif isinstance(event, Deleted):
                entry = event.entry
                if self._numbers.get(entry.labels) != entry.identity:
                    self.cache.update({}, [entry.identity])

    def _identity_moved(self, labels: LabelSet, old: NumericIdentity, new: NumericIdentity) -> None:
        if labels not in self._numbers:
            return
        logger.warning("identity number replaced", extra={"old": old, "new": new, "labels": str(labels)})
        self._numbers[labels] = new
        # Known before any packet carries it; the old one goes with its last packet's endpoint.
        self.cache.update({new: labels})
        if self.moved is not None:
            spawn(self._tell_moved(self.moved, labels, old, new), "identity moved")

    async def _tell_moved(
        self, moved: Moved, labels: LabelSet, old: NumericIdentity, new: NumericIdentity
    ) -> None:
        await moved(labels, new)
        if self.cache.labels(old) == labels:
            self.cache.update({}, [old])
