"""Taking a broken stream up again without missing or doubling a flow: pure.

A node is asked again for what is not older than a little before the newest flow that came (`OVERLAP_NS`:
flows of different CPUs are stored slightly out of order, and late). What had come already is known by its
hash and left out. Input: requests and batches; output: the next request, and batches without doubles.
"""

from collections import deque
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from palomar_pb.observer import observer_pb2
from relay.merge import Times

OVERLAP_NS = 5_000_000_000
MAX_REMEMBERED = 1_000_000
"""Hashes kept per node and client (8 MiB); with more within OVERLAP_NS some may come twice on a break."""

Hashes = npt.NDArray[np.int64]


class Resumption:
    """What one client has had from one node."""

    def __init__(self, request: observer_pb2.GetFlowsRequest, started_ns: int) -> None:
        """`started_ns` is when the client asked (relay's wall clock)."""
        self._request = request
        whole = request.first or request.HasField("since")
        self._bounded = not whole
        """Whether the answer begins somewhere that the next question does not say."""
        self._floor_ns = started_ns if self._bounded and not request.number else 0
        """What is older was not asked for."""
        self._differs = False
        """Whether what is asked now is not what the client asked."""
        self._clock_known = False
        self._newest_ns = 0
        self._tail: deque[tuple[Times, Hashes]] = deque()
        self._remembered = 0
        self._known: set[int] = set()
        self._horizon_ns = 0
        self.resumed = 0
        """How often it was taken up again."""
        self._seen_again = False
        self.gap = False
        """The newest flow that had come was not there any more: some after it may have gone unseen."""
        self.doubles = 0
        """Responses left out because they had come already."""

    def request(self, *, again: bool) -> observer_pb2.GetFlowsRequest:
        """What to ask; `again` after a break."""
        request = observer_pb2.GetFlowsRequest()
        request.CopyFrom(self._request)
        if not again:
            return request
        self.resumed += 1
        self._known = {value for _, hashes in self._tail for value in hashes.tolist()}
        self._horizon_ns = self._newest_ns
        self._seen_again = False
        begin_ns = max(self._newest_ns or self._floor_ns, 0)
        if not begin_ns:
            return request  # nothing has come: the first question still stands
        self._differs = True
        request.ClearField("number")
        request.first = False
        since_ns = begin_ns - OVERLAP_NS
        if request.HasField("since"):
            since_ns = max(since_ns, request.since.ToNanoseconds())
        request.since.FromNanoseconds(max(since_ns, 0))
        return request

    def take(self, times: Times, items: Sequence[bytes], clock_ns: int = 0) -> tuple[Times, Sequence[bytes]]:
        """Note a batch (and the node's clock, 0: not told); return what of it is new."""
        if self._bounded and not self._differs:
            self._learn_begin(times, clock_ns)
        if not len(times):
            # An idle node; what it is still to store may be a little older than its clock.
            if clock_ns:
                self._reach(clock_ns - OVERLAP_NS, clock_ns)
            return times, items
        hashes = np.fromiter(map(hash, items), np.int64, len(items))
        if self._differs and (self._known or self._floor_ns):
            times, items, hashes = self._only_new(times, items, hashes)
        if len(times):
            self._remember(times, hashes, clock_ns)
        return times, items

    def _learn_begin(self, times: Times, clock_ns: int) -> None:
        """Before the first break: how old the answer's flows are, by the node's own clock."""
        if self._floor_ns and clock_ns and not self._clock_known:
            self._clock_known = True
            self._floor_ns = clock_ns
        if len(times):
            oldest_ns = int(times.min())
            self._floor_ns = min(self._floor_ns or oldest_ns, oldest_ns)

    def _only_new(
        self, times: Times, items: Sequence[bytes], hashes: Hashes
    ) -> tuple[Times, Sequence[bytes], Hashes]:
        known = self._known
        new = np.fromiter((value not in known for value in hashes.tolist()), np.bool_, len(hashes))
        doubles = len(items) - int(np.count_nonzero(new))
        self.doubles += doubles
        self._seen_again |= doubles > 0
        if known and int(times.min()) > self._horizon_ns:
            # What had come lies before everything new in the node's store: that is over.
            self.gap = not self._seen_again
            self._known = set()
        new &= times >= self._floor_ns
        if new.all():
            return times, items, hashes
        return times[new], [items[row] for row in np.flatnonzero(new).tolist()], hashes[new]

    def _reach(self, newest_ns: int, clock_ns: int) -> None:
        """Note how far the node's flows have come; a clock that was set back is believed."""
        if clock_ns < self._newest_ns - OVERLAP_NS:
            self._newest_ns = newest_ns
            self._floor_ns = min(self._floor_ns, newest_ns)
        else:
            self._newest_ns = max(self._newest_ns, newest_ns)

    def _remember(self, times: Times, hashes: Hashes, clock_ns: int) -> None:
        newest_ns = int(times.max())
        self._reach(newest_ns, clock_ns or newest_ns)
        self._tail.append((times, hashes))
        self._remembered += len(hashes)
        oldest_ns = self._newest_ns - OVERLAP_NS
        while self._tail and (self._remembered > MAX_REMEMBERED or int(self._tail[0][0].max()) < oldest_ns):
            self._remembered -= len(self._tail.popleft()[1])
