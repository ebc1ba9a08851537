"""The relay process: everything wired together, from start to SIGTERM.

Input: a RelayConfig. What it does is in `relay.service` and below; the command is `palomar relay`.
"""

import asyncio
import logging
from pathlib import Path

from palomar import log, memory, tasks
from palomar.certwatch import CHECK_S, CertificateWatch
from palomar.clock import Clock, SystemClock
from palomar.errors import InvalidInputError
from palomar.stopsignal import stop_signal
from palomar.tls import TlsFiles
from palomar.version import installed_version
from relay.config import RelayConfig
from relay.discovery import Discovery
from relay.grpcserver import RelayServer
from relay.metrics import RelayMetrics
from relay.metricsserver import MetricsServer
from relay.peers import Peer, PeerPool, PeerState
from relay.service import RelayCore

logger = logging.getLogger(__name__)

NS_PER_MS = 1_000_000
LISTEN_RETRY_S = 1.0
HEALTH_CHECK_S = 0.25


class Relay:
    """The whole relay, without its signals."""

    def __init__(self, config: RelayConfig, clock: Clock) -> None:
        """Nothing is opened before `start`. Raises InvalidInputError for what is refused."""
        client_tls = config.client_tls or config.tls
        self._clock = clock
        self.metrics = RelayMetrics()
        self.pool = PeerPool(
            clock, client_tls, allow_insecure=config.allow_insecure, retire_s=config.retire_s
        )
        self._discovery = Discovery(self.pool, config.peer_service, config.peers, client_tls)
        self.core = RelayCore(
            self.pool,
            clock,
            config.name,
            f"palomar-relay {installed_version()}",
            config.sort_wait_ms * NS_PER_MS,
            self.metrics,
        )
        self.server = RelayServer(
            config.listen,
            config.tls,
            self.core,
            allow_insecure=config.allow_insecure,
            group=config.socket_group,
        )
        self.metrics_server = (
            MetricsServer(config.metrics_listen, self.metrics, self.pool) if config.metrics_listen else None
        )
        self._certificates = CertificateWatch(_cert_files(config.tls, client_tls), clock)
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Listen at once, or as soon as the certificate can be had; nodes are connected meanwhile."""
        self.pool.listen(self._peer_changed)
        if self.metrics_server is not None:
            await self.metrics_server.start()
        await self.pool.start()
        await self._discovery.start()
        self._tasks = [
            tasks.spawn(self._listen(), "relay listens"),
            tasks.spawn(self._watch_certificates(), "relay certificate expiry"),
        ]

    async def stop(self) -> None:
        """End calls, leave the nodes."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._discovery.stop()
        await self.server.stop()
        await self.pool.stop()
        if self.metrics_server is not None:
            await self.metrics_server.stop()

    async def _listen(self) -> None:
        told = ""
        while True:
            try:
                await self.server.start()
                break
            except InvalidInputError as error:
                if str(error) != told:
                    told = str(error)
                    logger.error("relay cannot listen yet", extra={"error": told})
                await asyncio.sleep(LISTEN_RETRY_S)
        serving = False
        while True:
            connected = any(entry.state is PeerState.CONNECTED for entry in self.pool.entries())
            if connected != serving:
                serving = connected
                await self.server.set_serving(serving)
            await asyncio.sleep(HEALTH_CHECK_S)

    async def _watch_certificates(self) -> None:
        while True:
            self.metrics.set_expiries(self._certificates.check())
            await asyncio.sleep(CHECK_S)

    def _peer_changed(self, peer: Peer, state: PeerState, _reason: str) -> None:
        if state is PeerState.GONE:
            self.metrics.forget_peer(peer.name)


def _cert_files(*parties: TlsFiles | None) -> list[Path]:
    return [path for tls in parties if tls is not None for path in (tls.cert, tls.ca)]


async def serve(config: RelayConfig, clock: Clock) -> None:
    """Run until SIGTERM or SIGINT."""
    stopped = stop_signal()
    relay = Relay(config, clock)
    await relay.start()
    memory.settle()
    try:
        await stopped.wait()
    finally:
        await relay.stop()
        logger.info("relay stopped")


def run(config: RelayConfig) -> int:
    """Run a relay in this process; return its exit status."""
    memory.share_one_arena()
    log.configure(config.log_level, config.log_format)
    asyncio.run(serve(config, SystemClock()))
    return 0
