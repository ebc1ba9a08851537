"""Allocation of cluster identities: the same number for the same labels on every node, also in a race.

One transaction decides. A node takes a number that another node refers to while that reference stands;
otherwise, only if no node refers to the labels at all, it takes the number they had before, the one its
endpoint had before a restart, or a random free one, and writes master key and reference together. Of
two nodes that try at once the second finds the first one's reference and takes its number.
Input: labels from `cluster.shared`. Output: keys in the store, through a driver.
"""

import random
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from cluster import keys
from cluster.backend import IpAddress
from cluster.driver import Absent, Condition, Delete, Driver, Equals, PrefixAbsent, Put, Stored
from cluster.errors import BackendUnavailableError, IdentityExhaustedError, MalformedEntryError
from palomar.identity import MAX_CLUSTER_IDENTITY, MIN_CLUSTER_IDENTITY, NumericIdentity
from palomar.labels import LabelSet

MAX_ATTEMPTS = 64
"""Each lost attempt means that another node made progress; this many in a row is a broken store."""


@dataclass(frozen=True, slots=True)
class Allocator:
    """Allocates for one node under one lease."""

    driver: Driver
    node_ip: IpAddress
    lease: int
    rng: random.Random

    async def allocate(
        self,
        labels: LabelSet,
        wanted: Sequence[int],
        taken: Collection[NumericIdentity],
    ) -> NumericIdentity:
        """Return the number of `labels`, with master key and this node's reference in the store.

        `wanted` are numbers to try first, in order; `taken` those known to belong to others.
        Raises BackendUnavailableError and IdentityExhaustedError.
        """
        candidates = [
            number for number in dict.fromkeys(wanted) if is_cluster_identity(number) and number not in taken
        ]
        refused: set[int] = set()
        for _ in range(MAX_ATTEMPTS):
            references = await self._references(labels)
            if references:
                number = self._choose(references, candidates)
                if await self._join(labels, number, references):
                    return number
                continue
            number = (
                NumericIdentity(candidates.pop(0)) if candidates else self._free(labels, set(taken) | refused)
            )
            if await self._found(labels, number):
                return number
            refused.add(number)
        raise BackendUnavailableError(self.driver.name, "allocate identity", f"{MAX_ATTEMPTS} attempts lost")

    async def claim(self, labels: LabelSet, number: NumericIdentity) -> bool:
        """Write the master key of a number in use; False when it belongs to other labels."""
        key, text = keys.identity_key(number), labels.canonical()
        return await self.driver.transact([Absent(key)], [Put(key, text)]) or await self.driver.transact(
            [Equals(key, text)], []
        )

    async def _references(self, labels: LabelSet) -> dict[str, NumericIdentity]:
        snapshot = await self.driver.snapshot(keys.reference_prefix(labels))
        found = {}
        for key, stored in snapshot.values.items():
            number = _read(key, stored)
            if number is not None:
                found[key] = number
        return found

    def _choose(self, references: dict[str, NumericIdentity], candidates: Sequence[int]) -> NumericIdentity:
        numbers = set(references.values())
        for number in candidates:
            if number in numbers:
                return NumericIdentity(number)
        return min(numbers)

    async def _join(
        self, labels: LabelSet, number: NumericIdentity, references: dict[str, NumericIdentity]
    ) -> bool:
        """Refer to a number that another node refers to, while it does."""
        key = next(key for key, found in references.items() if found == number)
        if not await self.claim(labels, number):
            # The reference contradicts its master key: it is wrong, and would mislead every node.
            await self.driver.transact([Equals(key, str(number))], [Delete(key)])
            return False
        own = keys.reference_key(labels, self.node_ip)
        return await self.driver.transact([Equals(key, str(number))], [Put(own, str(number), self.lease)])

    async def _found(self, labels: LabelSet, number: NumericIdentity) -> bool:
        """Be the first to refer to `labels`, under a number that is free or was theirs."""
        key, text = keys.identity_key(number), labels.canonical()
        nobody: Condition = PrefixAbsent(keys.reference_prefix(labels))
        reference = Put(keys.reference_key(labels, self.node_ip), str(number), self.lease)
        return await self.driver.transact(
            [nobody, Absent(key)], [Put(key, text), reference]
        ) or await self.driver.transact([nobody, Equals(key, text)], [reference])

    def _free(self, labels: LabelSet, taken: Collection[int]) -> NumericIdentity:
        free = [
            number for number in range(MIN_CLUSTER_IDENTITY, MAX_CLUSTER_IDENTITY + 1) if number not in taken
        ]
        if not free:
            raise IdentityExhaustedError(labels.canonical())
        return NumericIdentity(self.rng.choice(free))


def is_cluster_identity(number: int) -> bool:
    """Tell whether `number` may be allocated in the cluster."""
    return MIN_CLUSTER_IDENTITY <= number <= MAX_CLUSTER_IDENTITY


def _read(key: str, stored: Stored) -> NumericIdentity | None:
    try:
        number = keys.decode_reference(key, stored.value)
    except MalformedEntryError:
        return None
    return number if is_cluster_identity(number) else None
