"""What this node wants the store to hold: its leased keys and the identities it uses.

Pure bookkeeping: wishes in, from the agent through `cluster.shared`; what is still to be written out, to
`cluster.ownwriter`. It outlives every connection, so that a store that lost everything gets everything
back.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from cluster import keys
from cluster.backend import IdentityEntry
from cluster.driver import Stored
from cluster.keys import Kind
from palomar.identity import NumericIdentity
from palomar.labels import LabelSet

_WRITE_ORDER = {Kind.REFERENCE: 0, Kind.IP: 1, Kind.NODE: 2}
"""The node comes last: to others it says that its addresses are complete."""


@dataclass(slots=True)
class Use:
    """An identity that endpoints of this node have."""

    labels: LabelSet
    identity: NumericIdentity
    count: int = 1
    claimed: bool = False
    """The store has confirmed the number in this session."""


class OwnKeys:
    """Leased keys of this node, and which of them are not (or no more) in the store."""

    def __init__(self) -> None:
        """Start with none."""
        self.uses: dict[LabelSet, Use] = {}
        self._values: dict[str, str] = {}
        self._stored: dict[str, str] = {}
        self._dirty: set[str] = set()
        self._removed: set[str] = set()

    @property
    def pending(self) -> int:
        """Count what is still to be written, removed or claimed."""
        unclaimed = sum(not use.claimed for use in self.uses.values())
        return len(self._dirty) + len(self._removed) + unclaimed

    def keys(self) -> set[str]:
        """Every key this node answers for: the leased ones, and the numbers of its identities."""
        return set(self._values) | {keys.identity_key(use.identity) for use in self.uses.values()}

    def taken(self, labels: LabelSet, known: Iterable[IdentityEntry]) -> set[NumericIdentity]:
        """Numbers in use here, or `known`, that stand for other labels than these."""
        numbers = {entry.identity for entry in known if entry.labels != labels}
        return numbers | {use.identity for use in self.uses.values() if use.labels != labels}

    def put(self, key: str, value: str) -> None:
        """Wish for a value."""
        self._removed.discard(key)
        if self._values.get(key) != value:
            self._values[key] = value
            self._dirty.add(key)

    def remove(self, key: str) -> None:
        """Wish a key away, if it still holds what this node wrote."""
        if self._values.pop(key, None) is not None:
            self._dirty.discard(key)
            self._removed.add(key)

    def to_write(self) -> list[tuple[str, str]]:
        """Keys and values to write, nodes last."""
        return sorted(
            ((key, self._values[key]) for key in self._dirty),
            key=lambda item: (_WRITE_ORDER.get(keys.kind_of(item[0]), 0), item[0]),
        )

    def to_remove(self) -> list[tuple[str, str]]:
        """Keys to remove and the value each must still hold. Call it while no write is under way."""
        self._removed.intersection_update(self._stored)
        return [(key, self._stored[key]) for key in sorted(self._removed)]

    def written(self, key: str, value: str) -> None:
        """Note that the store has `value`."""
        self._stored[key] = value
        if self._values.get(key) == value:
            self._dirty.discard(key)

    def removed(self, key: str) -> None:
        """Note that the store has dealt with a removal."""
        if key not in self._values:
            self._removed.discard(key)
        self._stored.pop(key, None)

    def lost(self, key: str) -> None:
        """Note that the store has `key` no more."""
        self._stored.pop(key, None)
        if key in self._values:
            self._dirty.add(key)
        for use in self.uses.values():
            if keys.identity_key(use.identity) == key:
                use.claimed = False

    def compare(self, values: Mapping[str, Stored], lease: int) -> None:
        """Mark everything dirty that a complete listing lacks, or holds under another lease."""
        self._stored = {
            key: values[key].value
            for key in (*self._values, *self._removed)
            if key in values and values[key].lease == lease
        }
        self._removed.intersection_update(self._stored)
        self._dirty = {key for key, value in self._values.items() if self._stored.get(key) != value}
        for use in self.uses.values():
            stored = values.get(keys.identity_key(use.identity))
            use.claimed = stored is not None and stored.value == use.labels.canonical()
