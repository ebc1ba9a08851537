"""A node's flow server as a process that tests kill and start again, and commands that follow it.

The store, the peers file and the agent's event log are written here, as ingest and agent do.
"""

import contextlib
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from agent.agentevents import AgentEventLog
from agent.peersfile import PeersFile
from hubble.accounting import CpuAccount
from hubble.names import NamesWriter
from hubble.server import PEERS_FILE, ServerConfig
from hubble.storewriter import FlowStoreWriter
from palomar.clock import SystemClock
from tests.kit.flows import FakeNames, record, stored
from tests.kit.flowserver import write_names
from tests.kit.wait import eventually

ROOT = Path(__file__).parents[2]
ENVIRONMENT = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'proto'}"}


class NodeServer:
    """The flow server of one node over a store that outlives it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.config = ServerConfig(str(folder / "run"), str(folder / "state"), "worker2", socket_group="")
        paths = self.config.paths
        paths.run_dir.mkdir(parents=True)
        self.clock = SystemClock()
        self.writer = FlowStoreWriter.open(paths.flow_dir, 4096, self.clock)
        self.writer.begin_source(1, 1)
        self.account = CpuAccount(0)
        self.names = NamesWriter.open(paths.flow_dir)
        write_names(self.names, FakeNames())
        self.peers = PeersFile(paths.run_dir / PEERS_FILE, 4244, tls=False)
        self.agent_events = AgentEventLog(paths.flow_dir, self.clock)
        self.process: subprocess.Popen[bytes] | None = None

    def emit(self, count: int = 1, lost: int = 0, **values: Any) -> None:
        """Store flows of now, numbered by their source ports from 1 on; `lost` more never came here."""
        begin, now = self.account.stored + 1, self.clock.wall_ns()
        numbers = range(begin, begin + count)
        rows = [record(**{"time_ns": now + n, "sport": n, "seq": n, **values}) for n in numbers]
        self.writer.append(stored(*rows))
        self.account = replace(
            self.account, stored=self.account.stored + count, lost=self.account.lost + lost
        )
        self.writer.commit(0, [self.account])

    def start(self) -> None:
        """Start the process and wait for its socket."""
        argv = [sys.executable, "-m", "hubble.server", "--config-json", self.config.to_json()]
        self.process = subprocess.Popen(argv, env=ENVIRONMENT, stderr=subprocess.DEVNULL)
        eventually(self.config.paths.hubble_socket.exists, timeout_s=60)

    def kill(self) -> None:
        """As `kill -9` does; the socket's file stays behind, so it is removed for `start` to wait for."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None
            self.config.paths.hubble_socket.unlink(missing_ok=True)

    def close(self) -> None:
        self.kill()
        self.names.close()
        self.writer.close()


class Command:
    """A `palomar` command that runs, and the lines it has written so far."""

    def __init__(self, *words: str) -> None:
        argv = [sys.executable, "-m", "cli.main", *words]
        self.process = subprocess.Popen(
            argv, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        self.out: list[str] = []
        self.err: list[str] = []
        self._readers = [
            threading.Thread(target=self._read, args=(stream, lines), daemon=True)
            for stream, lines in ((self.process.stdout, self.out), (self.process.stderr, self.err))
        ]
        for reader in self._readers:
            reader.start()

    def _read(self, stream: Any, lines: list[str]) -> None:
        lines.extend(line.rstrip("\n") for line in stream)

    def said(self, pattern: str) -> list[str]:
        """The lines of standard error that match."""
        return [line for line in self.err if re.search(pattern, line)]

    def says(self, pattern: str, times: int = 1) -> None:
        """Wait until standard error has that many lines that match."""
        eventually(lambda: len(self.said(pattern)) >= times, timeout_s=60)

    def prints(self, count: int) -> list[str]:
        """Wait until that many lines were printed; all of them."""
        eventually(lambda: len(self.out) >= count, timeout_s=60)
        return list(self.out)

    def end(self, number: int = signal.SIGINT) -> int:
        """Interrupt it; its exit status."""
        self.process.send_signal(number)
        status = self.process.wait(60)
        for reader in self._readers:
            reader.join(10)
        return status

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        for reader in self._readers:
            reader.join(10)
        for stream in (self.process.stdout, self.process.stderr):
            if stream is not None:
                stream.close()


@contextlib.contextmanager
def node_server(folder: Path) -> Iterator[NodeServer]:
    """A running one."""
    node = NodeServer(folder)
    try:
        node.start()
        yield node
    finally:
        node.close()


@contextlib.contextmanager
def command(node: NodeServer, *words: str) -> Iterator[Command]:
    """`palomar --run-dir ... <words>` while the block runs."""
    running = Command("--run-dir", node.config.run_dir, *words)
    try:
        yield running
    finally:
        running.close()
