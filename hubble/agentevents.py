"""The agent's own events: a log of JSON lines that the agent appends to and this module reads and follows.

One line is an object with `time_ns` (wall clock) and the fields of flow.AgentEvent in protobuf's JSON.
The agent keeps the log bounded: it renames a full one to `agent-events.log.1` and starts again. A line
that cannot be understood is counted and skipped. Served by `hubble.observer`; written by the agent, never
here.
"""

import json
import logging
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from google.protobuf import json_format

from palomar_pb.flow import flow_pb2

logger = logging.getLogger(__name__)

LOG_NAME = "agent-events.log"


@dataclass(frozen=True, slots=True)
class LoggedEvent:
    """An agent event and when it happened."""

    time_ns: int
    event: flow_pb2.AgentEvent


def parse_line(line: bytes) -> LoggedEvent | None:
    """Read one line of the log; None for what is not an agent event."""
    try:
        entry = json.loads(line)
        if not isinstance(entry, dict):
            return None
        time_ns = int(entry.pop("time_ns"))
        return LoggedEvent(time_ns, json_format.ParseDict(entry, flow_pb2.AgentEvent()))
    except (ValueError, KeyError, TypeError, json_format.ParseError):
        return None


def select(
    events: Iterable[LoggedEvent], number: int, first: bool, since_ns: int, until_ns: int
) -> list[LoggedEvent]:
    """Events of the time range: the oldest or newest `number` of them, all for 0; oldest first."""
    chosen = [event for event in events if since_ns <= event.time_ns <= until_ns]
    if not number:
        return chosen
    return chosen[:number] if first else chosen[-number:]


class AgentEventLog:
    """Reads the log from its beginning, then what is added; one per client."""

    def __init__(self, directory: Path) -> None:
        """`directory` holds the log; it may not exist yet."""
        self._path = directory / LOG_NAME
        self._inode = 0
        self._offset = 0
        self.malformed = 0
        """Lines skipped."""

    def read(self) -> list[LoggedEvent]:
        """Events added since the last call; at first everything, the rotated log included."""
        events = [parse_line(line) for line in self._new_lines()]
        skipped = events.count(None)
        if skipped:
            self.malformed += skipped
            logger.warning("agent event log has lines that are not events", extra={"lines": skipped})
        return [event for event in events if event is not None]

    def _new_lines(self) -> list[bytes]:
        lines: list[bytes] = []
        try:
            file = self._path.open("rb")
        except FileNotFoundError:
            return lines
        with file:
            status = os.fstat(file.fileno())
            if status.st_ino != self._inode:
                lines += self._rotated_lines()
                self._inode, self._offset = status.st_ino, 0
            elif status.st_size < self._offset:
                self._offset = 0
            file.seek(self._offset)
            data = file.read()
        whole = data[: data.rfind(b"\n") + 1]
        self._offset += len(whole)
        return lines + whole.splitlines()

    def _rotated_lines(self) -> list[bytes]:
        """What the renamed log holds beyond what was read of it before."""
        try:
            file = self._path.with_name(LOG_NAME + ".1").open("rb")
        except FileNotFoundError:
            return []
        with file:
            if os.fstat(file.fileno()).st_ino == self._inode:
                file.seek(self._offset)
            return file.read().splitlines()
