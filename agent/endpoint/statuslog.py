"""What happened to an endpoint: its last state changes, for `palomar endpoint log`. In memory only."""

from collections import deque
from dataclasses import dataclass

from palomar.clock import Clock

CAPACITY = 128


@dataclass(frozen=True, slots=True)
class StatusChange:
    """One line of the log."""

    time_ns: int
    """Wall clock."""
    ok: bool
    state: str
    message: str


class StatusLog:
    """The newest CAPACITY changes; older ones go."""

    def __init__(self, clock: Clock) -> None:
        """Take the times from `clock`."""
        self._clock = clock
        self._changes: deque[StatusChange] = deque(maxlen=CAPACITY)

    def add(self, state: str, message: str, *, ok: bool = True) -> None:
        """Note a change."""
        self._changes.append(StatusChange(self._clock.wall_ns(), ok, str(state), message))

    def newest_first(self) -> list[StatusChange]:
        """Return every change kept."""
        return list(reversed(self._changes))
