"""The flow server process: `python -m hubble.server --config-json '{...}'`, started by the agent.

Reads the flow store that the ingest process writes and answers observer.Observer and
palomar.v1.FlowBatches on `<run_dir>/hubble.sock`. Ends in order on SIGTERM or SIGINT, and when the agent
dies. Everything it does is in `hubble.grpcserver`, `hubble.observer` and below; this is the wiring.
"""

import argparse
import asyncio
import logging
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from hubble.flowsource import FlowSource
from hubble.grpcserver import GrpcServer, Listener, TcpListener, UnixListener
from hubble.observer import NodeFacts, ObserverService
from hubble.observingnode import ObservingNode
from hubble.peer import PeerService
from palomar import jsonconfig, log, memory
from palomar.clock import Clock, SystemClock
from palomar.errors import InvalidInputError
from palomar.parent import die_with_parent
from palomar.paths import SOCKET_GROUP, NodePaths
from palomar.stopsignal import stop_signal
from palomar.tasks import spawn
from palomar.tls import tls_files
from palomar.version import installed_version

logger = logging.getLogger(__name__)

READY_POLL_S = 0.1
READY_CHECK_S = 1.0
LISTEN_RETRY_S = 1.0
EXIT_BAD_CONFIG = 2
INSECURE = "plain-text-on-loopback"
PEERS_FILE = "peers.json"
"""Below the run directory; the agent keeps it (`agent.peersfile`)."""


@dataclass(frozen=True, slots=True)
class ServerConfig:
    """What the agent tells this process; the keys of `--config-json`."""

    run_dir: str
    """Holds the socket."""
    state_dir: str
    """Holds the flow store and the agent's event log."""
    node_name: str
    """Without the cluster."""
    cluster_name: str = "default"
    node_labels: tuple[str, ...] = ()
    """`key=value`."""
    socket_group: str = SOCKET_GROUP
    listen_address: str = ""
    """`host:port` for relays; empty for none. Mutual TLS unless `listen_insecure`."""
    tls_cert_file: str = ""
    tls_key_file: str = ""
    tls_ca_file: str = ""
    """CA of the clients."""
    listen_insecure: str = ""
    """`plain-text-on-loopback` allows just that."""
    parent_pid: int = 0
    """The agent's process id: when it is gone already, do not start. 0: not checked."""
    log_level: str = "INFO"
    log_format: str = "text"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read the JSON object; InvalidInputError names a key that is unknown, missing or wrong."""
        config = jsonconfig.decode(cls, text)
        for key in ("run_dir", "state_dir", "node_name"):
            if not getattr(config, key):
                raise InvalidInputError("empty", key)
        config.tcp_listener()
        return config

    def tcp_listener(self) -> TcpListener | None:
        """Where relays connect, if anywhere; InvalidInputError for what is refused."""
        if self.listen_insecure not in ("", INSECURE):
            raise InvalidInputError(f"not {INSECURE!r}", "listen_insecure")
        tls = tls_files(self.tls_cert_file, self.tls_key_file, self.tls_ca_file, "tls_cert_file")
        if not self.listen_address:
            return None
        return TcpListener(self.listen_address, tls, self.listen_insecure == INSECURE)

    def to_json(self) -> str:
        """What `parse` reads."""
        return jsonconfig.encode(self)

    @property
    def paths(self) -> NodePaths:
        """Paths of the node; the flow server has no business with bpffs."""
        return NodePaths(
            run_dir=Path(self.run_dir), state_dir=Path(self.state_dir), bpf_root=Path("/sys/fs/bpf")
        )


def program_version() -> str:
    """`palomar 0.1.0`."""
    return f"palomar {installed_version()}"


class FlowServer:
    """The whole process, without its signals."""

    def __init__(self, config: ServerConfig, clock: Clock) -> None:
        """Nothing is opened before `start`."""
        paths = config.paths
        self._source = FlowSource(paths.flow_dir)
        facts = NodeFacts(
            node=ObservingNode(f"{config.cluster_name}/{config.node_name}", config.node_labels),
            version=program_version(),
            started_ns=clock.monotonic_ns(),
            address=f"unix://{paths.hubble_socket}",
        )
        observer = ObserverService(self._source, facts, paths.flow_dir, clock)
        peers = PeerService(paths.run_dir / PEERS_FILE)
        listeners: list[Listener] = [UnixListener(paths.hubble_socket, config.socket_group)]
        self._tcp = config.tcp_listener()
        if self._tcp is not None:
            listeners.append(self._tcp)
        self._servers = [GrpcServer(listener, observer, peers, clock) for listener in listeners]
        self._ready: asyncio.Task[None] | None = None
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Listen at once; health turns to SERVING when there is a flow store."""
        await self._servers[0].start()
        self._tasks = [spawn(self._listen(server), "flow server on TCP") for server in self._servers[1:]]
        self._ready = spawn(self._watch_store(), "flow store watch")

    @property
    def tcp_port(self) -> int:
        """The TCP port that it listens on; 0 for none."""
        return self._tcp.port if self._tcp is not None else 0

    async def _listen(self, server: GrpcServer) -> None:
        """Start `server` as soon as its certificate and port can be had; the socket serves meanwhile."""
        told = ""
        while True:
            try:
                await server.start()
            except (InvalidInputError, RuntimeError) as error:
                if str(error) != told:
                    told = str(error)
                    logger.error("flow server cannot listen on TCP yet", extra={"error": told})
                await asyncio.sleep(LISTEN_RETRY_S)
            else:
                return

    async def _watch_store(self) -> None:
        serving = False
        while True:
            if self._source.is_ready() != serving:
                serving = not serving
                for server in self._servers:
                    await server.set_serving(serving)
            await asyncio.sleep(READY_CHECK_S if serving else READY_POLL_S)

    async def stop(self) -> None:
        """End running calls and remove the socket."""
        for task in (self._ready, *self._tasks):
            if task is not None:
                task.cancel()
        for server in self._servers:
            await server.stop()


async def serve(config: ServerConfig, clock: Clock) -> None:
    """Run until SIGTERM or SIGINT."""
    stopped = stop_signal()
    server = FlowServer(config, clock)
    await server.start()
    memory.settle()
    try:
        await stopped.wait()
    finally:
        await server.stop()
        logger.info("flow server stopped")


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of the process; returns its status."""
    parser = argparse.ArgumentParser(prog="hubble.server", description="The flow server of one node.")
    parser.add_argument("--config-json", required=True, help="configuration as one JSON object")
    args = parser.parse_args(argv)
    try:
        config = ServerConfig.parse(args.config_json)
    except InvalidInputError as error:
        sys.stderr.write(f"hubble.server: {error}\n")
        return EXIT_BAD_CONFIG
    log.configure(config.log_level, config.log_format)
    if not die_with_parent(config.parent_pid):
        return 0
    memory.share_one_arena()
    asyncio.run(serve(config, SystemClock()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
