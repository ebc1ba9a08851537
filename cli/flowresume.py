"""`--follow` that outlives its server: dial again after a cut and go on where the last flow was seen.

A relay ends every connection at its maximum age, and servers are restarted. The next request asks
for what is since shortly before the newest flow seen, because nodes and CPUs deliver slightly out of
order; what was seen already is known by its uuid and left out. Not for ranges without `--follow`.
Input: a way to dial; output: batches as `cli.flowstream` yields them, and what happened as text for people.
"""

import ssl
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager

import grpc

from cli.errors import CallError, ServerUnreachableError
from cli.flowstream import Batch, stream
from cli.selectors import EVERYTHING, split_ns
from cli.timespec import NS_PER_S
from palomar.clock import Clock, SystemClock
from palomar_pb.observer import observer_pb2

FIRST_WAIT_S = 0.25
LONGEST_WAIT_S = 15.0
OVERLAP_NS = 5 * NS_PER_S
REMEMBERED = 65_536
"""Flows known by uuid; where more came within the overlap, the overlap is shorter."""

CUT_OFF = frozenset({"UNAVAILABLE", "CANCELLED", "ABORTED", "DEADLINE_EXCEEDED"})
CUT_OFF_IN_THE_MIDDLE = frozenset({"INTERNAL", "UNKNOWN"})
"""What a torn connection may also be called; as a first answer they are the server's own failure."""

Responses = Sequence[observer_pb2.GetFlowsResponse]


def follow(
    dial: Callable[[], AbstractContextManager[grpc.Channel]],
    request: observer_pb2.GetFlowsRequest,
    say: Callable[[str], None],
    clock: Clock | None = None,
    sleep: Callable[[float], None] = time.sleep,
) -> Iterator[Batch]:
    """Yield the batches of `request` (one that follows), across as many connections as it takes.

    Ends where the server has sent all up to `until`. Raises what `dial` raises the first time, later
    only a refusal to talk to us, and CallError for an answer that another attempt would not change.
    """
    clock = clock or SystemClock()
    seen = Seen(request, clock.wall_ns())
    wait_s = FIRST_WAIT_S
    cut_ns: int | None = None
    while True:
        began_ns, heard = clock.monotonic_ns(), False
        try:
            with dial() as channel:
                if cut_ns is not None:
                    say(f"resumed after {(clock.monotonic_ns() - cut_ns) / NS_PER_S:.1f} s")
                    cut_ns = None
                began_ns = clock.monotonic_ns()
                for batch in stream(channel, seen.request()):
                    heard = True
                    yield seen.only_new(batch)
            if request.HasField("until") and clock.wall_ns() >= request.until.ToNanoseconds():
                return
            cause = "the server ended the answer"
        except ServerUnreachableError as error:
            if cut_ns is None or _refused(error):
                raise
            cause = ""  # said once already; a server that is away is away
        except CallError as error:
            if not (error.code in CUT_OFF or (heard and error.code in CUT_OFF_IN_THE_MIDDLE)):
                raise
            cause = str(error)
        if cause:
            say(f"interrupted: {cause}; reconnecting")
        now_ns = clock.monotonic_ns()
        cut_ns = now_ns if cut_ns is None else cut_ns
        if heard or now_ns - began_ns > LONGEST_WAIT_S * NS_PER_S:
            wait_s = FIRST_WAIT_S
        sleep(wait_s)
        wait_s = min(2 * wait_s, LONGEST_WAIT_S)


def _refused(error: ServerUnreachableError) -> bool:
    """Tell whether a certificate was not accepted, which a restart does not mend."""
    torn = (ssl.SSLEOFError, ssl.SSLZeroReturnError)
    return isinstance(error.__cause__, ssl.SSLError) and not isinstance(error.__cause__, torn)


class Seen:
    """What has been shown, as far as a resumed answer may repeat it."""

    def __init__(self, first_request: observer_pb2.GetFlowsRequest, now_ns: int) -> None:
        """A follower from now on that is cut before its first flow goes on from `now_ns`."""
        self._first_request = first_request
        self._began_ns = now_ns
        self._asked = False
        self._shown: deque[tuple[int, bytes]] = deque(maxlen=REMEMBERED)
        self._repeatable: set[bytes] = set()

    def request(self) -> observer_pb2.GetFlowsRequest:
        """Return what to ask for next: the first time as it was given, then what came since."""
        if not self._asked:
            self._asked = True
            return self._first_request
        since_ns = self._since_ns()
        if since_ns is None:
            return self._first_request
        self._repeatable = {key for time_ns, key in self._shown if time_ns >= since_ns}
        request = observer_pb2.GetFlowsRequest()
        request.CopyFrom(self._first_request)
        request.number, request.first = EVERYTHING, False
        request.since.seconds, request.since.nanos = split_ns(since_ns)
        return request

    def _since_ns(self) -> int | None:
        """Where to go on; None repeats the first request, nothing of whose past has been shown."""
        if self._shown:
            times = [time_ns for time_ns, _ in self._shown]
            return max(max(times) - OVERLAP_NS, min(times))
        asks_for_past = self._first_request.number or self._first_request.HasField("since")
        return None if asks_for_past else self._began_ns

    def only_new(self, batch: Batch) -> Batch:
        """Take note of `batch` and return it without what an earlier connection brought."""
        responses: list[observer_pb2.GetFlowsResponse] = []
        for response in batch.responses:
            time_ns = response.time.ToNanoseconds()
            if not time_ns or response.HasField("node_status"):
                responses.append(response)
                continue
            key = _key(response)
            if key in self._repeatable:
                self._repeatable.discard(key)
            else:
                self._shown.append((time_ns, key))
                responses.append(response)
        return Batch(responses, batch.observed, batch.lost)


def _key(response: observer_pb2.GetFlowsResponse) -> bytes:
    """Name one response: by uuid, else (a field mask without it, a loss) by all it says."""
    uuid = response.flow.uuid
    return uuid.encode() if uuid else response.SerializeToString(deterministic=True)
