"""Counts of flows by edge, verdict class and time: a ring of two-second columns over fifteen minutes.

Pure; time is an argument. Input: `ui.model` adds flows; output: sums over a window for the map and the
timeline. Memory is flat: the number of edges is bounded, idle ones give their row to new ones, and what
found no row is counted. Each edge keeps its latest flows, so that a busy neighbour cannot push them out.
"""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from ui.flowrow import EdgeKey, FlowRow, VerdictClass

BUCKET_NS = 2_000_000_000
BUCKETS = 450
"""Fifteen minutes."""
RATE_BUCKETS = 5
"""Rates are means over ten seconds: short enough to be news, long enough to hold still."""
MAX_EDGES = 4096
MAX_PORTS_PER_PAIR = 12
"""More ports between the same two workloads (a port scan) fold into one edge of port 0."""
LATEST_FLOWS = 12
_FIRST_ROWS = 256

Counts = npt.NDArray[np.uint16]
MAX_COUNT = 65_535
"""Of one edge and verdict in one bucket: more than 32,000 flows a second are shown as that many."""


@dataclass(slots=True)
class EdgeRecord:
    """One edge and its latest flows."""

    key: EdgeKey
    row: int
    latest: list[FlowRow] = field(default_factory=list)
    """The last LATEST_FLOWS, oldest first; a list: most edges have one or two, and a deque takes 0.6 kB."""
    latest_dropped: list[FlowRow] = field(default_factory=list)
    last_seen_ns: int = 0

    def keep(self, row: FlowRow) -> None:
        """Remember `row` among the latest."""
        lists = (self.latest, self.latest_dropped) if row.verdict is VerdictClass.DROPPED else (self.latest,)
        for rows in lists:
            rows.append(row)
            if len(rows) > LATEST_FLOWS:
                del rows[0]


class EdgeTable:
    """Counts by edge. Not thread-safe: its owner locks."""

    def __init__(self, max_edges: int = MAX_EDGES) -> None:
        """Room for `max_edges` edges, allocated as they come."""
        self._max_edges = max_edges
        self._counts: Counts = np.zeros((BUCKETS, min(_FIRST_ROWS, max_edges), len(VerdictClass)), np.uint16)
        self._records: OrderedDict[EdgeKey, EdgeRecord] = OrderedDict()
        """The one whose last flow came longest ago stands first."""
        self._pairs: dict[tuple[object, object], int] = {}
        self._by_row: list[EdgeRecord | None] = []
        self._newest = 0
        self._oldest_ns = 0
        self.unplaced = 0
        """Flows that found no row: every row belonged to an edge seen within the window."""

    def __len__(self) -> int:
        """Count the edges."""
        return len(self._records)

    def records(self) -> list[EdgeRecord]:
        """Every edge, oldest row first."""
        return [record for record in self._by_row if record is not None]

    def get(self, edge_id: str) -> EdgeRecord | None:
        """Find an edge by its text; O(edges)."""
        return next((record for key, record in self._records.items() if key.id == edge_id), None)

    def fold(self, key: EdgeKey) -> EdgeKey:
        """Return the key under which `key` is counted: its own, or the pair's folded one."""
        if key in self._records or self._pairs.get((key.source, key.destination), 0) < MAX_PORTS_PER_PAIR:
            return key
        return EdgeKey(key.source, key.destination, key.protocol, 0)

    def add(self, row: FlowRow, time_ns: int, now_ns: int) -> None:
        """Count one flow at `time_ns`; a time outside the window counts as now."""
        self.advance(now_ns)
        bucket = time_ns // BUCKET_NS
        if not self._newest - BUCKETS < bucket <= self._newest:
            bucket = self._newest
        if not self._oldest_ns:
            self._oldest_ns = bucket * BUCKET_NS
        record = self._records.get(row.edge) or self._place(row.edge)
        if record is None:
            self.unplaced += 1
            return
        self._records.move_to_end(row.edge)
        record.keep(row)
        record.last_seen_ns = now_ns
        place = bucket % BUCKETS, record.row, row.verdict
        if self._counts[place] < MAX_COUNT:
            self._counts[place] += 1

    def advance(self, now_ns: int) -> None:
        """Let time pass: empty the columns that begin anew."""
        bucket = now_ns // BUCKET_NS
        steps = bucket - self._newest
        if steps <= 0:
            return
        if steps >= BUCKETS:
            self._counts[:] = 0
        else:
            for number in range(self._newest + 1, bucket + 1):
                self._counts[number % BUCKETS] = 0
        self._newest = bucket

    def window(self, now_ns: int, buckets: int) -> "Window":
        """Return the counts of the last `buckets` columns (a copy)."""
        self.advance(now_ns)
        rows = len(self._by_row)
        numbers = np.arange(self._newest - buckets + 1, self._newest + 1) % BUCKETS
        counts = self._counts[numbers, :rows]
        elapsed_ns = max(now_ns - max((self._newest - RATE_BUCKETS) * BUCKET_NS, self._oldest_ns), BUCKET_NS)
        recent = self._counts[numbers[-(RATE_BUCKETS + 1) :], :rows].sum(axis=0, dtype=np.float64)
        return Window(
            records=tuple(self._by_row),
            counts=counts,
            totals=counts.sum(axis=0, dtype=np.int64),
            rates=recent / (elapsed_ns / 1e9),
            first_ns=int(self._newest - buckets + 1) * BUCKET_NS,
        )

    def _place(self, key: EdgeKey) -> EdgeRecord | None:
        if len(self._by_row) < self._max_edges:
            index = len(self._by_row)
            self._by_row.append(None)
            if index >= self._counts.shape[1]:
                grown = min(self._counts.shape[1] * 2, self._max_edges)
                # Filled, not `zeros`: pages that are touched only as the ring turns would look like a leak.
                wider = np.empty((BUCKETS, grown, len(VerdictClass)), np.uint16)
                wider.fill(0)
                wider[:, : self._counts.shape[1]] = self._counts
                self._counts = wider
        else:
            found = self._idle_row()
            if found is None:
                return None
            index = found
        record = EdgeRecord(key, index)
        self._by_row[index] = record
        self._records[key] = record
        pair = (key.source, key.destination)
        self._pairs[pair] = self._pairs.get(pair, 0) + 1
        return record

    def _idle_row(self) -> int | None:
        oldest = next(iter(self._records.values()))
        if oldest.last_seen_ns > (self._newest - BUCKETS) * BUCKET_NS:
            return None
        del self._records[oldest.key]
        pair = (oldest.key.source, oldest.key.destination)
        self._pairs[pair] -= 1
        if not self._pairs[pair]:
            del self._pairs[pair]
        self._counts[:, oldest.row] = 0
        return oldest.row


@dataclass(frozen=True, slots=True)
class Window:
    """Counts of a stretch of time; row i belongs to `records[i]`."""

    records: Sequence[EdgeRecord | None]
    counts: Counts
    """[bucket, edge, verdict class], oldest bucket first."""
    totals: npt.NDArray[np.int64]
    """[edge, verdict class] over the window."""
    rates: npt.NDArray[np.float64]
    """[edge, verdict class] flows per second, lately."""
    first_ns: int
    """Start of the oldest bucket."""

    def timeline(self, rows: Sequence[int]) -> npt.NDArray[np.int64]:
        """Return [bucket, verdict class] summed over the edges at `rows`."""
        chosen = self.counts if len(rows) == len(self.records) else self.counts[:, list(rows)]
        summed: npt.NDArray[np.int64] = chosen.sum(axis=1, dtype=np.int64)
        return summed
