"""The ingest's line to the agent: names come down, counters go up. JSON lines over a unix stream socket.

Never blocks: the ingest drains rings whether or not the agent is there. Input: bytes of the socket, turned
into calls of the binder and the names log by `Directory` (pure but for those two); output: one stats line a
second. When the agent (re)connects it tells everything again, then `synced`; addresses it no longer names are
forgotten then, not before. A line that cannot be understood is counted and skipped.
"""

import contextlib
import json
import logging
import select
import socket
from collections.abc import Callable
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path
from typing import Any

from hubble.binder import Binder
from hubble.names import NamesWriter, parse_endpoint, parse_labels, parse_policy
from palomar.clock import Clock
from palomar.errors import InvalidInputError

logger = logging.getLogger(__name__)

RETRY_NS = 500_000_000
MAX_LINE = 1 << 20
"""A line longer than this is not ours: the connection is dropped."""
MAX_UNSENT = 4 << 20
"""Stats the agent did not take; beyond this the connection is dropped and made again."""
_RECEIVE = 1 << 18


class Directory:
    """Takes in what the agent says, line by line."""

    def __init__(self, binder: Binder, names: NamesWriter) -> None:
        """Names go to both: the binder answers for addresses, the log is what the flow server reads."""
        self._binder = binder
        self._names = names
        self._said: set[IPv4Address | IPv6Address] | None = None
        self.synced = False
        """The agent's whole state has arrived at least once."""
        self.malformed = 0
        """Lines that could not be understood."""

    def begin(self) -> None:
        """A connection begins: what follows until `synced` is everything."""
        self._said = set()

    def take(self, line: bytes) -> None:
        """Take in one line."""
        try:
            message = json.loads(line)
            if not isinstance(message, dict):
                raise InvalidInputError("is not an object", "line")
            self._apply(message)
        except (ValueError, KeyError, TypeError, InvalidInputError) as error:
            self.malformed += 1
            if self.malformed == 1:
                logger.warning("agent line not understood", extra={"reason": str(error)})

    def _apply(self, message: dict[str, Any]) -> None:
        match message.get("op"):
            case "bind":
                ip = ip_address(message["ip"])
                self._binder.bind(ip, parse_endpoint(message["endpoint"]))
                if self._said is not None:
                    self._said.add(ip)
            case "unbind":
                self._binder.unbind(ip_address(message["ip"]))
            case "identity":
                number, labels = _number(message, "id"), parse_labels(message)
                self._binder.identity(number, labels)
                self._names.identity(number, labels)
            case "interface":
                self._names.interface(_number(message, "index"), str(message["name"]))
            case "policy":
                self._names.policy(parse_policy(message))
            case "default_deny":
                self._binder.default_deny(
                    _number(message, "endpoint_id"), _number(message, "ingress"), _number(message, "egress")
                )
            case "synced":
                self._synced()
            case other:
                raise InvalidInputError(f"{other!r} is not known", "op")

    def _synced(self) -> None:
        if self._said is not None:
            for ip in self._binder.bound() - self._said:
                self._binder.unbind(ip)
            self._said = None
        self.synced = True


def _number(message: dict[str, Any], key: str) -> int:
    value = message[key]
    if not isinstance(value, int) or not 0 <= value < 1 << 32:
        raise InvalidInputError(f"{value!r} is not a number", key)
    return value


class AgentLink:
    """The socket: connects, connects again, reads lines, writes lines; never waits."""

    def __init__(self, path: Path, directory: Directory, epoll: select.epoll, clock: Clock) -> None:
        """`epoll` gets the socket while there is one."""
        self._path = path
        self._directory = directory
        self._epoll = epoll
        self._clock = clock
        self._socket: socket.socket | None = None
        self._received = bytearray()
        self._unsent = bytearray()
        self._retry_at_ns = 0

    @property
    def connected(self) -> bool:
        """Tell whether there is a connection now."""
        return self._socket is not None

    def poll(self) -> None:
        """Connect where needed and due, and take in all that has arrived."""
        if self._socket is None:
            self._connect()
        if self._socket is not None:
            self._receive(self._socket)

    def _connect(self) -> None:
        now_ns = self._clock.monotonic_ns()
        if now_ns < self._retry_at_ns:
            return
        self._retry_at_ns = now_ns + RETRY_NS
        link = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            link.connect(str(self._path))
        except OSError:
            link.close()
            return
        self._socket = link
        self._received.clear()
        self._unsent.clear()
        self._epoll.register(link.fileno(), select.EPOLLIN)
        self._directory.begin()
        logger.info("connected to the agent", extra={"socket": str(self._path)})

    def _receive(self, link: socket.socket) -> None:
        while True:
            try:
                data = link.recv(_RECEIVE)
            except BlockingIOError:
                return
            except OSError as error:
                self._drop(error.strerror or str(error))
                return
            if not data:
                self._drop("closed by the agent")
                return
            self._received += data
            *lines, rest = self._received.split(b"\n")
            self._received = rest
            for line in lines:
                self._directory.take(bytes(line))
            if len(rest) > MAX_LINE:
                self._drop("line too long")
                return

    def send(self, message: dict[str, Any]) -> None:
        """Send a line, or as much of it as goes now; without a connection it is dropped."""
        if self._socket is None:
            return
        self._unsent += json.dumps(message, separators=(",", ":")).encode() + b"\n"
        self._flush(self._socket)
        if len(self._unsent) > MAX_UNSENT:
            self._drop("the agent does not read")

    def _flush(self, link: socket.socket) -> None:
        try:
            while self._unsent:
                del self._unsent[: link.send(self._unsent)]
        except BlockingIOError:
            return
        except OSError as error:
            self._drop(error.strerror or str(error))

    def finish(self, timeout_s: float, wait: Callable[[socket.socket, float], bool]) -> None:
        """Send what is unsent, waiting for room at most `timeout_s` at a time, and close."""
        while self._socket is not None and self._unsent and wait(self._socket, timeout_s):
            self._flush(self._socket)
        self._drop("")

    def _drop(self, reason: str) -> None:
        if self._socket is None:
            return
        with contextlib.suppress(OSError):
            self._epoll.unregister(self._socket.fileno())
        self._socket.close()
        self._socket = None
        if reason:
            logger.info("agent connection lost", extra={"reason": reason})
