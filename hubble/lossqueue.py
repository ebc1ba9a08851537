"""Losses on their way to a client: read from the store in order, told where they happened.

Not what is said of a loss (`hubble.flowfeed`). Input: the losses log of a store; output: losses up to a
position, each once.
"""

from collections import deque

from hubble.storemapping import Loss
from hubble.storereader import FlowStoreReader


class LossQueue:
    """One reader's place in the losses of a store."""

    def __init__(self, store: FlowStoreReader, number: int = 0) -> None:
        """Begin with the loss of that number."""
        self._store = store
        self._waiting: deque[Loss] = deque()
        self.next = number
        """The number of the next loss to be read."""

    @property
    def told(self) -> int:
        """The number of the next loss to be told."""
        return self.next - len(self._waiting)

    def read(self) -> None:
        """Take in what was noticed since the last time."""
        losses, self.next = self._store.losses_from(self.next)
        self._waiting.extend(losses)

    def until(self, position: int) -> list[Loss]:
        """The losses up to `position` that have not been told, oldest first."""
        told = []
        while self._waiting and self._waiting[0].position <= position:
            told.append(self._waiting.popleft())
        return told

    def skip_to(self, number: int) -> None:
        """Go on with the loss of that number: those before were told by somebody else, or need not be."""
        self._waiting.clear()
        self.next = number
