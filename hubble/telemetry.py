"""The telemetry process: `python -m hubble.telemetry --config-json '{...}'`, started by the agent.

Reads the flow store beside the flow server and serves Hubble's flow metrics on `/metrics` and exports flows
over OTLP. A process of its own at low priority, so that neither a scrape nor a collector can slow the
ingest or the flow server. Ends in order on SIGTERM or SIGINT, and when the agent dies. This is the wiring;
what it does is in `hubble.metrics` and `hubble.exporter`.
"""

import argparse
import asyncio
import json
import logging
import os
import sys
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from hubble.errors import StoreDamagedError
from hubble.exporter.exporter import Exporter
from hubble.exporter.exposition import export_families
from hubble.exporter.requests import Origin, RequestEncoder
from hubble.exporter.transport import Transport, make_transport
from hubble.flowsource import FollowedNames
from hubble.metrics.counting import FlowCounting
from hubble.metrics.exposition import flow_families
from hubble.metrics.registry import FlowMetricsRegistry
from hubble.metrics.server import MetricsServer
from hubble.observingnode import ObservingNode
from hubble.server import program_version
from hubble.storefollower import StoreFollower, StorePosition
from hubble.telemetryconfig import TelemetryConfig
from palomar import log, memory
from palomar.certwatch import CHECK_S, CertificateWatch, Expiry
from palomar.clock import Clock, SystemClock
from palomar.errors import InvalidInputError
from palomar.parent import die_with_parent
from palomar.stopsignal import stop_signal
from palomar.tasks import spawn

logger = logging.getLogger(__name__)

EXIT_BAD_CONFIG = 2
NICENESS = 10
SAVE_EVERY_S = 2.0
_METRICS, _LOGS = "metrics", "logs"


class Telemetry:
    """The whole process, without its signals."""

    def __init__(
        self,
        config: TelemetryConfig,
        clock: Clock,
        on_error: Callable[[BaseException], None] | None = None,
    ) -> None:
        """Nothing runs before `start`; `on_error` hears of a part that ended by a fault of ours."""
        self._on_error = on_error
        self._config = config
        self._clock = clock
        places = read_places(config.place_file)
        names = FollowedNames(config.flow_dir)
        specs = config.specs()
        self.counting: FlowCounting | None = None
        if specs:
            registry = FlowMetricsRegistry(specs, names, config.metrics_max_series)
            follower = StoreFollower(config.flow_dir, names, places.get(_METRICS, StorePosition()))
            self.counting = FlowCounting(registry, follower, clock)
        self.exporter: Exporter | None = None
        self._transport: Transport | None = None
        self._certificates = CertificateWatch((), clock)
        self._expiries: Sequence[Expiry] = ()
        if config.otlp is not None:
            self._certificates = CertificateWatch(config.otlp.certificates, clock)
            self._transport = make_transport(config.otlp)
            follower = StoreFollower(
                config.flow_dir, names, places.get(_LOGS, StorePosition()), config.otlp.catch_up_flows
            )
            origin = Origin(config.node_name, config.cluster_name, program_version())
            node = ObservingNode(config.node, config.node_labels)
            encoder = RequestEncoder(origin)
            self.exporter = Exporter(config.otlp, follower, self._transport, encoder, node, clock)
        listener = config.listener()
        self.server = MetricsServer(listener, self._families, clock) if listener else None
        self._saved: dict[str, StorePosition] = places
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Begin to count, to export and to listen; the port may come later."""
        if self.counting is not None:
            self._tasks.append(self._spawn(self.counting.run(), "flow metrics"))
        if self.exporter is not None and self._config.otlp is not None:
            if self._config.otlp.logs:
                self._tasks.append(self._spawn(self.exporter.export_logs(), "OTLP logs"))
            if self._config.otlp.metrics and self.counting is not None:
                totals = self.counting.registry.totals
                self._tasks.append(self._spawn(self.exporter.export_metrics(totals), "OTLP metrics"))
        if self.server is not None:
            self._tasks.append(self._spawn(self.server.start(), "metrics server"))
        self._tasks.append(self._spawn(self._save_often(), "telemetry places"))
        self._tasks.append(self._spawn(self._watch_certificates(), "OTLP certificate expiry"))

    def _spawn(self, coroutine: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        return spawn(coroutine, name, self._on_error)

    async def stop(self) -> None:
        """Stop everything and keep the place in the store."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self.server is not None:
            await self.server.stop()
        if self._transport is not None:
            await self._transport.close()
        self._save()

    async def _watch_certificates(self) -> None:
        """Let log and metrics say in time that what is shown to the collector, or trusted of it, runs out."""
        while True:
            self._expiries = self._certificates.check()
            await asyncio.sleep(CHECK_S)

    async def _save_often(self) -> None:
        while True:
            await asyncio.sleep(SAVE_EVERY_S)
            self._save()

    def _save(self) -> None:
        places = dict(self._saved)
        if self.counting is not None:
            places[_METRICS] = self.counting.follower.place
        if self.exporter is not None:
            places[_LOGS] = self.exporter.follower.place
        if places != self._saved:
            write_places(self._config.place_file, places)
            self._saved = places

    async def _families(self) -> Sequence[Metric]:
        families: list[Metric] = []
        counting = self.counting
        if counting is not None:
            await counting.catch_up()
            families += flow_families(counting.registry.totals())
            families.append(
                CounterMetricFamily(
                    "palomar_metrics_flows",
                    "Flows taken into the flow metrics.",
                    value=counting.registry.flows,
                )
            )
            families.append(
                GaugeMetricFamily(
                    "palomar_metrics_lag_flows",
                    "Flows in the store and not yet counted.",
                    value=counting.follower.lag,
                )
            )
            families.append(_lost(counting.follower))
        if self.exporter is not None:
            families += export_families(self.exporter, self._expiries)
        return families


