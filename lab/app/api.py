"""The API: answers HTTP with what the TCP store holds.

Run as `python -m lab.app.api --port 8080 --store store.shop:6379`.
"""

import argparse
import socket
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

STORE_TIMEOUT_S = 2.0


def ask_store(host: str, port: int, command: str) -> str:
    """Send one line to the store and return its line."""
    with socket.create_connection((host, port), timeout=STORE_TIMEOUT_S) as connection:
        connection.sendall(f"{command}\n".encode())
        return connection.makefile().readline()


def handler(store: str) -> type[BaseHTTPRequestHandler]:
    """Make the request handler that asks `store` (host:port)."""
    host, _, port = store.rpartition(":")

    class ApiHandler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            try:
                status, body = 200, ask_store(host, int(port), "incr visits").encode()
            except OSError as error:
                status, body = 503, f"the store does not answer: {error}\n".encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Stay quiet: flows are seen in the network."""

    return ApiHandler


def main() -> None:
    """Serve until killed."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, default=8080)
    parser.add_argument("--store", required=True)
    options = parser.parse_args()
    ThreadingHTTPServer(("0.0.0.0", options.port), handler(options.store)).serve_forever()  # noqa: S104 - a pod's own namespace


if __name__ == "__main__":
    main()
