"""An endpoint as values: what is kept of it on disk, its states, and the live object the manager owns.

What it is not: how it gets there (`manager`) or its policy (`agent.policysync`).
"""

import asyncio
from dataclasses import dataclass, field
from enum import StrEnum
from ipaddress import IPv4Address

from agent.endpoint.statuslog import StatusLog
from datapath.endpoint import EndpointDevice, EndpointSpec
from palomar.errors import PalomarError
from palomar.identity import EndpointId, NumericIdentity
from palomar.labels import LabelSet


class EndpointState(StrEnum):
    """Where an endpoint stands, in the field's words."""

    WAITING_FOR_IDENTITY = "waiting-for-identity"
    NOT_READY = "not-ready"
    REGENERATING = "regenerating"
    RESTORING = "restoring"
    READY = "ready"
    DISCONNECTING = "disconnecting"
    DISCONNECTED = "disconnected"


_S = EndpointState
TRANSITIONS: dict[EndpointState, frozenset[EndpointState]] = {
    _S.WAITING_FOR_IDENTITY: frozenset({_S.REGENERATING, _S.DISCONNECTING}),
    _S.RESTORING: frozenset({_S.REGENERATING, _S.NOT_READY, _S.DISCONNECTING}),
    _S.REGENERATING: frozenset({_S.READY, _S.NOT_READY, _S.DISCONNECTING}),
    _S.READY: frozenset({_S.REGENERATING, _S.NOT_READY, _S.DISCONNECTING}),
    _S.NOT_READY: frozenset({_S.REGENERATING, _S.DISCONNECTING}),
    _S.DISCONNECTING: frozenset({_S.DISCONNECTED}),
    _S.DISCONNECTED: frozenset(),
}
"""Which states may follow each."""


class InvalidTransitionError(PalomarError):
    """A bug: an endpoint was sent from a state to one that cannot follow."""

    def __init__(self, endpoint_id: int, before: EndpointState, after: EndpointState) -> None:
        """Keep both states."""
        self.before, self.after = before, after
        super().__init__(f"endpoint {endpoint_id}: {after} cannot follow {before}")


@dataclass(frozen=True, slots=True)
class Workload:
    """What runs the pod."""

    name: str
    kind: str


@dataclass(frozen=True, slots=True)
class EndpointRecord:
    """What is known of an endpoint for its whole life, and kept in its state file."""

    endpoint_id: EndpointId
    container_name: str
    netns: str
    ipv4: IPv4Address
    host_ifname: str
    container_ifname: str
    labels: LabelSet
    """Every label, also those that are not part of the identity."""
    identity_labels: LabelSet
    """The security-relevant ones: the key of the identity."""
    identity: NumericIdentity
    namespace: str = ""
    pod: str = ""
    workload: Workload | None = None
    created_ns: int = 0
    """Wall clock."""

    @property
    def pod_name(self) -> str:
        """`namespace/pod`; empty for an endpoint that is no pod."""
        return f"{self.namespace}/{self.pod}" if self.pod else ""

    def spec(self) -> EndpointSpec:
        """Return the datapath's view."""
        return EndpointSpec(
            endpoint_id=self.endpoint_id,
            identity=self.identity,
            ipv4=self.ipv4,
            netns=self.netns,
            host_ifname=self.host_ifname,
            container_ifname=self.container_ifname,
        )


@dataclass(slots=True, eq=False)
class Endpoint:
    """A live endpoint; the event loop owns it, `lock` orders what changes it."""

    record: EndpointRecord
    state: EndpointState
    log: StatusLog
    device: EndpointDevice | None = None
    restored: bool = False
    """It came from a state file of an earlier agent."""
    stages_s: dict[str, float] = field(default_factory=dict)
    """How long each stage of the last add took."""
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    @property
    def endpoint_id(self) -> EndpointId:
        """Its id, unique on the node."""
        return self.record.endpoint_id

    def go(self, state: EndpointState, message: str, *, ok: bool = True) -> None:
        """Enter `state` (or stay in it) and log why. Raises InvalidTransitionError."""
        if state is not self.state:
            if state not in TRANSITIONS[self.state]:
                raise InvalidTransitionError(self.endpoint_id, self.state, state)
            self.state = state
        self.log.add(state, message, ok=ok)
