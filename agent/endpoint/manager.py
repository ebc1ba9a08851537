"""The endpoints of this node: added, found, regenerated, deleted.

Input: requests of the API, identity changes. Output: devices and programs (`EndpointDatapath`), an address,
an identity, an ipcache entry, a policy map, a state file; and `EndpointChange` to listeners. An add that
fails at any stage is undone completely, in reverse order. Deleting is idempotent. Restoring is
`agent.endpoint.restore`.
"""

import asyncio
import logging
import secrets
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from enum import Enum, auto
from ipaddress import IPv4Address
from typing import Protocol

from agent.datapaththread import DatapathThread
from agent.endpoint.datapath import EndpointDatapath
from agent.endpoint.errors import EndpointExistsError, EndpointIdsExhaustedError, EndpointNotFoundError
from agent.endpoint.model import Endpoint, EndpointRecord, EndpointState
from agent.endpoint.namespaces import NamespaceKey, NamespaceTable
from agent.endpoint.request import EndpointRequest
from agent.endpoint.statuslog import StatusLog
from agent.endpoint.store import EndpointStore
from agent.ipam import Ipam
from agent.ipcache import EndpointAddress
from palomar.clock import Clock
from palomar.errors import InvalidInputError, PalomarError
from palomar.identity import EndpointId, NumericIdentity
from palomar.labels import LabelSet

logger = logging.getLogger(__name__)

MAX_ENDPOINT_ID = 65535


class Identities(Protocol):
    """Numbers for label sets."""

    def security_relevant(self, labels: LabelSet) -> LabelSet:
        """Return the labels that make the identity."""
        ...

    async def acquire(self, labels: LabelSet, preferred: int | None = None) -> NumericIdentity:
        """Return the number of security-relevant labels and count one use."""
        ...

    def release(self, labels: LabelSet) -> None:
        """Count one use less."""
        ...


class Addresses(Protocol):
    """Where endpoints' addresses are made known."""

    def upsert_endpoint(self, address: EndpointAddress) -> None:
        """Make an address known, here and in the cluster."""
        ...

    def delete_endpoint(self, ipv4: IPv4Address) -> None:
        """Withdraw an address."""
        ...


class Policies(Protocol):
    """The policy maps of endpoints."""

    async def attach(self, endpoint_id: EndpointId, labels: LabelSet) -> None:
        """Resolve the endpoint's policy and write its map; it is in the kernel on return."""
        ...

    def detach(self, endpoint_id: EndpointId) -> None:
        """Stop writing the endpoint's map. Idempotent."""
        ...


class EndpointChange(Enum):
    """What listeners are told."""

    CREATED = auto()
    """It was added and is ready."""
    READY = auto()
    """It is ready again: restored, or with another identity."""
    GONE = auto()
    """It was deleted."""


Listener = Callable[[Endpoint, EndpointChange], None]
StageObserver = Callable[[str, float], None]
"""Called with the name of a stage and how many seconds it took."""


@dataclass(frozen=True, slots=True)
class EndpointParts:
    """What the manager works with."""

    datapath: EndpointDatapath
    thread: DatapathThread
    namespaces: NamespaceTable
    ipam: Ipam
    identities: Identities
    addresses: Addresses
    policies: Policies
    store: EndpointStore
    clock: Clock


class _Undo:
    """What to do when the rest fails, newest first."""

    def __init__(self) -> None:
        self._steps: list[tuple[str, Callable[[], Awaitable[None] | None]]] = []

    def push(self, name: str, step: Callable[[], Awaitable[None] | None]) -> None:
        self._steps.append((name, step))

    async def run(self) -> None:
        """Do every step, whatever becomes of the others."""
        while self._steps:
            name, step = self._steps.pop()
            try:
                done = step()
                if done is not None:
                    await done
            except (PalomarError, OSError) as error:
                logger.error("rollback step failed", extra={"step": name, "error": str(error)})


