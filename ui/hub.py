"""The one meeting point of the stream thread and the page's callbacks: model, link state, and their lock."""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum

from palomar.certwatch import Expiry
from ui.model import Model


class LinkPhase(Enum):
    """How the stream to the flow server is."""

    CONNECTING = "connecting"
    CONNECTED = "connected"
    BROKEN = "broken"


@dataclass(frozen=True, slots=True)
class Link:
    """State of the stream, in facts; the page makes sentences of it."""

    phase: LinkPhase
    server: str
    """As the person wrote it."""
    since_ns: int
    """Wall clock of the last change of phase."""
    reason: str = ""
    """Why it broke."""
    attempts: int = 0
    """Failed ones in a row."""
    retry_at_ns: int = 0
    batched: bool = True
    """Whether the server speaks our batched stream."""
    reconnects: int = 0
    """Times it was lost after it had worked."""


class Hub:
    """Model and link behind one lock. Hold the lock for milliseconds: the stream waits meanwhile."""

    def __init__(self, server: str, now_ns: int) -> None:
        """Nothing known of `server` yet."""
        self._lock = threading.Lock()
        self._model = Model()
        self._link = Link(LinkPhase.CONNECTING, server, now_ns)
        self.expiries: Sequence[Expiry] = ()
        """Of the certificates this process shows and checks others by; one writer replaces it."""

    @contextmanager
    def locked(self) -> Iterator[Model]:
        """Lend out the model."""
        with self._lock:
            yield self._model

    @property
    def link(self) -> Link:
        """State of the stream."""
        return self._link

    def set_link(self, link: Link) -> None:
        """Replace the state; one writer, the stream thread."""
        self._link = link
