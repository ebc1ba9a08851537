"""What a command may report: every error here becomes one line on standard error and an exit status.

Not a traceback: anything that is not a PalomarError is a bug and shows itself as one.
"""

from palomar.errors import InvalidInputError, PalomarError, TransientError


class UsageError(InvalidInputError):
    """A flag or argument that cannot be meant; the message names it and what is accepted."""


class ServerUnreachableError(TransientError):
    """No flow server or relay answers at the target; the message names the remedy."""

    def __init__(self, target: str, cause: str, remedy: str) -> None:
        """Keep `target` (as the person wrote it) and `cause`."""
        self.target = target
        self.cause = cause
        super().__init__(f"flow server does not answer on {target}: {cause}: {remedy}")


class CallError(PalomarError):
    """A flow server answered a call with an error."""

    def __init__(self, target: str, code: str, details: str) -> None:
        """Keep the gRPC status `code` by name."""
        self.target = target
        self.code = code
        super().__init__(f"{target}: {details or 'no details'} ({code})")
