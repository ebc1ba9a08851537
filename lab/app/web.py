"""The web front end: answers HTTP and asks the API behind it for every page.

Run as `python -m lab.app.web --port 8080 --api http://api.shop:8080`.
"""

import argparse
import urllib.error
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

API_TIMEOUT_S = 2.0


def handler(api: str) -> type[BaseHTTPRequestHandler]:
    """Make the request handler that asks `api` (a base URL)."""

    class WebHandler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            try:
                with urllib.request.urlopen(f"{api}/items", timeout=API_TIMEOUT_S) as answer:  # noqa: S310 - our own API
                    status, body = 200, b"items: " + answer.read()
            except (urllib.error.URLError, TimeoutError, ConnectionError) as error:
                status, body = 502, f"the API does not answer: {error}\n".encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Stay quiet: flows are seen in the network."""

    return WebHandler


def main() -> None:
    """Serve until killed."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, default=8080)
    parser.add_argument("--api", required=True)
    options = parser.parse_args()
    ThreadingHTTPServer(("0.0.0.0", options.port), handler(options.api)).serve_forever()  # noqa: S104 - a pod's own namespace


if __name__ == "__main__":
    main()
