"""Where a gRPC server listens: a unix socket for a group, or TCP with mutual TLS.

Not the server (`palomar.rpc`) and not its certificates (`palomar.tls`). Input: an address and TLS files;
output: a port on a grpc server, and the facts for the line that says so.
"""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from palomar.errors import InvalidInputError
from palomar.paths import SOCKET_GROUP
from palomar.tls import ConnectionAge, TlsFiles, check_listener, server_credentials
from palomar.unixsocket import inode, made_for_group

logger = logging.getLogger(__name__)

UNIX = "unix:"

Options = Sequence[tuple[str, int]]


class Listener(Protocol):
    """Where a server listens."""

    @property
    def options(self) -> Options:
        """Options of the grpc server."""
        ...

    @property
    def port(self) -> int:
        """The TCP port it got, after `bind`; 0 for a unix socket."""
        ...

    @property
    def facts(self) -> Mapping[str, object]:
        """What the log says of it, after `bind`."""
        ...

    def bind(self, server: Any) -> None:
        """Add the port to the grpc server `server`. Raises InvalidInputError."""
        ...

    def close(self) -> None:
        """Remove what `bind` left in the file system."""
        ...


class UnixListener:
    """A unix socket, for those who may open it."""

    port = 0

    def __init__(
        self, socket: Path, group: str = SOCKET_GROUP, age: ConnectionAge | None = None, path: str = ""
    ) -> None:
        """`group` may use the socket besides its owner; empty for none. `age` None: for ever.

        `path` is the key or flag that named the socket.
        """
        self._socket = socket
        self._group = group
        self._path = path
        self._bound: tuple[int, int] | None = None
        self.options: Options = age.options if age is not None else ()
        self.facts: Mapping[str, object] = {"socket": str(socket)}

    def bind(self, server: Any) -> None:
        """Make the socket with its final mode from the start."""
        try:
            with made_for_group(self._socket, self._group):
                server.add_insecure_port(f"{UNIX}{self._socket}")
        except (OSError, RuntimeError) as error:
            remedy = f"cannot listen on {self._socket}: is its folder writable, its path below 108 bytes?"
            raise InvalidInputError(remedy, self._path) from error
        self._bound = inode(self._socket)

    def close(self) -> None:
        """Remove the socket, unless a server that came after made it anew."""
        if self._bound is not None and self._bound == inode(self._socket):
            self._socket.unlink(missing_ok=True)
        self._bound = None


class TcpListener:
    """TCP with mutual TLS, or in plain text on loopback where that was asked for loudly."""

    def __init__(
        self, address: str, tls: TlsFiles | None, allow_insecure: bool, age: ConnectionAge, path: str
    ) -> None:
        """`address` is `host:port`, `path` the key or flag that named it.

        Raises InvalidInputError for plain text that is not allowed.
        """
        check_listener(address, tls, allow_insecure, path)
        self._address = address
        self._tls = tls
        self._path = path
        self.options: Options = age.options
        self.port = 0

    @property
    def facts(self) -> Mapping[str, object]:
        """Address as given, port as got, and whether it is TLS."""
        return {"address": self._address, "port": self.port, "tls": self._tls is not None}

    def bind(self, server: Any) -> None:
        """Listen; every handshake looks at the certificate files as they are then."""
        try:
            if self._tls is None:
                logger.warning("SERVING PLAIN TEXT WITHOUT TLS, AS TOLD", extra={"address": self._address})
                self.port = server.add_insecure_port(self._address)
            else:
                self.port = server.add_secure_port(self._address, server_credentials(self._tls))
        except RuntimeError as error:
            raise InvalidInputError(f"cannot listen on {self._address}: is it in use?", self._path) from error

    def close(self) -> None:
        """TCP leaves nothing behind."""


def listener_of(
    address: str,
    tls: TlsFiles | None,
    allow_insecure: bool,
    age: ConnectionAge,
    path: str,
    group: str = SOCKET_GROUP,
) -> Listener:
    """Read `unix:///PATH` or `HOST:PORT`; raise InvalidInputError at `path` for TCP that is not allowed."""
    if address.startswith(UNIX):
        return UnixListener(Path(address.removeprefix(UNIX).removeprefix("//")), group, age, path)
    return TcpListener(address, tls, allow_insecure, age, path)
