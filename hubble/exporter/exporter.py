"""The OTLP exporter: goes through the flow store by position and hands every flow to the collector once.

Input: a StoreFollower and a transport; output: requests, and counts of what became of every flow. One batch
is in flight, nothing is queued beside it: the store is the queue. While the collector does not answer,
flows stay where they are; when it is `catch_up_flows` behind, the oldest are given up and counted. What a
collector took although its answer got lost is sent again (each record carries the flow's uuid). Every row
is accounted for: read = exported + refused + filtered + pending, and what was not read is overrun.
"""

import asyncio
import logging
import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from hubble.exporter.config import OtlpConfig
from hubble.exporter.errors import ExportFailedError, ExportRefusedError
from hubble.exporter.records import RecordBuilder
from hubble.exporter.requests import RequestEncoder, fitting
from hubble.exporter.transport import LOGS, METRICS, Transport
from hubble.filterfields.predicates import View
from hubble.metrics.registry import FamilyTotals
from hubble.observingnode import ObservingNode
from hubble.storefollower import StoreFollower
from palomar.clock import Clock
from palomar.errors import InvalidInputError

logger = logging.getLogger(__name__)

MIN_BACKOFF_S = 0.5
MAX_BACKOFF_S = 30.0
POLL_S = 0.1
LOG_EVERY_NS = 60 * 1_000_000_000

OVERRUN, REFUSED = "overrun", "refused"

Totals = Callable[[], Sequence[FamilyTotals]]


@dataclass(slots=True)
class ExportCounts:
    """What became of everything."""

    exported: Counter[str] = field(default_factory=Counter)
    """By signal: flows (logs) or points (metrics) the collector took."""
    refused: Counter[str] = field(default_factory=Counter)
    """By signal: what it will never take."""
    filtered: int = 0
    """Flows that the filters leave out."""
    failures: Counter[str] = field(default_factory=Counter)
    """Requests that failed, by kind."""
    requests: Counter[str] = field(default_factory=Counter)
    """Requests that were answered well, by signal."""
    errors: dict[str, str] = field(default_factory=dict)
    """By signal: why its latest request did not go well; a signal that goes well is not there."""

    @property
    def is_up(self) -> bool:
        """The latest request of every signal went well."""
        return not self.errors

    @property
    def last_error(self) -> str:
        """Why not; empty while all goes well."""
        return next(iter(self.errors.values()), "")


class Backoff:
    """Delays that double, with jitter; starts again after a success."""

    def __init__(self) -> None:
        """The first delay is the least."""
        self._delay_s = MIN_BACKOFF_S

    def reset(self) -> None:
        """Something went well."""
        self._delay_s = MIN_BACKOFF_S

    def next_s(self, wish_s: float) -> float:
        """Return how long to wait now: at least `wish_s`, at most MAX_BACKOFF_S."""
        delay_s = max(self._delay_s * random.uniform(0.5, 1.0), wish_s)  # noqa: S311  # jitter, not a secret
        self._delay_s = min(self._delay_s * 2, MAX_BACKOFF_S)
        return min(delay_s, MAX_BACKOFF_S)


@dataclass(frozen=True, slots=True)
class _Batch:
    request: bytes
    flows: int
    """Flows in the request."""
    filtered: int
    rows: int
    """Rows of the store it stands for."""


