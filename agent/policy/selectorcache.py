"""Which identities each selector in use selects, kept current as identities come and go.

Not thread-safe: one event loop owns it. Input: selectors from the repository, identities from the identity
cache; output: the cached selectors whose selections changed, so that only the policies that use them are
resolved again.
"""

from collections.abc import Iterable, Mapping

from agent.policy.mapstate import ANY_IDENTITY
from agent.policy.selector import Selector
from palomar.labels import LabelSet

_ANY = frozenset({ANY_IDENTITY})


class CachedSelector:
    """A selector in use, with the numeric identities it selects now. Compared by identity."""

    __slots__ = ("identities", "selector", "users")

    def __init__(self, selector: Selector, identities: frozenset[int]) -> None:
        """Begin without users; the wildcard's identities are always {0}."""
        self.selector = selector
        self.identities = identities
        self.users = 0


class SelectorCache:
    """Selectors by value, shared by every rule that writes the same one."""

    def __init__(self, identities: Mapping[int, LabelSet] | None = None) -> None:
        """Know `identities` from the start."""
        self._identities = dict(identities or {})
        self._selectors: dict[Selector, CachedSelector] = {}

    @property
    def identities(self) -> Mapping[int, LabelSet]:
        """Every identity known."""
        return self._identities

    def selectors(self) -> list[CachedSelector]:
        """Every selector in use."""
        return list(self._selectors.values())

    def acquire(self, selector: Selector) -> CachedSelector:
        """Take a selector into use; O(identities) the first time. Pair with `release`."""
        cached = self._selectors.get(selector)
        if cached is None:
            cached = CachedSelector(selector, self.selections(selector))
            self._selectors[selector] = cached
        cached.users += 1
        return cached

    def release(self, cached: CachedSelector) -> None:
        """Give a selector back; it is forgotten with its last user."""
        cached.users -= 1
        if cached.users == 0:
            del self._selectors[cached.selector]

    def selections(self, selector: Selector) -> frozenset[int]:
        """Identities that `selector` selects now, whether it is in use or not."""
        if selector.is_wildcard:
            return _ANY
        return frozenset(
            identity for identity, labels in self._identities.items() if selector.matches(labels)
        )

    def update(self, added: Mapping[int, LabelSet], removed: Iterable[int] = ()) -> frozenset[CachedSelector]:
        """Learn and forget identities; return the selectors whose selections changed.

        Adding a known identity with other labels moves it. Removing an unknown one is no error.
        """
        gone = frozenset(removed).intersection(self._identities) - added.keys()
        news = {
            identity: labels for identity, labels in added.items() if self._identities.get(identity) != labels
        }
        for identity in gone:
            del self._identities[identity]
        self._identities.update(news)
        if not gone and not news:
            return frozenset()
        stale = gone | news.keys()
        changed = set()
        for cached in self._selectors.values():
            if cached.selector.is_wildcard:
                continue
            matching = {identity for identity, labels in news.items() if cached.selector.matches(labels)}
            identities = (cached.identities - stale) | matching
            if identities != cached.identities:
                cached.identities = identities
                changed.add(cached)
        return frozenset(changed)
