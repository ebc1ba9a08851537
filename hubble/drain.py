"""One turn of the event path: rings -> rows -> store -> counters, with every event accounted for.

Not the process (`hubble.ingest`) and not perf events (`datapath.perf`): it takes rings and counters by
Protocol, so tests feed it bytes. What one turn does, in an order that matters:

1. all heads, then the kernel's counters: every number below a counter of the turn before is either before
this
   head or lost (`hubble.accounting`);
2. rows into the store's next slots, names flushed before them, rings given back;
3. head and accounts committed in one step, with the losses noticed.
"""

import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from datapath.samples import Samples
from hubble.accounting import CpuAccount, Drained, KernelCount, settle
from hubble.binder import Binder
from hubble.edges import Edges
from hubble.flowmetrics import FlowMetrics
from hubble.intake import Batch, CpuRuns
from hubble.names import NamesWriter
from hubble.storemapping import Loss
from hubble.storewriter import FlowStoreWriter
from palomar.clock import Clock

logger = logging.getLogger(__name__)

BLOCK_ROWS = 8192
"""Rows counted at once: per row a block of 64 costs seven times as much."""
LOSS_INTERVAL_NS = 100_000_000
"""At most one entry a CPU in the losses log per interval; the accounts are exact at any time."""
WARNING_INTERVAL_NS = 10_000_000_000


class Ring(Protocol):
    """The perf ring of one CPU, as `datapath.perf.PerfRing`."""

    cpu: int

    def head(self) -> int:
        """Where the kernel writes next."""
        ...

    def drain(self, head: int) -> Samples:
        """What is there up to `head`."""
        ...

    def release(self, samples: Samples) -> None:
        """Give the ring back up to where `samples` ended."""
        ...


class Counters(Protocol):
    """The kernel's counters, as `datapath.perf.EventCounters`."""

    def read(self) -> npt.NDArray[np.uint64]:
        """Shape (CPUs, 3): emitted, failed, suppressed."""
        ...


