"""The state that nodes share: its values, its events, and the interface every backend offers.

What it is: identities (number -> labels), addresses (ip -> identity and node) and nodes, each as a
frozen value; the events of a watch; the `Backend` protocol that the agent programs against.
What it is not: key paths and text formats (`cluster.keys`), nor an implementation: that is
`cluster.shared.SharedState` over `cluster.filestore.FileDriver` or `cluster.etcd.EtcdDriver`, made
by `cluster.connect.open_backend`.
"""

from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum, StrEnum
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Generic, Protocol, TypeVar

from palomar.identity import NumericIdentity, Reserved
from palomar.labels import LabelSet

IpAddress = IPv4Address | IPv6Address
IpNetwork = IPv4Network | IPv6Network

REMOTE_NODE = NumericIdentity(Reserved.REMOTE_NODE)

E = TypeVar("E")
E_co = TypeVar("E_co", covariant=True)


@dataclass(frozen=True, slots=True)
class IdentityEntry:
    """A cluster identity: one number for one set of security-relevant labels."""

    identity: NumericIdentity
    labels: LabelSet


@dataclass(frozen=True, slots=True)
class NamedPort:
    """A port that a pod gives a name."""

    name: str
    port: int
    protocol: str
    """`TCP`, `UDP` or `SCTP`."""


@dataclass(frozen=True, slots=True)
class IpEntry:
    """Which identity and node an address (or a prefix) belongs to."""

    network: IpNetwork
    """A /32 (or /128) for an endpoint."""
    host_ip: IpAddress | None
    """The node that holds it; None for a prefix outside of any node."""
    identity: NumericIdentity
    encrypt_key: int = 0
    metadata: str = ""
    """`cilium-global:<cluster>:<node>:<endpoint id>`, see `endpoint_metadata`."""
    namespace: str = ""
    pod: str = ""
    named_ports: tuple[NamedPort, ...] = ()


def endpoint_metadata(cluster: str, node: str, endpoint_id: int) -> str:
    """Text that names an endpoint in the whole cluster, as `IpEntry.metadata` carries it."""
    return f"cilium-global:{cluster}:{node}:{endpoint_id}"


class AddressType(StrEnum):
    """What a node's address is for."""

    INTERNAL_IP = "InternalIP"
    EXTERNAL_IP = "ExternalIP"
    CILIUM_INTERNAL_IP = "CiliumInternalIP"
    """The router address: the node's own address inside its pod CIDR."""
    HOSTNAME = "Hostname"
    INTERNAL_DNS = "InternalDNS"
    EXTERNAL_DNS = "ExternalDNS"


@dataclass(frozen=True, slots=True)
class NodeAddress:
    """One address of a node."""

    type: AddressType
    ip: str
    """An address, or a name for the types that hold names."""


@dataclass(frozen=True, slots=True)
class NodeEntry:
    """A node: how to reach it and which addresses its endpoints have."""

    name: str
    cluster: str
    addresses: tuple[NodeAddress, ...]
    ipv4_alloc_cidr: IPv4Network | None
    """The pod CIDR."""
    ipv4_secondary_alloc_cidrs: tuple[IPv4Network, ...] = ()
    ipv6_alloc_cidr: IPv6Network | None = None
    ipv6_secondary_alloc_cidrs: tuple[IPv6Network, ...] = ()
    cluster_id: int = 0
    source: str = "local"
    encryption_key: int = 0
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)
    node_identity: NumericIdentity = REMOTE_NODE
    wireguard_pub_key: str = ""
    boot_id: str = ""

    @property
    def full_name(self) -> str:
        """`<cluster>/<node>`, as flows carry it."""
        return f"{self.cluster}/{self.name}"

    def ipv4_of(self, kind: AddressType) -> IPv4Address | None:
        """First IPv4 address of `kind`; None where there is none."""
        for address in self.addresses:
            if address.type is kind:
                try:
                    return IPv4Address(address.ip)
                except ValueError:
                    continue
        return None

    @property
    def node_ipv4(self) -> IPv4Address | None:
        """The address other nodes send tunnel packets to: internal, else external."""
        return self.ipv4_of(AddressType.INTERNAL_IP) or self.ipv4_of(AddressType.EXTERNAL_IP)

    @property
    def router_ipv4(self) -> IPv4Address | None:
        """The node's own address inside its pod CIDR."""
        return self.ipv4_of(AddressType.CILIUM_INTERNAL_IP)

    @property
    def pod_cidrs(self) -> tuple[IPv4Network, ...]:
        """Every IPv4 prefix its endpoints come from."""
        primary = (self.ipv4_alloc_cidr,) if self.ipv4_alloc_cidr is not None else ()
        return (*primary, *self.ipv4_secondary_alloc_cidrs)


