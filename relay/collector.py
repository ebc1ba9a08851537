"""One client's question put to every node, and the answers merged into one stream.

Input: a GetFlowsRequest and the peer pool. Output: batches of serialised GetFlowsResponses in time order,
node status events among them. Nodes that come, return or leave while a client follows are taken in,
resumed, let go. Memory is bounded: a node is read no further while its share of `MAX_HELD_BYTES` waits to
be merged.
"""

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

import grpc
import numpy as np

from palomar.clock import Clock
from palomar_pb.observer import observer_pb2
from palomar_pb.relay import relay_pb2
from relay.merge import Merger, Times
from relay.metrics import RelayMetrics
from relay.nodestream import NodeBatch
from relay.peers import Peer, PeerPool, PeerState
from relay.reader import Events, NodeEndedError, NodeReader

logger = logging.getLogger(__name__)

MAX_HELD_BYTES = 16 << 20
"""Of one client, over all nodes."""
HISTORY_WAIT_NS = 1_000_000_000
"""How long the past of others waits for a node that does not begin, or stops, to tell its own."""
BEGIN_S = 1.0
MAX_MERGED_BYTES = 2 << 20
"""Of what is handed on at once: clients refuse messages of more than 4 MiB unless told otherwise."""
MAX_NOTICES = 1_024
"""Node states that wait for a client; of one that does not read only the newest count."""
MAX_COUNTER = (1 << 64) - 1
READ_AGAIN_S = 1.0
MALFORMED = "{count} responses left out: they are no flows, or larger than 1 MiB"
MALFORMED_EVERY_NS = 60_000_000_000
GAP = "flows may be missing before this: the node's store no longer had the last flow that came from it"
CAUGHT_UP_NS = 1_000_000_000
"""A follower's node whose flows are no older than this has told its past."""


@dataclass(frozen=True, slots=True)
class Merged:
    """Responses that may go to the client now."""

    items: Sequence[bytes]
    times: Times
    observed: int = 0
    lost: int = 0
    """Counters of the nodes that told them, summed."""


class FlowClock:
    """The monotonic clock, standing still while the client does not take what it is given.

    Bounded waiting is about nodes: a client that pauses must not make waiting nodes look silent.
    """

    def __init__(self, clock: Clock) -> None:
        """Start running."""
        self._clock = clock
        self._paused_ns = 0
        self._since_ns: int | None = None

    def now_ns(self) -> int:
        """Nanoseconds without the pauses."""
        now = self._since_ns if self._since_ns is not None else self._clock.monotonic_ns()
        return now - self._paused_ns

    def pause(self) -> None:
        """Stand still."""
        self._since_ns = self._clock.monotonic_ns()

    def go_on(self) -> None:
        """Run again."""
        if self._since_ns is not None:
            self._paused_ns += self._clock.monotonic_ns() - self._since_ns
            self._since_ns = None


