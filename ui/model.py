"""What the page server knows: recent flows, edges with counts, nodes, losses.

Pure; time is an argument. Input: `ui.client` hands in responses as they come; output: `ui.view` asks for
windows, rows and node states. Everything is bounded: flows by number (dropped ones apart, so that traffic
cannot push them out), edges by `ui.edgetable`, nodes by number.
"""

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain

from palomar_pb.flow import flow_pb2
from palomar_pb.observer import observer_pb2
from palomar_pb.relay import relay_pb2
from ui.edgetable import EdgeTable
from ui.flowrow import EdgeKey, FlowRow, VerdictClass, edge_of, verdict_class
from ui.names import WorkloadNames, clip

KEPT_FLOWS = 8_000
KEPT_DROPPED = 4_000
KEPT_UUIDS = 20_000
MAX_NODES = 1_000
CLOCK_TOLERANCE_NS = 5_000_000_000
"""A live flow whose time differs more from ours says that the node's clock is off."""


@dataclass(slots=True)
class NodeTally:
    """What is known of one node."""

    name: str
    state: str = "unknown"
    """`connected`, `unavailable`, `gone`, `error`, `unknown`."""
    message: str = ""
    """The relay's words on the last change."""
    address: str = ""
    version: str = ""
    tls: bool = False
    uptime_ns: int = 0
    kept_flows: int = 0
    max_flows: int = 0
    seen_flows: int = 0
    """Flows the node has seen since its store was made, by its own count."""
    received: int = 0
    """Flows of it that came here."""
    lost: int = 0
    """Events its datapath lost, as far as the stream said."""
    unread: int = 0
    """Flows that a reader on the way (relay or this page) was too slow for."""
    clock_off_ns: int = 0
    """How far its clock is from ours; 0 within tolerance."""


@dataclass(frozen=True, slots=True)
class ServerSummary:
    """The server's own account (ServerStatus)."""

    version: str = ""
    kept_flows: int = 0
    max_flows: int = 0
    seen_flows: int = 0
    uptime_ns: int = 0
    flows_rate: float = 0.0
    connected_nodes: int = 0
    unavailable_nodes: int = 0


@dataclass(slots=True)
class Counters:
    """Sums since start, for metrics and the header."""

    flows: int = 0
    by_class: list[int] = field(default_factory=lambda: [0] * len(VerdictClass))
    repeated: int = 0
    """Flows that came twice, after a reconnection."""
    malformed: int = 0
    """Responses without anything we know."""
    observed: int = 0
    """The server's own count where it tells (batched stream of a node)."""


