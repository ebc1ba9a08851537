"""The root of every error Palomar raises, split by what the caller must do.

Each package has an `errors.py` or its own classes below these. An error carries its facts as
attributes and a message that names the object and the remedy.
"""


class PalomarError(Exception):
    """Root of every error Palomar raises on purpose."""


class TransientError(PalomarError):
    """The same call may succeed later: retry with backoff."""


class PermanentError(PalomarError):
    """The same call will fail again: report it and stop trying."""


class NotSupportedError(PermanentError):
    """This kernel or build lacks a feature: the feature is off, tests skip."""


class InvalidInputError(PermanentError):
    """A person or a client gave something wrong. `path` names where, e.g. `spec.ingress[0].toPorts`."""

    def __init__(self, message: str, path: str = "") -> None:
        """Keep `path`; the text reads `path: message`."""
        self.path = path
        self.reason = message
        super().__init__(f"{path}: {message}" if path else message)
