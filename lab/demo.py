"""`make demo`: a lab with its application, a live flow table of all nodes, then everything removed.

Ends after DEMO_SECONDS (environment), or at Ctrl-C. Exit status 0 when flows were forwarded and
dropped and everything was taken away again.
"""

import contextlib
import os
import select
import signal
import subprocess
import sys
from types import FrameType

from lab.cluster import LabCluster
from lab.process import palomar, python_path
from lab.spec import LabSpec
from palomar.clock import Clock, SystemClock
from palomar.errors import InvalidInputError, PalomarError

LAB_NAME = "demo"
NODES = 3
POLL_S = 0.2


def seconds_to_run(text: str | None) -> float | None:
    """Read DEMO_SECONDS; None (run until Ctrl-C) when it is unset or empty."""
    if not text:
        return None
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if seconds <= 0:
        raise InvalidInputError(f"DEMO_SECONDS={text!r}: give a positive number of seconds")
    return seconds


class FlowTable:
    """Every node's `palomar observe --follow`, their lines on one screen."""

    def __init__(self, lab: LabCluster) -> None:
        """Start one observer a node."""
        self.forwarded = 0
        self.dropped = 0
        colour = "always" if sys.stdout.isatty() else "never"
        self._processes = [
            subprocess.Popen(
                [
                    *palomar("observe", "--follow", "--print-node-name", "--print-policy-names"),
                    "--color",
                    colour,
                    "--server",
                    f"unix://{node.paths.hubble_socket}",
                ],
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env={**os.environ, "PYTHONPATH": python_path(), "PYTHONUNBUFFERED": "1"},
            )
            for node in lab.spec.nodes
        ]

    def show_for(self, seconds: float | None, clock: Clock) -> None:
        """Print lines as they come until `seconds` have passed (None: until interrupted)."""
        streams = [process.stdout for process in self._processes if process.stdout is not None]
        deadline_ns = None if seconds is None else clock.monotonic_ns() + int(seconds * 1e9)
        while streams and (deadline_ns is None or clock.monotonic_ns() < deadline_ns):
            ready, _, _ = select.select(streams, [], [], POLL_S)
            for stream in ready:
                data = os.read(stream.fileno(), 65536).decode(errors="replace")
                if not data:
                    streams.remove(stream)
                    continue
                self.forwarded += data.count(" FORWARDED") + data.count(" ALLOWED")
                self.dropped += data.count(" DROPPED") + data.count(" DENIED")
                sys.stdout.write(data)
                sys.stdout.flush()

    def close(self) -> None:
        """End the observers."""
        for process in self._processes:
            process.terminate()
        for process in self._processes:
            process.wait(timeout=10)
            if process.stdout is not None:
                process.stdout.close()


def _interrupt(_signal: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def main() -> int:
    """Run the demo and return the exit status."""
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        seconds = seconds_to_run(os.environ.get("DEMO_SECONDS"))
        lab = LabCluster(LabSpec.build(LAB_NAME, NODES), say=print)
        lab.up()
    except PalomarError as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    table = FlowTable(lab)
    try:
        print("flows of all nodes; Ctrl-C ends the demo and removes everything\n")
        with contextlib.suppress(KeyboardInterrupt):
            table.show_for(seconds, SystemClock())
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        table.close()
        lab.down()
    print(f"\nseen: {table.forwarded} forwarded or allowed, {table.dropped} dropped or denied; all removed")
    return 0 if table.forwarded and table.dropped else 1


if __name__ == "__main__":
    sys.exit(main())
