"""Every identity this node knows: number to labels and back, with listeners.

Holds reserved, cluster and CIDR identities alike; who allocates them is elsewhere (`cluster` for those that
nodes share, `agent.identity.cidr` for local ones). Not thread-safe: one event loop owns it. Listeners are
told once per batch, after the cache has changed.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

from agent.identity.reserved import reserved_identities
from palomar.identity import NumericIdentity
from palomar.labels import LabelSet


@dataclass(frozen=True, slots=True)
class IdentityChange:
    """One batch; a number whose labels changed is among the added."""

    added: Mapping[NumericIdentity, LabelSet]
    removed: Mapping[NumericIdentity, LabelSet]
    """With the labels they had."""

    def __bool__(self) -> bool:
        """Tell whether anything changed."""
        return bool(self.added or self.removed)


class IdentityCache:
    """Identities by number and by labels."""

    def __init__(self) -> None:
        """Know the reserved identities."""
        self._labels: dict[NumericIdentity, LabelSet] = reserved_identities()
        self._reserved = frozenset(self._labels)
        self._numbers: dict[LabelSet, set[NumericIdentity]] = {}
        for number, labels in self._labels.items():
            self._numbers.setdefault(labels, set()).add(number)
        self._listeners: list[Callable[[IdentityChange], None]] = []

    def listen(self, changed: Callable[[IdentityChange], None]) -> None:
        """Call `changed` after every batch that changed something."""
        self._listeners.append(changed)

    def labels(self, identity: int) -> LabelSet | None:
        """Labels of a number; None where it is unknown."""
        return self._labels.get(NumericIdentity(identity))

    def number(self, labels: LabelSet) -> NumericIdentity | None:
        """Lowest number of exactly these labels; None where they have none."""
        return min(self._numbers.get(labels, ()), default=None)

    def as_mapping(self) -> Mapping[NumericIdentity, LabelSet]:
        """Every identity; a view, not to be changed."""
        return self._labels

    def __iter__(self) -> Iterator[NumericIdentity]:
        """Iterate over the numbers, ascending."""
        return iter(sorted(self._labels))

    def __len__(self) -> int:
        """Count the identities."""
        return len(self._labels)

    def update(self, added: Mapping[int, LabelSet], removed: Iterable[int] = ()) -> IdentityChange:
        """Add and remove as one batch; reserved identities stay, unknown ones to remove are no error."""
        news = {
            NumericIdentity(number): labels
            for number, labels in added.items()
            if number not in self._reserved and self._labels.get(NumericIdentity(number)) != labels
        }
        gone = {
            NumericIdentity(number): self._labels[NumericIdentity(number)]
            for number in dict.fromkeys(removed)
            if number in self._labels and number not in self._reserved and number not in added
        }
        for number in (*gone, *news):
            self._forget(number)
        for number, labels in news.items():
            self._labels[number] = labels
            self._numbers.setdefault(labels, set()).add(number)
        change = IdentityChange(news, gone)
        if change:
            for changed in self._listeners:
                changed(change)
        return change

    def _forget(self, number: NumericIdentity) -> None:
        labels = self._labels.pop(number, None)
        if labels is None:
            return
        numbers = self._numbers[labels]
        numbers.discard(number)
        if not numbers:
            del self._numbers[labels]