class Collector:
    """Runs one request over all peers."""

    def __init__(
        self,
        pool: PeerPool,
        request: observer_pb2.GetFlowsRequest,
        clock: Clock,
        max_wait_ns: int,
        relay_name: str,
        metrics: RelayMetrics,
    ) -> None:
        """`max_wait_ns` bounds how long a flow that happens now waits for slower nodes."""
        self._pool = pool
        self._request = request
        self._clock = clock
        self._flow_clock = FlowClock(clock)
        self._live_wait_ns = max_wait_ns
        self._relay_name = relay_name
        self._metrics = metrics
        tells_past = bool(request.number or request.first or request.HasField("since"))
        history = tells_past or not request.follow
        self._merger: Merger[str, bytes] = Merger(
            HISTORY_WAIT_NS if history else max_wait_ns, history=history
        )
        self._behind: set[str] = set()
        """Nodes that have not yet told their past."""
        self._notices: deque[bytes] = deque(maxlen=MAX_NOTICES)
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._readers: dict[str, NodeReader] = {}
        self._wake = asyncio.Event()
        self._room = asyncio.Event()
        self._item_bytes: dict[str, float] = {}
        """Mean size of a response of a node's last batch."""
        self._counters: dict[str, tuple[int, int]] = {}
        self._malformed: dict[str, tuple[int, int | None]] = {}
        """Responses of a node left out so far, and when that was told last."""
        self._failure: BaseException | None = None
        self._started_ns = clock.wall_ns()
        self._stop_listening: Callable[[], None] = _nothing
        self._unbegun: set[str] = set()
        self._all_begun = asyncio.Event()

    async def start(self) -> None:
        """Ask every node; return when all that are connected have begun to answer, or after `BEGIN_S`.

        Of what happens from then on a follower misses nothing.
        """
        self._stop_listening = self._pool.listen(self._peer_changed)
        await self._pool.settled()
        self._notice_states()
        for entry in self._pool.entries():
            if self._request.follow or entry.state is PeerState.CONNECTED:
                self._begin(entry.peer.name, late=entry.state is not PeerState.CONNECTED)
        self._check_begun()
        with suppress(TimeoutError):
            await asyncio.wait_for(self._all_begun.wait(), BEGIN_S)

    async def run(self) -> AsyncIterator[Merged]:
        """Yield until every node has finished; a follower's call never ends by itself.

        Raises grpc.aio.AioRpcError for a request that a node calls invalid.
        """
        while True:
            if self._failure is not None:
                raise self._failure
            self._wake.clear()
            finished = not self._request.follow and not self._tasks
            merged = self._take()
            if merged.items:
                self._flow_clock.pause()
                for part in parts(merged):
                    yield part
                self._flow_clock.go_on()
            elif finished:
                return
            else:
                await self._nap()

    async def stop(self) -> None:
        """Leave the nodes; may be called at any time, and again."""
        self._stop_listening()
        self._stop_listening = _nothing
        ending = list(self._tasks.values())
        for task in ending:
            task.cancel()
        await asyncio.gather(*ending, return_exceptions=True)

    # Nodes that come and go

    def _notice_states(self) -> None:
        """Open the stream with what is connected and what is not."""
        by_state: dict[PeerState, list[Peer]] = {}
        for entry in self._pool.entries():
            state = PeerState.CONNECTED if entry.state is PeerState.CONNECTED else PeerState.UNAVAILABLE
            by_state.setdefault(state, []).append(entry.peer)
        for state in (PeerState.CONNECTED, PeerState.UNAVAILABLE):
            if state in by_state:
                away = [entry for entry in self._pool.entries() if entry.peer in by_state[state]]
                reason = whose_reasons([(entry.peer.name, entry.reason) for entry in away])
                self._notice(state, by_state[state], reason if state is PeerState.UNAVAILABLE else "")

    def _notice(self, state: PeerState, peers: Sequence[Peer], reason: str) -> None:
        now_ns = self._clock.wall_ns()
        response = status_response(state, peers, reason, now_ns, self._relay_name)
        self._notices.append(response.SerializeToString())
        self._wake.set()

    def _peer_changed(self, peer: Peer, state: PeerState, reason: str) -> None:
        self._notice(state, [peer], reason)
        if state is PeerState.UNAVAILABLE and peer.name in self._readers:
            self._readers[peer.name].interrupt(reason)
        if state is PeerState.GONE:
            task = self._tasks.get(peer.name)
            if task is not None:
                task.cancel()
        elif self._request.follow and peer.name not in self._tasks:
            self._begin(peer.name, late=True)

    def _begin(self, name: str, *, late: bool) -> None:
        entry = self._pool.get(name)
        if entry is None:
            return
        self._merger.add(name, self._flow_clock.now_ns())
        self._item_bytes[name] = 0.0
        if self._merger.history and self._request.follow:
            self._behind.add(name)
        if entry.state is PeerState.CONNECTED:
            self._unbegun.add(name)
        events = Events(
            begun=lambda: self._has_begun(name),
            resumed=self._metrics.resumed.labels(name).inc,
            gap=lambda: self._notice(PeerState.ERROR, [entry.peer], GAP),
            malformed=lambda count: self._left_out(entry.peer, count),
        )
        reader = NodeReader(
            entry, self._request, self._started_ns, self._clock, lambda batch: self._push(name, batch), events
        )
        self._readers[name] = reader
        task = asyncio.get_running_loop().create_task(
            self._read(entry.peer, reader, late), name=f"read {name}"
        )
        self._tasks[name] = task
        task.add_done_callback(lambda _: self._ended(name))

    def _has_begun(self, name: str) -> None:
        self._unbegun.discard(name)
        self._check_begun()

    def _check_begun(self) -> None:
        if not self._unbegun:
            self._all_begun.set()

    async def _read(self, peer: Peer, reader: NodeReader, late: bool) -> None:
        """Read one node to its end; what goes wrong with it is told in the stream and ends no other's."""
        while True:
            try:
                await reader.run(late=late)
            except NodeEndedError as error:
                self._notice(PeerState.ERROR, [peer], str(error))
            except grpc.aio.AioRpcError as error:
                self._failure = error
            except Exception as error:
                logger.exception("reading a node failed", extra={"peer": peer.name})
                self._notice(PeerState.ERROR, [peer], f"reading it failed: {error}")
                if self._request.follow:
                    late = True
                    await asyncio.sleep(READ_AGAIN_S)
                    continue
            return

    def _left_out(self, peer: Peer, count: int) -> None:
        """Count responses that were none; say so at once, then once a minute."""
        self._metrics.malformed.labels(peer.name).inc(count)
        total, told_ns = self._malformed.get(peer.name, (0, None))
        now_ns = self._clock.monotonic_ns()
        if told_ns is None or now_ns - told_ns >= MALFORMED_EVERY_NS:
            told_ns = now_ns
            self._notice(PeerState.ERROR, [peer], MALFORMED.format(count=total + count))
        self._malformed[peer.name] = (total + count, told_ns)

    def _ended(self, name: str) -> None:
        self._tasks.pop(name, None)
        self._readers.pop(name, None)
        self._behind.discard(name)
        self._has_begun(name)
        self._merger.finish(name)
        self._wake.set()

    # Flows

    async def _push(self, name: str, batch: NodeBatch) -> None:
        now_ns = self._flow_clock.now_ns()
        self._merger.push(name, batch.times, batch.items, now_ns)
        self._metrics.received.labels(name).inc(len(batch.items))
        if batch.observed or batch.lost:
            self._counters[name] = (batch.observed, batch.lost)
        if batch.clock_ns:
            offset_s = (batch.clock_ns - self._clock.wall_ns()) / 1e9
            self._metrics.clock_offset.labels(name).set(offset_s)
        if self._behind:
            self._caught_up(name, batch)
        self._wake.set()
        if batch.items:
            self._item_bytes[name] = sum(map(len, batch.items)) / len(batch.items)
        while self._is_full(name):
            self._room.clear()
            await self._room.wait()

    def _is_full(self, name: str) -> bool:
        """More of this node waits than its share."""
        held_bytes = self._merger.held_by(name) * self._item_bytes[name]
        return held_bytes > MAX_HELD_BYTES / max(1, len(self._tasks))

    def _caught_up(self, name: str, batch: NodeBatch) -> None:
        """With the last node's past told, waiting is about the present."""
        now_ns = batch.clock_ns or self._clock.wall_ns()
        if not len(batch.items) or now_ns - int(batch.times[-1]) < CAUGHT_UP_NS:
            self._behind.discard(name)

    def _take(self) -> Merged:
        now_ns = self._flow_clock.now_ns()
        self._behind = {name for name in self._behind if not self._merger.is_silent(name, now_ns)}
        if self._merger.history and self._request.follow and not self._behind:
            self._merger.history = False
            self._merger.max_wait_ns = self._live_wait_ns
        released = self._merger.release(now_ns)
        self._room.set()
        items, times = released.items, released.times
        if self._notices:
            notices = list(self._notices)
            self._notices.clear()
            stamps = np.full(len(notices), self._clock.wall_ns(), np.int64)
            items, times = notices + items, np.concatenate([stamps, times])
        observed = min(sum(observed for observed, _ in self._counters.values()), MAX_COUNTER)
        lost = min(sum(lost for _, lost in self._counters.values()), MAX_COUNTER)
        return Merged(items, times, observed, lost)

    async def _nap(self) -> None:
        """Sleep until something comes or waiting is over for something."""
        deadline_ns = self._merger.next_deadline_ns(self._flow_clock.now_ns())
        if deadline_ns is None:
            await self._wake.wait()
            return
        left_s = (deadline_ns - self._flow_clock.now_ns()) / 1e9
        try:
            await asyncio.wait_for(self._wake.wait(), max(0.001, left_s))
        except TimeoutError:
            return


