"""Where this process gets flows from: the node's store and its names log, reopened when they are replaced.

The rim between files and the pure middle. Not the reading itself (`hubble.storereader`, `hubble.names`). Used
by every service of the flow server; one per process.
"""

import logging
from pathlib import Path

from hubble.errors import StoreDamagedError, StoreMissingError
from hubble.names import NamesReader
from hubble.storereader import FlowStoreReader

logger = logging.getLogger(__name__)


class FollowedNames(NamesReader):
    """A names log that counts how often it has grown, so that what was made from it can be made anew."""

    generation = 0

    def refresh(self) -> bool:
        """Read what was added."""
        grown = super().refresh()
        self.generation += grown
        return grown


class FlowSource:
    """The store of one directory, opened when it is first there."""

    def __init__(self, directory: Path) -> None:
        """`directory` is the ingest's; it may not exist yet."""
        self._directory = directory
        self._store: FlowStoreReader | None = None
        self.names = FollowedNames(directory)

    def store(self) -> FlowStoreReader:
        """The store as it is now; StoreMissingError or StoreDamagedError while there is none to read."""
        if self._store is None or self._store.is_replaced():
            self._store = FlowStoreReader.open(self._directory)
            logger.info("flow store opened", extra={"path": str(self._store.path)})
        return self._store

    def is_ready(self) -> bool:
        """Tell whether there is a store to read."""
        try:
            self.store()
        except (StoreMissingError, StoreDamagedError):
            return False
        return True