def _lost(follower: StoreFollower) -> Metric:
    lost = CounterMetricFamily("hubble_lost_events", "Events lost, by where.", labels=["source"])
    if follower.store is not None:
        try:
            accounts = follower.store.accounting()
        except StoreDamagedError:
            accounts = []
        lost.add_metric(["perf_event_ring_buffer"], sum(account.lost for account in accounts))
    lost.add_metric(["hubble_ring_buffer"], follower.skipped)
    return lost


def read_places(path: Path) -> dict[str, StorePosition]:
    """Return how far this process had come; a file that is missing or damaged is no place."""
    try:
        entries: Any = json.loads(path.read_text(encoding="ascii"))
        return {
            name: StorePosition(int(entry["store_id"]), int(entry["position"]))
            for name, entry in entries.items()
        }
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        logger.warning("telemetry's place is unreadable", extra={"path": str(path), "error": str(error)})
        return {}


def write_places(path: Path, places: dict[str, StorePosition]) -> None:
    """Keep how far this process has come; a full disk is logged, not fatal."""
    entries = {
        name: {"store_id": place.store_id, "position": place.position} for name, place in places.items()
    }
    new = path.with_suffix(".new")
    try:
        new.write_text(json.dumps(entries) + "\n", encoding="ascii")
        new.replace(path)
    except OSError as error:
        logger.warning("telemetry's place cannot be kept", extra={"path": str(path), "error": str(error)})


async def serve(config: TelemetryConfig, clock: Clock) -> int:
    """Run until SIGTERM or SIGINT (0), or until a part fails (1): the agent starts the process again."""
    stopped = stop_signal()
    errors: list[BaseException] = []

    def failed(error: BaseException) -> None:
        errors.append(error)
        stopped.set()

    telemetry = Telemetry(config, clock, failed)
    await telemetry.start()
    memory.settle()
    try:
        await stopped.wait()
    finally:
        await telemetry.stop()
        logger.info("telemetry stopped")
    return 1 if errors else 0


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of the process; returns its status."""
    parser = argparse.ArgumentParser(
        prog="hubble.telemetry", description="Flow metrics and OTLP of one node."
    )
    parser.add_argument("--config-json", required=True, help="configuration as one JSON object")
    args = parser.parse_args(argv)
    try:
        config = TelemetryConfig.parse(args.config_json)
    except InvalidInputError as error:
        sys.stderr.write(f"hubble.telemetry: {error}\n")
        return EXIT_BAD_CONFIG
    log.configure(config.log_level, config.log_format)
    if not die_with_parent(config.parent_pid):
        return 0
    os.nice(NICENESS)
    memory.share_one_arena()
    return asyncio.run(serve(config, SystemClock()))


if __name__ == "__main__":
    sys.exit(main())