def _nothing() -> None:
    """Nobody listens."""


def parts(merged: Merged) -> Iterator[Merged]:
    """Cut what is too much for one message into pieces of at most MAX_MERGED_BYTES, or of one response."""
    sizes = np.fromiter(map(len, merged.items), np.int64, len(merged.items))
    if int(sizes.sum()) <= MAX_MERGED_BYTES:
        yield merged
        return
    start = held = 0
    for index, size in enumerate(sizes.tolist()):
        if index > start and held + size > MAX_MERGED_BYTES:
            yield replace(merged, items=merged.items[start:index], times=merged.times[start:index])
            start, held = index, 0
        held += size
    yield replace(merged, items=merged.items[start:], times=merged.times[start:])


def whose_reasons(reasons: Sequence[tuple[str, str]]) -> str:
    """Say why nodes are away: the reason alone where all have one, else each with its node's name."""
    distinct = {reason for _, reason in reasons}
    if len(distinct) <= 1:
        return "".join(distinct)
    return "; ".join(f"{name}: {reason or 'not connected yet'}" for name, reason in reasons)


def status_response(
    state: PeerState, peers: Sequence[Peer], reason: str, now_ns: int, relay_name: str
) -> observer_pb2.GetFlowsResponse:
    """Say in the stream that `peers` are in `state`."""
    response = observer_pb2.GetFlowsResponse(node_name=relay_name)
    response.time.FromNanoseconds(now_ns)
    response.node_status.state_change = relay_pb2.NodeState.ValueType(int(state))
    response.node_status.node_names.extend(peer.name for peer in peers)
    response.node_status.message = reason
    return response
