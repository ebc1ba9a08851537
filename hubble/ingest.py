"""The ingest process: `python -m hubble.ingest --config-json '{...}'`, started and watched by the agent.

A process of its own, because a starved reader loses events: it runs at nice -15 and shares nothing with the
control plane but the store and a socket. It drains every 5-10 ms while events come; otherwise it only looks
every 10 ms whether any have. It goes on when the agent is away, and ends with its parent. SIGTERM: what the
rings hold is stored, the agent gets the last counters, the store is closed in order; status 0. Status 2:
unusable configuration.
"""

import argparse
import contextlib
import logging
import mmap
import os
import select
import signal
import socket
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from datapath.perf import RING_BYTES, EventCounters, PerfRings
from hubble.agentlink import AgentLink, Directory
from hubble.binder import Binder
from hubble.drain import Drain
from hubble.errors import IngestConfigError
from hubble.names import NamesWriter
from hubble.storefile import DEFAULT_CAPACITY, MAX_CAPACITY, MIN_CAPACITY
from hubble.storewriter import FlowStoreWriter
from palomar import jsonconfig, log
from palomar.clock import Clock, SystemClock
from palomar.errors import InvalidInputError, PalomarError
from palomar.parent import die_with_parent

logger = logging.getLogger(__name__)

NICE = -15
IDLE_S = 0.050
"""When nothing comes a turn is taken this often all the same: counters, statistics, the agent coming back."""
LOOK_S = 0.010
"""Between two idle looks at the rings: a look is a few words read, a turn costs ten times that."""
BUSY_S, CALM_S = 0.005, 0.010
CALM_ROWS = 4096
"""A turn of fewer rows may wait longer: what a turn costs besides its rows is then shared by more of them."""
STATS_NS = 1_000_000_000
SYNC_WAIT_NS = 1_000_000_000
"""At start the rings may fill this long while the agent tells the names."""
SEND_WAIT_S = 0.5


