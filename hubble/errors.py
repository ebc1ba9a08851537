"""What can go wrong in the flow server and the ingest, split by what the caller must do.

Damage in the flow store is not among the writer's errors: it sets the file aside and goes on. Garbage in
the event stream is counted, never raised.
"""

from pathlib import Path

from palomar.errors import PalomarError, PermanentError, TransientError


class HubbleError(PalomarError):
    """Root of this package's errors."""


class StoreMissingError(HubbleError, TransientError):
    """There is no flow store yet: the ingest has not started on this node."""

    def __init__(self, path: Path) -> None:
        """Keep where it should be."""
        self.path = path
        super().__init__(f"no flow store at {path}: is the ingest running with this state directory?")


class StoreDamagedError(HubbleError, PermanentError):
    """The flow store cannot be trusted; the next ingest sets it aside and starts a new one."""

    def __init__(self, path: Path, reason: str) -> None:
        """Keep the file and what is wrong with it."""
        self.path = path
        self.reason = reason
        super().__init__(f"flow store {path}: {reason}")


class StoreBusyError(HubbleError, TransientError):
    """Another ingest writes to this flow store."""

    def __init__(self, path: Path) -> None:
        """Keep the lock file."""
        self.path = path
        super().__init__(f"another process writes to the flow store (lock {path}): stop it or wait")


class StoreSpaceError(HubbleError, TransientError):
    """The disk has no room for the flow store."""

    def __init__(self, path: Path, size: int, reason: str) -> None:
        """Keep the file, its full size in bytes and the system's words."""
        self.path = path
        self.size = size
        super().__init__(
            f"flow store {path} needs {size >> 20} MiB: {reason}: "
            "free space or lower hubble-event-buffer-capacity"
        )


class IngestConfigError(HubbleError, PermanentError):
    """The configuration handed to the ingest process is unusable; it names the key."""