class Model:
    """Recent flows and everything counted from them. Not thread-safe: its owner locks."""

    def __init__(self) -> None:
        """Know nothing yet."""
        self.edges = EdgeTable()
        self.nodes: dict[str, NodeTally] = {}
        self.server = ServerSummary()
        self.counters = Counters()
        self._names = WorkloadNames()
        self._flows: deque[FlowRow] = deque(maxlen=KEPT_FLOWS)
        self._dropped: deque[FlowRow] = deque(maxlen=KEPT_DROPPED)
        self._uuids: dict[str, None] = {}
        self._keys: dict[EdgeKey, EdgeKey] = {}

    @property
    def newest_seq(self) -> int:
        """Number of the newest flow; 0 before the first."""
        return self.counters.flows

    def add_responses(
        self, responses: Sequence[observer_pb2.GetFlowsResponse], now_ns: int, live: bool
    ) -> None:
        """Take in a batch; `live` tells that the server has caught up, so times can be compared."""
        for response in responses:
            kind = response.WhichOneof("response_types")
            if kind == "flow":
                self._add_flow(response.flow, response.node_name, now_ns, live)
            elif kind == "lost_events":
                self._add_lost(response.lost_events, response.node_name)
            elif kind == "node_status":
                self._add_status(response.node_status)
            else:
                self.counters.malformed += 1

    def set_nodes(self, answer: observer_pb2.GetNodesResponse) -> None:
        """Take the server's list of nodes; one it listed and no longer lists is gone."""
        listed = set()
        for node in answer.nodes:
            tally = self._node(node.name)
            if tally is None:
                continue
            listed.add(tally.name)
            tally.state = node_state(node.state)
            tally.address, tally.version = clip(node.address), clip(node.version)
            tally.tls, tally.uptime_ns = node.tls.enabled, node.uptime_ns
            if node.max_flows:  # a node that does not answer is listed without its counts
                tally.kept_flows, tally.max_flows = node.num_flows, node.max_flows
                tally.seen_flows = node.seen_flows
        for name, tally in self.nodes.items():
            if name not in listed and tally.state not in ("gone", "unknown"):
                tally.state, tally.message = "gone", "no longer listed by the server"

    def set_server(self, status: observer_pb2.ServerStatusResponse) -> None:
        """Take the server's own account."""
        self.server = ServerSummary(
            version=clip(status.version),
            kept_flows=status.num_flows,
            max_flows=status.max_flows,
            seen_flows=status.seen_flows,
            uptime_ns=status.uptime_ns,
            flows_rate=status.flows_rate,
            connected_nodes=status.num_connected_nodes.value,
            unavailable_nodes=status.num_unavailable_nodes.value,
        )

    def rows_after(self, seq: int) -> Iterator[FlowRow]:
        """Kept rows newer than `seq`, newest first; dropped ones that traffic pushed out follow them."""
        oldest = self._flows[0].seq if self._flows else 0
        for row in reversed(self._flows):
            if row.seq <= seq:
                return
            yield row
        for row in reversed(self._dropped):
            if row.seq <= seq:
                return
            if row.seq < oldest:
                yield row

    def find_flow(self, uuid: str) -> FlowRow | None:
        """Find a flow that is still kept; O(kept flows)."""
        edges = (chain(record.latest, record.latest_dropped) for record in self.edges.records())
        every = chain(reversed(self._flows), self._dropped, chain.from_iterable(edges))
        return next((row for row in every if row.uuid == uuid), None)

    @property
    def lost(self) -> int:
        """Events the nodes' datapaths lost, as far as the stream said."""
        return sum(node.lost for node in self.nodes.values())

    def _add_flow(self, flow: flow_pb2.Flow, node_name: str, now_ns: int, live: bool) -> None:
        uuid = flow.uuid
        if uuid:
            if uuid in self._uuids:
                self.counters.repeated += 1
                return
            if len(self._uuids) >= KEPT_UUIDS:
                del self._uuids[next(iter(self._uuids))]
            self._uuids[uuid] = None
        key = self.edges.fold(edge_of(flow, self._names))
        # One key object per edge: thousands of rows share it.
        if len(self._keys) > 4 * len(self.edges) + 1024:
            self._keys.clear()
        key = self._keys.setdefault(key, key)
        self.counters.flows += 1
        row = FlowRow.of(self.counters.flows, key, verdict_class(flow), flow, uuid)
        self.counters.by_class[row.verdict] += 1
        self._flows.append(row)
        if row.verdict is not VerdictClass.FORWARDED:
            self._dropped.append(row)
        time_ns = row.time_ns
        self.edges.add(row, time_ns if not live else now_ns if time_ns > now_ns else time_ns, now_ns)
        tally = self._node(node_name or flow.node_name)
        if tally is not None:
            tally.received += 1
            off_ns = time_ns - now_ns
            if live or off_ns > CLOCK_TOLERANCE_NS:
                tally.clock_off_ns = off_ns if abs(off_ns) > CLOCK_TOLERANCE_NS else 0

    def _add_lost(self, lost: flow_pb2.LostEvent, node_name: str) -> None:
        tally = self._node(node_name or "unknown node")
        if tally is None:
            return
        if lost.source == flow_pb2.PERF_EVENT_RING_BUFFER:
            tally.lost += lost.num_events_lost
        else:
            tally.unread += lost.num_events_lost

    def _add_status(self, status: relay_pb2.NodeStatusEvent) -> None:
        for name in status.node_names:
            tally = self._node(name)
            if tally is not None:
                tally.state = node_state(status.state_change)
                tally.message = clip(status.message, 200)

    def _node(self, name: str) -> NodeTally | None:
        name = clip(name)
        tally = self.nodes.get(name)
        if tally is None and name and len(self.nodes) < MAX_NODES:
            tally = self.nodes[name] = NodeTally(name)
        return tally


def node_state(number: int) -> str:
    """`connected` for NODE_CONNECTED; `unknown` for what the relay may say one day."""
    return {
        relay_pb2.NODE_CONNECTED: "connected",
        relay_pb2.NODE_UNAVAILABLE: "unavailable",
        relay_pb2.NODE_GONE: "gone",
        relay_pb2.NODE_ERROR: "error",
    }.get(relay_pb2.NodeState.ValueType(number), "unknown")