@dataclass(frozen=True, slots=True)
class IngestConfig:
    """What the agent hands over."""

    flow_dir: str
    """Folder of the flow store and the names log."""
    globals_dir: str
    """Folder of the pinned maps (`cilium_events`, `palomar_event_stats`)."""
    socket: str
    """The agent's socket; empty: run without an agent."""
    capacity: int = DEFAULT_CAPACITY
    ring_bytes: int = RING_BYTES
    """Per CPU, a power of two."""
    parent_pid: int = 0
    """The agent's process id: when it is gone already, do not start. 0: not checked."""
    log_level: str = "INFO"
    log_format: str = "text"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a JSON object; IngestConfigError names a key that is unknown, missing or of the wrong type."""
        try:
            config = jsonconfig.decode(cls, text)
        except InvalidInputError as error:
            raise IngestConfigError(f"--config-json: {error}") from error
        if not MIN_CAPACITY <= config.capacity <= MAX_CAPACITY:
            raise IngestConfigError(
                f"--config-json: capacity: {config.capacity} is not in {MIN_CAPACITY}..{MAX_CAPACITY}"
            )
        if config.ring_bytes < mmap.PAGESIZE or config.ring_bytes & (config.ring_bytes - 1):
            raise IngestConfigError(
                f"--config-json: ring_bytes: {config.ring_bytes} is not a power of two of pages"
            )
        return config

    def to_json(self) -> str:
        """Return what `parse` reads."""
        return jsonconfig.encode(self)


class Ingest:
    """The process: everything opened, the loop, everything closed."""

    def __init__(self, config: IngestConfig, clock: Clock) -> None:
        """Open store, names log and maps, and put the rings in place. Raises PalomarError."""
        self._clock = clock
        globals_dir = Path(config.globals_dir)
        flow_dir = Path(config.flow_dir)
        with contextlib.ExitStack() as opened:
            self._counters = EventCounters(globals_dir / "palomar_event_stats")
            opened.callback(self._counters.close)
            self._store = FlowStoreWriter.open(flow_dir, config.capacity, clock)
            opened.callback(self._store.close)
            self._store.begin_source(self._counters.source_id(), self._counters.cpus)
            self._names = NamesWriter.open(flow_dir, self._store.used_refs())
            opened.callback(self._names.close)
            self._binder = Binder(self._names.intern)
            self._directory = Directory(self._binder, self._names)
            self._rings = PerfRings.open(globals_dir / "cilium_events", config.ring_bytes)
            opened.callback(self._rings.close)
            self._close = opened.pop_all().close
        self._drain = Drain(self._rings.rings, self._counters, self._store, self._names, self._binder, clock)
        # Nested: the inner one alone while busy, or every watermark of 64 KiB would wake us.
        self._quiet = select.epoll()
        self._rings.epoll.register(self._quiet.fileno(), select.EPOLLIN)
        self._link = (
            AgentLink(Path(config.socket), self._directory, self._quiet, clock) if config.socket else None
        )
        self._stopping = False
        self._waker, self._woken = socket.socketpair()
        for end in (self._waker, self._woken):
            end.setblocking(False)
        self._quiet.register(self._woken.fileno(), select.EPOLLIN)

    def run(self) -> None:
        """Drain until told to stop by SIGTERM or SIGINT, then finish in order."""
        signal.set_wakeup_fd(self._waker.fileno(), warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)
        logger.info("ingest started", extra={"cpus": len(self._rings.rings), "head": self._store.head})
        self._await_names()
        first = True
        stats_at_ns = self._clock.monotonic_ns() + STATS_NS
        while not self._stopping:
            self._poll_agent()
            heads = self._heads()
            rows = self._drain.turn()
            if self._clock.monotonic_ns() >= stats_at_ns:
                stats_at_ns = self._clock.monotonic_ns() + STATS_NS
                first = not self._send_stats(first) and first
            self._wait(rows, heads)
        self._finish(first)

    def _stop(self, number: int, frame: object) -> None:
        self._stopping = True

    def _poll_agent(self) -> None:
        if self._link is not None:
            self._link.poll()

    def _heads(self) -> list[int]:
        return [ring.head() for ring in self._rings.rings]

    def _wait(self, rows: int, heads: list[int]) -> None:
        pause_s = pause_after(rows)
        if pause_s is None:
            wait_idle(self._rings.epoll.poll, lambda: self._heads() != heads)
        else:
            self._quiet.poll(pause_s)
        with contextlib.suppress(BlockingIOError):
            self._woken.recv(64)

    def _await_names(self) -> None:
        """Let the agent tell the names before the first rows need them, unless it takes long."""
        give_up_ns = self._clock.monotonic_ns() + SYNC_WAIT_NS
        while self._link is not None and not self._directory.synced and not self._stopping:
            if self._clock.monotonic_ns() >= give_up_ns:
                return
            self._link.poll()
            self._quiet.poll(BUSY_S)

    def _send_stats(self, first: bool) -> bool:
        """Send the counters; True when there was an agent to take them."""
        message = self._drain.stats(first)
        message["malformed_lines"] = self._directory.malformed
        self._names.flush()
        if self._link is None or not self._link.connected:
            return False
        self._link.send(message)
        return True

    def _finish(self, first: bool) -> None:
        self._rings.detach()
        # Twice: the second turn settles what the first has seen (`hubble.accounting`).
        self._drain.turn()
        self._drain.turn()
        self._send_stats(first)
        if self._link is not None:
            self._link.finish(SEND_WAIT_S, _writable)
        logger.info("ingest stopped", extra={"head": self._store.head})
        self.close()

    def close(self) -> None:
        """Close everything. Idempotent."""
        signal.set_wakeup_fd(-1)
        self._quiet.close()
        self._waker.close()
        self._woken.close()
        self._close()


def pause_after(rows: int) -> float | None:
    """Return how long to let events gather after a turn of `rows`; None: until there are some."""
    if not rows:
        return None
    return BUSY_S if rows >= CALM_ROWS else CALM_S


def wait_idle(poll: Callable[[float], Sequence[object]], has_come: Callable[[], bool]) -> None:
    """Wait until `poll` (of an epoll, in seconds) tells something, an event has come or a turn is due.

    The kernel wakes nobody for a few events (`datapath.perf.WATERMARK_BYTES`): hence the looking.
    """
    for _ in range(round(IDLE_S / LOOK_S)):
        if poll(LOOK_S) or has_come():
            return


def _writable(link: socket.socket, timeout_s: float) -> bool:
    return bool(select.select([], [link], [], timeout_s)[1])


def _become_ingest(parent_pid: int) -> None:
    """End with the parent, and go before ordinary processes."""
    if not die_with_parent(parent_pid):
        raise IngestConfigError(f"the parent process {parent_pid} is gone")
    try:
        os.setpriority(os.PRIO_PROCESS, 0, NICE)
    except PermissionError:
        logger.warning("cannot raise the priority", extra={"nice": NICE})


def main(argv: Sequence[str] | None = None) -> int:
    """Run the process and return its status."""
    parser = argparse.ArgumentParser(prog="python -m hubble.ingest", description="The event path of a node.")
    parser.add_argument("--config-json", required=True, help="the fields of IngestConfig as a JSON object")
    arguments = parser.parse_args(argv)
    try:
        config = IngestConfig.parse(arguments.config_json)
        log.configure(config.log_level, config.log_format)
        _become_ingest(config.parent_pid)
    except IngestConfigError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    try:
        Ingest(config, SystemClock()).run()
    except PalomarError as error:
        logger.error("ingest failed", extra={"reason": str(error)})
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
