"""The TCP store: counters by name, one command a line (`incr NAME`, `get NAME`).

Run as `python -m lab.app.store --port 6379`.
"""

import argparse
import socketserver
import threading
from collections import Counter


class Store(socketserver.ThreadingTCPServer):
    """Keeps the counters in memory."""

    allow_reuse_address = True
    daemon_threads = True

    def __init__(self, port: int) -> None:
        """Listen on every address of this namespace."""
        self.counters: Counter[str] = Counter()
        self.lock = threading.Lock()
        super().__init__(("0.0.0.0", port), Session)  # noqa: S104 - a pod's own namespace

    def command(self, line: str) -> str:
        """Carry one command out."""
        verb, _, name = line.strip().partition(" ")
        with self.lock:
            if verb == "incr":
                self.counters[name] += 1
            elif verb != "get":
                return f"error: {verb!r} is neither incr nor get"
            return str(self.counters[name])


class Session(socketserver.StreamRequestHandler):
    """One client."""

    server: Store

    def handle(self) -> None:
        """Answer line by line until the client closes."""
        for line in self.rfile:
            self.wfile.write(f"{self.server.command(line.decode())}\n".encode())


def main() -> None:
    """Serve until killed."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, default=6379)
    Store(parser.parse_args().port).serve_forever()


if __name__ == "__main__":
    main()
