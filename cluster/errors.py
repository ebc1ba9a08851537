"""Errors of the shared state, split by what the caller must do.

`BackendUnavailableError` means go on with what is known and try again; the others name what is wrong.
"""

from palomar.errors import PermanentError, TransientError


class BackendUnavailableError(TransientError):
    """The store does not answer. Everything known stays valid; the backend retries by itself."""

    def __init__(self, backend: str, operation: str, reason: str) -> None:
        """Name the store, what was tried and why it failed."""
        self.backend = backend
        self.operation = operation
        self.reason = reason
        super().__init__(f"{backend}: {operation}: {reason}: check that the store runs and is reachable")


class PositionLostError(BackendUnavailableError):
    """A watch cannot continue from where it was (compacted, replaced store): list again."""


class IdentityExhaustedError(PermanentError):
    """Every cluster identity number is taken."""

    def __init__(self, labels: str) -> None:
        """Name the labels that got no number."""
        self.labels = labels
        super().__init__(
            f"no free identity number for {labels!r}: remove unused keys below cilium/state/identities/v1/id/"
        )


class MalformedEntryError(PermanentError):
    """A stored value does not follow its format; the entry is skipped and counted."""

    def __init__(self, key: str, reason: str) -> None:
        """Name the key and what is wrong with its value."""
        self.key = key
        self.reason = reason
        super().__init__(f"{key}: {reason}: the entry is ignored")