@dataclass(frozen=True, slots=True)
class Upserted(Generic[E_co]):
    """`entry` is new or changed."""

    key: str
    entry: E_co


@dataclass(frozen=True, slots=True)
class Deleted(Generic[E_co]):
    """The entry is gone; `entry` is what was last told."""

    key: str
    entry: E_co


@dataclass(frozen=True, slots=True)
class Synced:
    """Everything the store held at first contact has been told. Once per watch."""


Event = Upserted[E] | Deleted[E] | Synced

IdentityMoved = Callable[[LabelSet, NumericIdentity, NumericIdentity], None]
"""Called with labels, old number, new number."""


class BackendState(Enum):
    """How the store is doing, in the words of the agent's status."""

    CONNECTING = "connecting"
    """Never reached yet."""
    OK = "ok"
    DISCONNECTED = "disconnected"
    """Was reached before; retried with backoff."""
    STOPPED = "stopped"


@dataclass(frozen=True, slots=True)
class BackendStatus:
    """What `palomar status` prints of the shared state."""

    backend: str
    """`etcd 127.0.0.1:2379` or `file /var/lib/...`."""
    state: BackendState
    message: str
    """One sentence for people."""
    synced: bool
    """The store was read completely at least once."""
    revision: int
    lease: int
    """0 while there is none."""
    pending: int
    """Own writes not yet in the store."""
    identities: int
    ips: int
    nodes: int
    vanished: int
    """Foreign entries that are missing from the store and kept for the grace period."""
    malformed: int
    """Values that could not be read and are ignored."""
    failures: int
    """Attempts to reach the store that failed since it last answered."""


class Backend(Protocol):
    """State shared between nodes.

    Writes are wishes: they return at once, are carried out when the store can be reached, and are
    carried out again whenever the store has lost them. Reads never wait for the store either.
    Nothing known is forgotten because the store is away.
    """

    async def start(self) -> None:
        """Begin to connect in the background; returns at once, also when the store is down."""
        ...

    async def stop(self, *, withdraw: bool = False) -> None:
        """Disconnect. The node's keys live on until the lease ends, so that a restart goes unseen.

        With `withdraw` the lease is revoked: the node leaves the cluster now.
        """
        ...

    async def wait_synced(self, timeout_s: float) -> bool:
        """Wait until the store was read completely once; False when `timeout_s` passed before."""
        ...

    async def flush(self, timeout_s: float) -> bool:
        """Wait until every own write is in the store; False when `timeout_s` passed before."""
        ...

    async def allocate_identity(self, labels: LabelSet, preferred: int | None = None) -> NumericIdentity:
        """Return the number of `labels`, the same on every node; count one use of it.

        `preferred` (a restored endpoint's number) is taken where the store does not say otherwise,
        and without the store. Waits up to a second for a connection that is being made. Raises
        BackendUnavailableError when the store is away and the number is unknown,
        IdentityExhaustedError when none is free.
        """
        ...

    def release_identity(self, labels: LabelSet) -> None:
        """Count one use less; after the last the node's reference key goes."""
        ...

    def upsert_ip(self, entry: IpEntry) -> None:
        """Publish an address of this node."""
        ...

    def delete_ip(self, network: IpNetwork) -> None:
        """Withdraw an address, unless another node has published it meanwhile."""
        ...

    def publish_node(self, entry: NodeEntry) -> None:
        """Publish this node. Call it after restored addresses: it tells others they are complete."""
        ...

    def watch_identities(self) -> AsyncIterator[Event[IdentityEntry]]:
        """Every identity of the cluster, then changes."""
        ...

    def watch_ips(self) -> AsyncIterator[Event[IpEntry]]:
        """Every published address, own ones too, then changes."""
        ...

    def watch_nodes(self) -> AsyncIterator[Event[NodeEntry]]:
        """Every node, this one too, then changes."""
        ...

    def on_identity_moved(self, listener: IdentityMoved) -> None:
        """Hear when a number used here turned out to be taken by other labels and was replaced."""
        ...

    def identities(self) -> dict[NumericIdentity, IdentityEntry]:
        """Every known identity by number."""
        ...

    def ips(self) -> dict[IpNetwork, IpEntry]:
        """Every known address."""
        ...

    def nodes(self) -> dict[str, NodeEntry]:
        """Every known node by `<cluster>/<name>`."""
        ...

    def status(self) -> BackendStatus:
        """How the store is doing."""
        ...