class Exporter:
    """One collector's exporter."""

    def __init__(
        self,
        config: OtlpConfig,
        follower: StoreFollower,
        transport: Transport,
        encoder: RequestEncoder,
        node: ObservingNode,
        clock: Clock,
    ) -> None:
        """Nothing happens before `export_logs` or `export_metrics` run as tasks."""
        self._config = config
        self.follower = follower
        self._transport = transport
        self._encoder = encoder
        self._matcher = config.matcher(node)
        self._clock = clock
        self._builder: RecordBuilder | None = None
        self._built_for = (-1, -1)
        self._started_ns = clock.wall_ns()
        self._logged_ns: dict[str, int] = {}
        self._pause = Backoff()
        self._torn = 0
        self.counts = ExportCounts()

    @property
    def overrun(self) -> int:
        """Flows given up because the collector was too far behind, or overwritten."""
        return self.follower.skipped + self._torn

    async def export_logs(self) -> None:
        """Export flows until cancelled."""
        waited_s = 0.0
        while True:
            is_due = self.follower.lag >= self._config.batch_flows or waited_s >= self._config.interval_s
            batch = self._next_batch() if is_due else None
            if batch is not None:
                await self._deliver(batch)
                continue
            waited_s = 0.0 if is_due else waited_s + POLL_S
            self._open_store()
            await asyncio.sleep(POLL_S)

    def _open_store(self) -> None:
        """A follower without a store, or at the end of a replaced one, looks again when read."""
        if self.follower.lag == 0:
            self.follower.read(1)

    def _next_batch(self) -> _Batch | None:
        block = self.follower.read(self._config.batch_flows)
        if block is None:
            return None
        builder = self._current_builder()
        chosen = np.flatnonzero(self._matcher.mask(View(block, self.follower.names)))
        # A row overwritten between reading its columns and its record is all zeros.
        whole = chosen[block.column("version")[chosen] != 0]
        records = builder.records(block, whole, self._clock.wall_ns())
        count = fitting(records)
        rows = len(block)
        if count < len(records):
            records, rows = records[:count], int(whole[count])
        self._torn += int(np.count_nonzero(chosen < rows) - np.count_nonzero(whole < rows))
        request = self._encoder.logs(records) if records else b""
        return _Batch(request, len(records), int(rows - np.count_nonzero(chosen < rows)), rows)

    def _current_builder(self) -> RecordBuilder:
        follower = self.follower
        now = (follower.stores, follower.names.generation)
        if self._builder is None or now[0] != self._built_for[0]:
            self._builder = RecordBuilder(follower.names, follower.store_id)
        elif now[1] != self._built_for[1]:
            self._builder.forget_names()
        self._built_for = now
        return self._builder

    async def _deliver(self, batch: _Batch) -> None:
        """Send until it is taken, refused, or too old."""
        backoff = Backoff()
        pause_s = 0.0
        while batch.flows:
            try:
                refused = await self._transport.send(LOGS, batch.request)
            except ExportRefusedError as error:
                self._failed(LOGS, REFUSED, error)
                self.counts.refused[LOGS] += batch.flows
                # Whatever comes next will probably be refused too: not at full speed.
                pause_s = self._pause.next_s(0.0)
                break
            except (ExportFailedError, InvalidInputError) as error:
                kind, wish_s = ("tls", 0.0)
                if isinstance(error, ExportFailedError):
                    kind, wish_s = error.kind, error.retry_after_s
                self._failed(LOGS, kind, error)
                await asyncio.sleep(backoff.next_s(wish_s))
                if self.follower.is_overtaken():
                    return
            else:
                self._went_well(LOGS, batch.flows, refused)
                break
        self.counts.filtered += batch.filtered
        self.follower.advance(batch.rows)
        await asyncio.sleep(pause_s)

    def _went_well(self, signal: str, items: int, refused: int) -> None:
        self._pause.reset()
        counts = self.counts
        counts.exported[signal] += items - min(refused, items)
        counts.refused[signal] += min(refused, items)
        counts.requests[signal] += 1
        if counts.errors.pop(signal, ""):
            facts = {"endpoint": self._config.endpoint, "signal": signal}
            logger.info("OTLP collector answers again", extra=facts)

    def _failed(self, signal: str, kind: str, error: Exception) -> None:
        counts = self.counts
        counts.failures[kind] += 1
        now_ns = self._clock.monotonic_ns()
        if signal not in counts.errors or now_ns - self._logged_ns.get(signal, 0) > LOG_EVERY_NS:
            self._logged_ns[signal] = now_ns
            facts = {
                "endpoint": self._config.endpoint,
                "signal": signal,
                "error": str(error),
                "lag": self.follower.lag,
            }
            logger.warning("OTLP export failed, trying again", extra=facts)
        counts.errors[signal] = str(error)

    async def export_metrics(self, totals: Totals) -> None:
        """Export what `totals` returns every `metrics_interval_s` until cancelled.

        Sums since the start: one that did not arrive is made good by the next.
        """
        while True:
            await asyncio.sleep(self._config.metrics_interval_s)
            requests = self._encoder.metrics(totals(), self._started_ns, self._clock.wall_ns())
            for request, points in requests:
                await self._deliver_metrics(request, points)

    async def _deliver_metrics(self, request: bytes, points: int) -> None:
        try:
            refused = await self._transport.send(METRICS, request)
        except (ExportRefusedError, ExportFailedError, InvalidInputError) as error:
            kind = error.kind if isinstance(error, ExportFailedError) else REFUSED
            self._failed(METRICS, kind, error)
            self.counts.refused[METRICS] += points
        else:
            self._went_well(METRICS, points, refused)
