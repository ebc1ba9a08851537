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
from lab.observers import client_flags
from lab.process import child_environment, palomar, process_mark
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
    """The relay's `palomar observe --follow` on this screen, its lines counted by verdict."""

    def __init__(self, lab: LabCluster) -> None:
        """Start the observer."""
        self.forwarded = 0
        self.dropped = 0
        colour = "always" if sys.stdout.isatty() else "never"
        argv = palomar("observe", "--follow", "--print-node-name", "--color", colour)
        self._process = subprocess.Popen(
            [*argv, *client_flags(lab.doors["relay"], lab.client_files())],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=child_environment(),
        )

    def show_for(self, seconds: float | None, clock: Clock) -> None:
        """Print lines as they come until `seconds` have passed (None: until interrupted)."""
        stream = self._process.stdout
        assert stream is not None
        deadline_ns = None if seconds is None else clock.monotonic_ns() + int(seconds * 1e9)
        while deadline_ns is None or clock.monotonic_ns() < deadline_ns:
            ready, _, _ = select.select([stream], [], [], POLL_S)
            data = os.read(stream.fileno(), 65536).decode(errors="replace") if ready else ""
            if ready and not data:
                return
            self.forwarded += data.count(" FORWARDED") + data.count(" ALLOWED")
            self.dropped += data.count(" DROPPED") + data.count(" DENIED")
            sys.stdout.write(data)
            sys.stdout.flush()

    def close(self) -> None:
        """End the observer."""
        self._process.terminate()
        self._process.wait(timeout=10)
        if self._process.stdout is not None:
            self._process.stdout.close()


def sights(lab: LabCluster) -> list[str]:
    """One line per thing to look at."""
    doors = lab.doors
    return [
        f"service map    http://{doors['ui']}/",
        f"Prometheus     http://{doors['prometheus']}/",
        f"OTLP receiver  http://{doors['otlp']}/counts",
        f"relay          {doors['relay']}, mutual TLS, certificates in {lab.certificates.directory}",
        f'command line   eval "$(palomar lab env --name {lab.spec.name} --relay)"; palomar observe',
    ]


def _interrupt(_signal: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def main() -> int:
    """Run the demo and return the exit status."""
    signal.signal(signal.SIGTERM, _interrupt)
    signal.signal(signal.SIGHUP, _interrupt)  # the terminal was closed
    try:
        seconds = seconds_to_run(os.environ.get("DEMO_SECONDS"))
        lab = LabCluster(LabSpec.build(LAB_NAME, NODES), say=print)
        lab.owner = process_mark(os.getpid())
        if lab.owner_died():
            print("an earlier demo was killed: what it left is taken away first")
            lab.down()
        lab.up()
    except PalomarError as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    table = FlowTable(lab)
    try:
        print("\n".join(sights(lab)))
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
