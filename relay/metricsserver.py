"""/metrics over HTTP, and nothing else. Plain HTTP: listen on loopback, or where only Prometheus comes."""

import logging

from aiohttp import web

from palomar.errors import InvalidInputError
from relay.metrics import CONTENT_TYPE, RelayMetrics
from relay.peers import PeerPool

logger = logging.getLogger(__name__)


class MetricsServer:
    """Serves the metrics of one relay."""

    def __init__(self, address: str, metrics: RelayMetrics, pool: PeerPool) -> None:
        """`address` is `host:port`."""
        self._address = address
        self._metrics = metrics
        self._pool = pool
        self._runner: web.AppRunner | None = None
        self.port = 0
        """The port it got, after `start`."""

    async def start(self) -> None:
        """Listen. Raises InvalidInputError where that cannot be."""
        app = web.Application()
        app.router.add_get("/metrics", self._answer)
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        host, _, port = self._address.rpartition(":")
        try:
            await web.TCPSite(self._runner, host.strip("[]"), int(port)).start()
        except (OSError, ValueError) as error:
            raise InvalidInputError(f"{self._address}: {error}", "metrics-listen") from error
        self.port = int(self._runner.addresses[0][1])
        logger.info("metrics served", extra={"address": self._address, "port": self.port})

    async def stop(self) -> None:
        """Close the port."""
        if self._runner is not None:
            await self._runner.cleanup()

    async def _answer(self, _request: web.Request) -> web.Response:
        self._metrics.set_peers(self._pool)
        return web.Response(body=self._metrics.text(), headers={"Content-Type": CONTENT_TYPE})