class EndpointManager:
    """See the module's text. One event loop owns it."""

    def __init__(self, parts: EndpointParts) -> None:
        """Begin without endpoints."""
        self.parts = parts
        self.listeners: list[Listener] = []
        self.stage_observers: list[StageObserver] = []
        self._endpoints: dict[EndpointId, Endpoint] = {}
        self._namespaces: dict[EndpointId, NamespaceKey] = {}
        self._next_id = 1

    # --- finding

    def endpoints(self) -> list[Endpoint]:
        """Every endpoint, also those that come or go, by id."""
        return [self._endpoints[key] for key in sorted(self._endpoints)]

    def get(self, endpoint_id: int) -> Endpoint | None:
        """Return the endpoint with this id."""
        return self._endpoints.get(EndpointId(endpoint_id))

    def find(self, name: str) -> Endpoint:
        """Return the endpoint `123`, `container-name:X`, `pod-name:NS/POD` or `ipv4:ADDRESS`.

        Raises EndpointNotFoundError, and InvalidInputError for another form.
        """
        kind, colon, value = name.partition(":")
        if not colon:
            kind, value = "id", name
        names = _NAMES.get(kind)
        if names is None or (kind == "id" and not (name.isascii() and name.isdigit())):
            raise InvalidInputError(
                f"endpoint {name!r}: write a number, container-name:NAME, pod-name:NS/POD or ipv4:ADDRESS"
            )
        found = next((e for e in self._endpoints.values() if names(e.record) == value), None)
        if found is None:
            raise EndpointNotFoundError(name)
        return found

    # --- adding

    async def add(self, request: EndpointRequest) -> Endpoint:
        """Connect a namespace as a new endpoint; it is ready on return, or nothing of it is left.

        Raises EndpointExistsError, PoolExhaustedError, AddressInUseError, NamespaceMissingError,
        DeviceExistsError, BackendUnavailableError (a new identity while the store is away), and others.
        """
        parts = self.parts
        undo = _Undo()
        stages: dict[str, float] = {}
        with self._stage("namespace", stages):
            key = await parts.thread.run(parts.namespaces.identify, request.netns)
        endpoint = self._claim(request, key)
        undo.push("claim", lambda: self._forget(endpoint))
        endpoint.stages_s = stages
        async with endpoint.lock:
            try:
                await self._build(endpoint, request, undo)
            except BaseException as error:
                endpoint.go(EndpointState.DISCONNECTING, f"add failed: {error}", ok=False)
                # Shielded: whoever cancelled the add must not leave half of it behind.
                await asyncio.shield(undo.run())
                endpoint.go(EndpointState.DISCONNECTED, "undone")
                logger.warning(
                    "endpoint not added",
                    extra={"container_name": request.container_name, "error": str(error)},
                )
                raise
        logger.info(
            "endpoint added",
            extra={
                "endpoint_id": endpoint.endpoint_id,
                "ipv4": str(endpoint.record.ipv4),
                "identity": endpoint.record.identity,
                "pod": endpoint.record.pod_name,
                "ms": round(sum(stages.values()) * 1000, 1),
            },
        )
        self.tell(endpoint, EndpointChange.CREATED)
        return endpoint

    def _claim(self, request: EndpointRequest, key: NamespaceKey) -> Endpoint:
        """Take id, name and namespace, before anything else is awaited."""
        if key == self.parts.namespaces.own():
            raise InvalidInputError(f"{request.netns} is the node's own namespace", "netns")
        for other in self._endpoints.values():
            if other.record.container_name == request.container_name:
                raise EndpointExistsError(f"container {request.container_name}", other.endpoint_id)
            if self._namespaces.get(other.endpoint_id) == key:
                raise EndpointExistsError(f"namespace {request.netns}", other.endpoint_id)
        endpoint_id = self._free_id()
        labels = request.labels
        record = EndpointRecord(
            endpoint_id=endpoint_id,
            container_name=request.container_name,
            netns=request.netns,
            ipv4=IPv4Address(0),
            host_ifname=f"lxc{secrets.token_hex(6)[:11]}",
            container_ifname=request.container_ifname,
            labels=labels,
            identity_labels=self.parts.identities.security_relevant(labels),
            identity=NumericIdentity(0),
            namespace=request.namespace,
            pod=request.pod,
            workload=request.workload,
            created_ns=self.parts.clock.wall_ns(),
        )
        endpoint = Endpoint(record, EndpointState.WAITING_FOR_IDENTITY, StatusLog(self.parts.clock))
        endpoint.go(EndpointState.WAITING_FOR_IDENTITY, "requested")
        self.adopt(endpoint, key)
        return endpoint

    def adopt(self, endpoint: Endpoint, key: NamespaceKey | None) -> None:
        """Take an endpoint into the table, e.g. a restored one."""
        self._endpoints[endpoint.endpoint_id] = endpoint
        if key is not None:
            self._namespaces[endpoint.endpoint_id] = key
        self._next_id = max(self._next_id, endpoint.endpoint_id + 1)

    async def _build(self, endpoint: Endpoint, request: EndpointRequest, undo: _Undo) -> None:
        parts, stages = self.parts, endpoint.stages_s
        with self._stage("ipam", stages):
            owner = owner_of(endpoint.record)
            ipv4 = parts.ipam.allocate(owner, request.ipv4)
            undo.push("ipam", lambda: parts.ipam.release(ipv4))
        with self._stage("identity", stages):
            labels = endpoint.record.identity_labels
            identity = await parts.identities.acquire(labels)
            undo.push("identity", lambda: parts.identities.release(labels))
        endpoint.record = replace(endpoint.record, ipv4=ipv4, identity=identity)
        endpoint.go(EndpointState.REGENERATING, f"identity {identity}, address {ipv4}")
        spec = endpoint.record.spec()
        with self._stage("connect", stages):
            endpoint.device = await parts.thread.run(parts.datapath.connect, spec)
            undo.push(
                "connect",
                lambda: parts.thread.run(parts.datapath.disconnect, spec.endpoint_id, spec.host_ifname),
            )
        with self._stage("ipcache", stages):
            parts.addresses.upsert_endpoint(address_of(endpoint.record))
            undo.push("ipcache", lambda: parts.addresses.delete_endpoint(ipv4))
        with self._stage("policy", stages):
            undo.push("policy", lambda: parts.policies.detach(endpoint.endpoint_id))
            await parts.policies.attach(endpoint.endpoint_id, labels)
        with self._stage("load", stages):
            await parts.thread.run(parts.datapath.load, spec, endpoint.device)
        with self._stage("save", stages):
            undo.push("save", lambda: parts.store.remove(endpoint.endpoint_id))
            await parts.thread.run(parts.store.save, endpoint.record)
        endpoint.go(EndpointState.READY, "programs are loaded, policy is in force")

    # --- regenerating

    async def regenerate(self, endpoint: Endpoint, reason: str) -> None:
        """Write the endpoint's policy and load its programs again, with what its record says now.

        Forwarding and enforcement go on meanwhile. Raises PalomarError, and the endpoint is not-ready then.
        """
        async with endpoint.lock:
            if endpoint.state in (EndpointState.DISCONNECTING, EndpointState.DISCONNECTED):
                return
            await self._regenerate(endpoint, reason)
        self.tell(endpoint, EndpointChange.READY)

    async def _regenerate(self, endpoint: Endpoint, reason: str) -> None:
        parts = self.parts
        endpoint.go(EndpointState.REGENERATING, reason)
        try:
            if endpoint.device is None:
                endpoint.device = await parts.thread.run(
                    parts.datapath.device_of, endpoint.record.host_ifname
                )
            if endpoint.device is None:
                raise EndpointNotFoundError(f"device {endpoint.record.host_ifname}")
            await parts.policies.attach(endpoint.endpoint_id, endpoint.record.identity_labels)
            await parts.thread.run(parts.datapath.load, endpoint.record.spec(), endpoint.device)
        except PalomarError as error:
            endpoint.go(EndpointState.NOT_READY, f"{reason}: {error}", ok=False)
            raise
        endpoint.go(EndpointState.READY, f"{reason}: done")

    async def identity_moved(self, labels: LabelSet, new: NumericIdentity) -> None:
        """Give endpoints with these identity labels the number `new`: map entries, programs, state file."""
        for endpoint in self.endpoints():
            if endpoint.record.identity_labels != labels or endpoint.record.identity == new:
                continue
            endpoint.record = replace(endpoint.record, identity=new)
            self.parts.addresses.upsert_endpoint(address_of(endpoint.record))
            await self.parts.thread.run(self.parts.store.save, endpoint.record)
            await self.regenerate(endpoint, f"identity is {new} now")

    # --- deleting

    async def delete(self, endpoint: Endpoint) -> None:
        """Take the endpoint away, whatever state it is in. Idempotent; after an error call it again."""
        parts = self.parts
        async with endpoint.lock:
            if endpoint.state is EndpointState.DISCONNECTED:
                return
            endpoint.go(EndpointState.DISCONNECTING, "delete requested")
            record = endpoint.record
            parts.policies.detach(endpoint.endpoint_id)
            await parts.thread.run(parts.datapath.disconnect, endpoint.endpoint_id, record.host_ifname)
            parts.addresses.delete_endpoint(record.ipv4)
            parts.identities.release(record.identity_labels)
            parts.ipam.release(record.ipv4)
            await parts.thread.run(parts.store.remove, endpoint.endpoint_id)
            self._forget(endpoint)
            endpoint.go(EndpointState.DISCONNECTED, "deleted")
        logger.info(
            "endpoint deleted", extra={"endpoint_id": endpoint.endpoint_id, "pod": endpoint.record.pod_name}
        )
        self.tell(endpoint, EndpointChange.GONE)

    # --- helpers

    def tell(self, endpoint: Endpoint, change: EndpointChange) -> None:
        """Tell the listeners."""
        for listener in self.listeners:
            listener(endpoint, change)

    def _forget(self, endpoint: Endpoint) -> None:
        self._endpoints.pop(endpoint.endpoint_id, None)
        self._namespaces.pop(endpoint.endpoint_id, None)

    def _free_id(self) -> EndpointId:
        """Return the next id; one that was freed comes again as late as possible."""
        if len(self._endpoints) >= MAX_ENDPOINT_ID:
            raise EndpointIdsExhaustedError
        while True:
            if self._next_id > MAX_ENDPOINT_ID:
                self._next_id = 1
            if EndpointId(self._next_id) not in self._endpoints:
                return EndpointId(self._next_id)
            self._next_id += 1

    @contextmanager
    def _stage(self, name: str, stages: dict[str, float]) -> Iterator[None]:
        began_ns = self.parts.clock.monotonic_ns()
        yield
        stages[name] = (self.parts.clock.monotonic_ns() - began_ns) / 1e9
        for observer in self.stage_observers:
            observer(name, stages[name])


_NAMES: dict[str, Callable[[EndpointRecord], str]] = {
    "id": lambda record: str(record.endpoint_id),
    "container-name": lambda record: record.container_name,
    "pod-name": lambda record: record.pod_name,
    "ipv4": lambda record: str(record.ipv4),
}
"""What an endpoint can be called by."""


def owner_of(record: EndpointRecord) -> str:
    """Name the owner of an address as status prints it: `demo/web-1`, or the container's name."""
    return record.pod_name or record.container_name


def address_of(record: EndpointRecord) -> EndpointAddress:
    """Return what the ipcache is told of an endpoint."""
    return EndpointAddress(
        ipv4=record.ipv4,
        identity=record.identity,
        endpoint_id=record.endpoint_id,
        namespace=record.namespace,
        pod=record.pod,
    )