class Drain:
    """The event path of a node behind its rings."""

    def __init__(
        self,
        rings: Sequence[Ring],
        counters: Counters,
        store: FlowStoreWriter,
        names: NamesWriter,
        binder: Binder,
        clock: Clock,
    ) -> None:
        """The store's accounts must be those of `counters` (`FlowStoreWriter.begin_source`)."""
        self.metrics = FlowMetrics()
        self.edges = Edges()
        self._rings = list(rings)
        self._counters = counters
        self._store = store
        self._names = names
        self._binder = binder
        self._clock = clock
        self._counted = store.head
        self._block_rows = max(1, min(BLOCK_ROWS, store.capacity // 4))
        self._loss_at_ns: dict[int, int] = {}
        self._warn_at_ns = 0

    def turn(self) -> int:
        """Take over what the rings hold now and return how many rows that was."""
        heads = [ring.head() for ring in self._rings]
        kernel = self._counters.read()
        samples = [ring.drain(head) for ring, head in zip(self._rings, heads, strict=True)]
        parts = [CpuRuns(ring.cpu, part.runs) for ring, part in zip(self._rings, samples, strict=True)]
        accounts = self._settled(parts, samples, kernel)
        batch = Batch(parts)
        first = 0
        while len(batch) - first > self._store.max_batch:
            self._write(batch, first, self._store.max_batch)
            self._store.commit(self._store.max_batch, self._plus(batch, first, self._store.max_batch))
            self._count_blocks(self._block_rows)
            first += self._store.max_batch
        self._write(batch, first, len(batch) - first)
        for ring, part in zip(self._rings, samples, strict=True):
            ring.release(part)
        if len(batch) or accounts != self._store.accounting():
            accounts, losses = self._losses(accounts, self._store.head + len(batch) - first)
            self._store.commit(len(batch) - first, accounts, losses)
            self._count_blocks(self._block_rows)
        return len(batch)

    def _settled(
        self, parts: Sequence[CpuRuns], samples: Sequence[Samples], kernel: npt.NDArray[np.uint64]
    ) -> list[CpuAccount]:
        accounts = self._store.accounting()
        drained = [Drained(0, 0)] * len(accounts)
        for part, found in zip(parts, samples, strict=True):
            ahead = part.ahead(accounts[part.cpu].next_seq)
            drained[part.cpu] = Drained(len(part), ahead, found.malformed)
        return [
            settle(account, what, KernelCount(*row))
            for account, what, row in zip(accounts, drained, kernel.tolist(), strict=True)
        ]

    def _plus(self, batch: Batch, first: int, count: int) -> list[CpuAccount]:
        """The accounts with a part of a batch stored and nothing else known yet."""
        stored = batch.stored_by_cpu(first, first + count)
        return [
            replace(account, stored=account.stored + stored.get(account.cpu, 0))
            for account in self._store.accounting()
        ]

    def _write(self, batch: Batch, first: int, count: int) -> None:
        if not count:
            return
        wall_offset_ns = self._clock.wall_ns() - self._clock.monotonic_ns()
        for chunk in self._store.reserve(count):
            batch.fill(first, chunk, wall_offset_ns, self._binder)
            first += len(chunk)
        self._names.flush()

    def _losses(self, accounts: list[CpuAccount], head: int) -> tuple[list[CpuAccount], list[Loss]]:
        """Note what was lost since the last note; a loss taken back by a late event is not noted again."""
        now_ns = self._clock.monotonic_ns()
        losses = []
        for index, account in enumerate(accounts):
            if account.lost <= account.logged or now_ns < self._loss_at_ns.get(account.cpu, 0):
                continue
            self._loss_at_ns[account.cpu] = now_ns + LOSS_INTERVAL_NS
            losses.append(Loss(self._clock.wall_ns(), head, account.lost - account.logged, account.cpu))
            accounts[index] = replace(account, logged=account.lost)
        if losses and now_ns >= self._warn_at_ns:
            self._warn_at_ns = now_ns + WARNING_INTERVAL_NS
            lost = sum(loss.count for loss in losses)
            logger.warning("events lost", extra={"lost": lost, "cpus": [loss.cpu for loss in losses]})
        return accounts, losses

    def count_rest(self) -> None:
        """Count the rows that are not enough for a block yet."""
        self._count_blocks(1)

    def _count_blocks(self, least: int) -> None:
        pending = self._store.head - self._counted
        if pending < least:
            return
        # Whole batches rather than exact blocks: their columns were just written and are still in cache.
        limit = max(self._block_rows, 4 * BLOCK_ROWS)
        while self._counted < self._store.head:
            count = min(self._store.head - self._counted, limit)
            for chunk in self._store.written(self._counted, count):
                self.metrics.count(chunk)
                self.edges.count(chunk.columns)
            self._counted += count

    def stats(self, first: bool) -> dict[str, Any]:
        """Return the message for the agent: accounts, totals since this process began, the store's extent."""
        self.count_rest()
        totals = self.metrics.totals()
        store = self._store
        oldest = store.written(store.oldest, 1)[0].columns["time_ns"] if store.head > store.oldest else [0]
        return {
            "op": "stats",
            "cpus": [
                {
                    "cpu": account.cpu,
                    "emitted": account.emitted,
                    "stored": account.stored,
                    "lost": account.lost,
                    "failed": account.failed,
                    "suppressed": account.suppressed,
                    "malformed": account.malformed,
                }
                for account in store.accounting()
            ],
            "metrics": {
                "flows_processed": totals.flows_processed,
                "drop": totals.drop,
                "tcp": totals.tcp,
                "icmp": totals.icmp,
                "port_distribution": totals.port_distribution,
            },
            "edges": len(self.edges),
            "store": {
                "head": store.head,
                "capacity": store.capacity,
                "oldest_time_ns": int(oldest[0]),
                "set_aside": store.set_aside,
            },
            "first": first,
        }
