"""`/metrics` of the telemetry process over HTTP, and its accounts of being asked.

The rim. Input: what the collectors say; output: Prometheus' text format. Not the agent's `/metrics`.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence

from aiohttp import web
from prometheus_client import (
    CollectorRegistry,
    Counter,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.core import Metric
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.registry import Collector

from palomar.clock import Clock

logger = logging.getLogger(__name__)

RETRY_S = 1.0
Families = Callable[[], Awaitable[Sequence[Metric]]]


class _Snapshot(Collector):
    """What was collected for one scrape."""

    def __init__(self) -> None:
        self.families: Sequence[Metric] = ()

    def describe(self) -> list[Metric]:
        """Register nothing by name: the names come with the first collection."""
        return []

    def collect(self) -> Sequence[Metric]:
        """Return what was set."""
        return self.families


class MetricsServer:
    """Serves `/metrics` and `/healthz`."""

    def __init__(self, address: tuple[str, int], families: Families, clock: Clock) -> None:
        """`families` is awaited once per scrape; nothing listens before `start`."""
        self._address = address
        self._families = families
        self._clock = clock
        self._snapshot = _Snapshot()
        # They would come as gauges that promtool does not like.
        disable_created_metrics()  # type: ignore[no-untyped-call]  # prometheus_client's
        self._registry = CollectorRegistry()
        self._registry.register(self._snapshot)
        ProcessCollector(registry=self._registry)
        self._requests = Counter(
            "hubble_metrics_http_handler_requests", "Scrapes by status.", ["code"], registry=self._registry
        )
        self._seconds = Histogram(
            "hubble_metrics_http_handler_request_duration_seconds",
            "Duration of scrapes by status.",
            ["code"],
            registry=self._registry,
        )
        self._lock = asyncio.Lock()
        self._runner: web.AppRunner | None = None
        self.port = 0
        """The port that it listens on; 0 while it does not."""

    async def start(self) -> None:
        """Listen; while the port cannot be had, say so once and try again."""
        app = web.Application()
        app.router.add_get("/metrics", self._metrics)
        app.router.add_get("/healthz", self._healthz)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
        await self._runner.setup()
        told = ""
        while True:
            try:
                await web.TCPSite(self._runner, *self._address).start()
            except OSError as error:
                if str(error) != told:
                    told = str(error)
                    logger.error("metrics server cannot listen yet", extra={"error": told})
                await asyncio.sleep(RETRY_S)
            else:
                break
        self.port = self._runner.addresses[0][1]
        logger.info("metrics served", extra={"host": self._address[0], "port": self.port})

    async def stop(self) -> None:
        """Stop listening. Idempotent."""
        runner, self._runner = self._runner, None
        if runner is not None:
            await runner.cleanup()

    async def _healthz(self, _: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def _metrics(self, _: web.Request) -> web.Response:
        begin_ns = self._clock.monotonic_ns()
        async with self._lock:
            self._snapshot.families = await self._families()
            # Thousands of series take long to write down: others go on meanwhile.
            text = await asyncio.to_thread(generate_latest, self._registry)
        self._requests.labels("200").inc()
        self._seconds.labels("200").observe((self._clock.monotonic_ns() - begin_ns) / 1e9)
        return web.Response(body=text, headers={"Content-Type": CONTENT_TYPE_PLAIN_0_0_4})
