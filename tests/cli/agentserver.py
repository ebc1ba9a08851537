"""A small real HTTP server on a unix socket for tests of commands that ask the agent.

Standard library: answers from a table of (method, path), remembers requests with their bodies.
"""

import contextlib
import http.server
import json
import socketserver
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any


class AgentServer:
    """`answers[(method, path)] = (status, json)`; anything else is 404 with a JSON string."""

    def __init__(self) -> None:
        self.answers: dict[tuple[str, str], tuple[int, Any]] = {}
        self.requests: list[tuple[str, str, str]] = []


class _UnixServer(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True


@contextlib.contextmanager
def serving(agent: AgentServer, path: Path) -> Iterator[None]:
    """Serve `agent` on the socket `path` while the block runs."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def _answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode()
            agent.requests.append((self.command, self.path, body))
            missing = (404, f"{self.path}: no such thing")
            status, content = agent.answers.get((self.command, self.path), missing)
            data = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_PUT = do_DELETE = _answer  # noqa: N815  # the standard library's names

        def log_message(self, format: str, *args: Any) -> None:
            """Stay quiet."""

    with _UnixServer(str(path), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield
        finally:
            server.shutdown()
            thread.join(5)
