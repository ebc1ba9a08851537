"""Why an export did not happen, split by what the exporter must do."""

from hubble.errors import HubbleError
from palomar.errors import PermanentError, TransientError


class ExportFailedError(HubbleError, TransientError):
    """The collector cannot take it now: the same request may succeed later."""

    def __init__(self, kind: str, message: str, retry_after_s: float = 0.0) -> None:
        """Keep the kind (`unavailable`, `timeout`, ...), a bounded set of words for metrics, and the wish."""
        self.kind = kind
        self.retry_after_s = retry_after_s
        super().__init__(message)


class ExportRefusedError(HubbleError, PermanentError):
    """The collector will not take this request, or is none: sending it again is useless."""

    def __init__(self, message: str) -> None:
        """Keep the answer."""
        super().__init__(message)
