"""What a follower has shown, as far as a resumed answer may repeat it.

Pure. The next request asks for what is since shortly before the newest response seen, because nodes and
CPUs deliver slightly out of order; what was seen already is known by its key and left out. Nodes are kept
apart: the clock of one may be behind the others', or it may have been away when the connection was cut.
"""

from collections import Counter, deque
from collections.abc import Callable, Iterable
from copy import deepcopy
from typing import Generic, TypeVar

from google.protobuf.message import Message

from cli.selectors import EVERYTHING, split_ns
from cli.timespec import NS_PER_S
from palomar_pb.observer import observer_pb2

OVERLAP_NS = 5 * NS_PER_S
"""How far out of order a node may deliver."""
LOOK_BACK_NS = 60 * NS_PER_S
"""How far the last of a node's responses may lie behind those of the others and still be gone on from."""
REMEMBERED = 65_536
"""Responses known by key; where more came within the overlap, the overlap is shorter."""

Request = TypeVar("Request", bound=observer_pb2.GetFlowsRequest | observer_pb2.GetAgentEventsRequest)
Response = TypeVar("Response", bound=observer_pb2.GetFlowsResponse | observer_pb2.GetAgentEventsResponse)


class Seen(Generic[Request, Response]):
    """The newest responses shown, by node and key."""

    def __init__(self, first_request: Request, key: Callable[[Response], bytes], now_ns: int) -> None:
        """`key` names a response, empty for one that is shown always.

        A follower from now on that is cut before its first response goes on from `now_ns`.
        """
        self._first_request = first_request
        self._key = key
        self._began_ns = now_ns
        self._asked = False
        self._shown: deque[tuple[str, int, bytes]] = deque(maxlen=REMEMBERED)
        self._newest: dict[str, int] = {}
        self._floors: dict[str, int] = {}
        """Per node: what is older has been shown."""
        self._repeatable: Counter[tuple[str, bytes]] = Counter()

    def request(self) -> Request:
        """Return what to ask for next: the first time as it was given, then what came since."""
        if not self._asked:
            self._asked = True
            return self._first_request
        since_ns = self._since_ns()
        if since_ns is None:
            return self._first_request
        request = deepcopy(self._first_request)
        request.number, request.first = EVERYTHING, False
        request.since.seconds, request.since.nanos = split_ns(since_ns)
        return request

    def _since_ns(self) -> int | None:
        """Where to go on; None repeats the first request, nothing of whose past has been shown."""
        if not self._newest:
            asks_for_past = self._first_request.number or self._first_request.HasField("since")
            return None if asks_for_past else self._began_ns
        oldest: dict[str, int] = {}
        for node, time_ns, _ in self._shown:
            oldest[node] = min(oldest.get(node, time_ns), time_ns)
        self._floors = {
            node: max(newest - OVERLAP_NS, oldest.get(node, newest + 1))
            for node, newest in self._newest.items()
        }
        self._repeatable = Counter(
            (node, key) for node, time_ns, key in self._shown if time_ns >= self._floors[node]
        )
        return max(min(self._floors.values()), max(self._newest.values()) - LOOK_BACK_NS)

    def only_new(self, responses: Iterable[Response]) -> list[Response]:
        """Take note of `responses` and return them without what an earlier connection brought."""
        return [response for response in responses if self._is_new(response)]

    def _is_new(self, response: Response) -> bool:
        time_ns, key = response.time.ToNanoseconds(), self._key(response)
        if not time_ns or not key:
            return True
        node = response.node_name
        if time_ns < self._floors.get(node, 0):
            return False
        if self._repeatable[node, key]:
            self._repeatable[node, key] -= 1
            return False
        self._shown.append((node, time_ns, key))
        self._newest[node] = max(self._newest.get(node, 0), time_ns)
        return True


def flow_key(response: observer_pb2.GetFlowsResponse) -> bytes:
    """Name a flow by uuid, else (a field mask without it, a loss) by all it says; node states by nothing."""
    if response.HasField("node_status"):
        return b""
    uuid = response.flow.uuid
    return uuid.encode() if uuid else content_key(response)


def content_key(response: Message) -> bytes:
    """Name a response by all it says."""
    return response.SerializeToString(deterministic=True)
