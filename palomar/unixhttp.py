"""A small blocking HTTP client over a unix socket: how commands and the lab talk to an agent.

Standard library only, so that a command starts fast. Not for event loops.
"""

import http.client
import json
import socket
from pathlib import Path
from typing import Any

from palomar.errors import PermanentError, TransientError


class AgentUnreachableError(TransientError):
    """Nothing answers on the agent's socket."""

    def __init__(self, path: Path, error: OSError) -> None:
        """Name the socket, the cause and the remedy."""
        self.path = path
        self.errno = error.errno
        remedy = (
            "run as root or join the socket's group"
            if isinstance(error, PermissionError)
            else "start it with `palomar agent`, or name its run directory with --run-dir"
        )
        super().__init__(f"agent does not answer on {path}: {error.strerror or error}: {remedy}")


class ApiError(PermanentError):
    """The agent answered with an error."""

    def __init__(self, method: str, path: str, status: int, reason: str) -> None:
        """Keep the HTTP status (400 bad input, 404 unknown, 409 conflict, 5xx) and the agent's words."""
        self.status = status
        self.reason = reason
        super().__init__(reason or f"{method} {path}: status {status}")


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path, timeout_s: float) -> None:
        super().__init__("localhost", timeout=timeout_s)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        try:
            self.sock.connect(str(self._path))
        except OSError:
            self.sock.close()
            raise


class UnixHttpClient:
    """Requests to one unix socket; every call opens and closes its own connection."""

    def __init__(self, path: Path, timeout_s: float = 30.0) -> None:
        """`path` is the socket; `timeout_s` bounds every wait on it."""
        self.path = path
        self.timeout_s = timeout_s

    def request(self, method: str, path: str, body: object = None) -> Any:
        """Send `body` (text as it is, anything else as JSON) and return the decoded answer.

        JSON answers are decoded, others returned as text. Raises AgentUnreachableError, ApiError.
        """
        data, headers = _encode(body)
        connection = _UnixConnection(self.path, self.timeout_s)
        try:
            connection.request(method, path, body=data, headers=headers)
            response = connection.getresponse()
            text = response.read().decode()
            kind = response.getheader("Content-Type", "")
        except OSError as error:
            raise AgentUnreachableError(self.path, error) from error
        finally:
            connection.close()
        content = json.loads(text) if "json" in kind and text else text
        if response.status >= 400:
            reason = content if isinstance(content, str) else json.dumps(content)
            raise ApiError(method, path, response.status, reason)
        return content


def _encode(body: object) -> tuple[bytes | None, dict[str, str]]:
    if body is None:
        return None, {}
    if isinstance(body, str):
        return body.encode(), {"Content-Type": "text/plain; charset=utf-8"}
    return json.dumps(body).encode(), {"Content-Type": "application/json"}
