"""A client: calls one target again and again and says how it went.

Run as `python -m lab.app.caller http://web.shop:8080/ --every 1`, or with `tcp://host:port`.
Names are looked up by DNS at every call, as clients do.
"""

import argparse
import socket
import sys
import time
import urllib.error
import urllib.parse
import urllib.request

CALL_TIMEOUT_S = 1.5


def call(target: str) -> str:
    """Call `target` once and return `ok` or what went wrong."""
    try:
        if target.startswith("tcp://"):
            parts = urllib.parse.urlsplit(target)
            with socket.create_connection((parts.hostname, parts.port), timeout=CALL_TIMEOUT_S):
                return "ok"
        with urllib.request.urlopen(target, timeout=CALL_TIMEOUT_S) as answer:  # noqa: S310 - a lab address
            answer.read()
            return "ok"
    except (urllib.error.URLError, OSError) as error:
        return str(error)


def main() -> None:
    """Call until killed; one line whenever the outcome changes."""
    parser = argparse.ArgumentParser()
    parser.add_argument("target", nargs="+")
    parser.add_argument("--every", type=float, default=1.0, help="seconds between rounds")
    options = parser.parse_args()
    last: dict[str, str] = {}
    while True:
        for target in options.target:
            outcome = call(target)
            if last.get(target) != outcome:
                last[target] = outcome
                print(f"{target}: {outcome}", flush=True)
                sys.stdout.flush()
        time.sleep(options.every)


if __name__ == "__main__":
    main()
