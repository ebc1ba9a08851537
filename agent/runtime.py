"""The parts of a running agent by name: what `agent.wiring` makes and the API, status and metrics read.

No behaviour of its own.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

from agent.agentevents import AgentEventLog
from agent.config import AgentConfig
from agent.controllers import Controller
from agent.datapaththread import DatapathThread
from agent.endpoint.manager import EndpointManager
from agent.endpoint.restore import RestoreReport
from agent.ingestlink import IngestLink
from agent.ipam import Ipam
from agent.ipcache import IpCache
from agent.nodeidentity import NodeIdentities
from agent.nodes import NodeDiscovery
from agent.policyset import PolicySet
from agent.policysync import PolicySync
from agent.supervisor import ChildStatus
from cluster.backend import Backend
from datapath.maps.conntrack import GcCount
from datapath.maps.node import DatapathMaps
from palomar.certwatch import Expiry
from palomar.clock import Clock


@dataclass(slots=True)
class Bootstrap:
    """How far the start got."""

    stage: str = "configuration"
    """What is being done now; `ready` when all is done."""
    durations_s: dict[str, float] = field(default_factory=dict)
    """By stage, in order."""
    started_ns: int = 0
    """CLOCK_MONOTONIC."""

    @property
    def is_ready(self) -> bool:
        """Whether the agent does all its work."""
        return self.stage == "ready"


@dataclass(slots=True)
class ConntrackGc:
    """What the collection of old connections did."""

    runs: int = 0
    last: GcCount = field(default_factory=lambda: GcCount(0, 0))
    duration_s: float = 0.0


@dataclass(slots=True)
class Runtime:
    """Everything of one agent."""

    config: AgentConfig
    clock: Clock
    version: str
    bootstrap: Bootstrap
    thread: DatapathThread
    events: AgentEventLog
    link: IngestLink
    ipam: Ipam
    backend: Backend
    nodes: NodeDiscovery
    ipcache: IpCache
    identities: NodeIdentities
    sync: PolicySync
    policies: PolicySet
    endpoints: EndpointManager
    maps: Callable[[], DatapathMaps]
    """Only for calls in `thread`."""
    processes: Callable[[], list[ChildStatus]]
    restored: RestoreReport = field(default_factory=RestoreReport)
    controllers: list[Controller] = field(default_factory=list)
    conntrack_gc: ConntrackGc = field(default_factory=ConntrackGc)
    certificates: list[Expiry] = field(default_factory=list)
    """Of the flow server; empty where it does not listen."""
