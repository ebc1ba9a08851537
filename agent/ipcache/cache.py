"""The ipcache of a node: every known address with identity and node, in the kernel's maps.

Sources: own endpoints (from the agent, published to the cluster here), this node's addresses (host),
addresses and nodes of the cluster (watches of a `cluster.backend.Backend`), CIDR identities of policies,
world. Rules between them: `merge.py`. Output: wishes in two tables, carried out by reconcilers, and
listeners that hear of every change (the agent tells the ingest process who an address is). The maps are
`cilium_ipcache` and `cilium_tunnel_map`.

A restart cuts nothing: what the maps hold from before stays until `endpoints_restored` was called and
both watches have told everything; then strangers go, those behind another node only after `prune_grace_s`
more, because a store that came back empty fills again only when each node has noticed. While the store is
away nothing is removed.

    ipcache = IpCache(maps, backend, nodes)      # maps: datapath.maps.node.DatapathMaps, or FakeIpMaps
    await ipcache.start()
    ipcache.upsert_endpoint(EndpointAddress(...)); ipcache.set_cidrs({...})
    ipcache.endpoints_restored()                 # publishes the node, allows pruning
    await ipcache.stop()
"""

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from typing import Any

from agent.ipcache.merge import IpInfo, IpMerge, Source
from agent.ipcache.target import IpcacheTarget, IpcacheWish, IpMaps, TunnelTarget
from agent.nodes import NodeDiscovery
from cluster.backend import (
    AddressType,
    Backend,
    Deleted,
    IpEntry,
    NodeEntry,
    Synced,
    Upserted,
    endpoint_metadata,
)
from palomar.errors import PalomarError
from palomar.identity import NumericIdentity, Reserved, is_local_scope
from palomar.reconciler import Reconciler
from palomar.table import RowState, Table
from palomar.tasks import spawn

logger = logging.getLogger(__name__)

WORLD = IPv4Network("0.0.0.0/0")
PRUNE_RETRY_S = 5.0

IpListener = Callable[[IPv4Network, IpInfo | None, IpInfo | None], None]
"""Called with the prefix, what stood before (None: nothing), and what stands now."""


@dataclass(frozen=True, slots=True)
class EndpointAddress:
    """An address of a local endpoint."""

    ipv4: IPv4Address
    identity: NumericIdentity
    endpoint_id: int
    namespace: str = ""
    pod: str = ""


class IpCache:
    """See the module's text."""

    def __init__(
        self, maps: IpMaps, backend: Backend, nodes: NodeDiscovery, prune_grace_s: float = 30.0
    ) -> None:
        """`nodes.local` says who this node is. Nothing is written before `start`."""
        self.table: Table[IPv4Network, IpcacheWish] = Table("ipcache")
        self.tunnel_table: Table[IPv4Address, IPv4Address] = Table("tunnel")
        self._ipcache_target = IpcacheTarget(maps)
        self._tunnel_target = TunnelTarget(maps)
        self._backend = backend
        self._nodes = nodes
        self._prune_grace_s = prune_grace_s
        self._merge = IpMerge()
        self._tunnels = IpMerge()
        self._listeners: list[IpListener] = []
        self._tasks: list[asyncio.Task[Any]] = []
        self._restored = asyncio.Event()
        self._ips_synced = asyncio.Event()
        self._nodes_synced = asyncio.Event()
        self.pruned = False
        """Whether what was in the maps from before has been cleared of strangers."""

    # --- life

    async def start(self) -> None:
        """State host and world, and begin to follow the cluster and to write the maps."""
        if self._tasks:
            return
        self._state(WORLD, "world", IpInfo(_id(Reserved.WORLD), None, Source.WORLD))
        for address in _ipv4_addresses(self._nodes.local):
            self._state(
                IPv4Network(address),
                "host",
                IpInfo(_id(Reserved.HOST), None, Source.HOST, self._nodes.local.full_name),
            )
        self._nodes.listen(self._node_changed, self._nodes_synced.set)
        self._tasks = [
            spawn(Reconciler(self.table, self._ipcache_target).run(), "reconcile ipcache"),
            spawn(Reconciler(self.tunnel_table, self._tunnel_target).run(), "reconcile tunnel"),
            spawn(self._follow_ips(), "follow addresses"),
            spawn(self._prune(), "prune ipcache"),
        ]

    async def stop(self) -> None:
        """Stop following and writing; the maps stay as they are."""
        for task in self._tasks:
            task.cancel()
        for task in self._tasks:
            with suppress(asyncio.CancelledError):
                await task
        self._tasks = []

    # --- own endpoints and policies

    def upsert_endpoint(self, address: EndpointAddress) -> None:
        """State a local endpoint's address and publish it to the cluster."""
        local = self._nodes.local
        self._state(
            IPv4Network(address.ipv4),
            "local",
            IpInfo(
                identity=address.identity,
                tunnel_endpoint=local.node_ipv4,
                source=Source.LOCAL,
                node=local.full_name,
                namespace=address.namespace,
                pod=address.pod,
                endpoint_id=address.endpoint_id,
            ),
        )
        self._backend.upsert_ip(
            IpEntry(
                network=IPv4Network(address.ipv4),
                host_ip=local.node_ipv4,
                identity=address.identity,
                metadata=endpoint_metadata(local.cluster, local.name, address.endpoint_id),
                namespace=address.namespace,
                pod=address.pod,
            )
        )

    def delete_endpoint(self, ipv4: IPv4Address) -> None:
        """Withdraw a local endpoint's address, here and from the cluster."""
        self._withdraw(IPv4Network(ipv4), "local")
        self._backend.delete_ip(IPv4Network(ipv4))

    def endpoints_restored(self) -> None:
        """Say that all endpoints and CIDRs from before a restart are in: publish the node, allow pruning."""
        self._nodes.publish()
        self._restored.set()

    def set_cidrs(self, cidrs: Mapping[IPv4Network, NumericIdentity]) -> None:
        """Make the prefixes that policies name be exactly these."""
        for network in self._merge.stated_by("cidr") - cidrs.keys():
            self._withdraw(network, "cidr")
        for network, identity in cidrs.items():
            self._state(network, "cidr", IpInfo(identity, None, Source.CIDR))

    # --- reading

    def listen(self, listener: IpListener) -> None:
        """Tell `listener` of every prefix known now and of every change."""
        for network, info in self._merge.entries().items():
            listener(network, None, info)
        self._listeners.append(listener)

    def entries(self) -> dict[IPv4Network, IpInfo]:
        """Every known prefix."""
        return self._merge.entries()

    def lookup(self, address: IPv4Address) -> IpInfo | None:
        """Return what the datapath finds for `address`, once the wishes are carried out."""
        return self._merge.lookup(address)

    @property
    def errors(self) -> int:
        """How many wishes could not be carried out yet."""
        return sum(row.state is RowState.ERROR for row in self.table.rows()) + sum(
            row.state is RowState.ERROR for row in self.tunnel_table.rows()
        )

    # --- the cluster

    async def _follow_ips(self) -> None:
        async for event in self._backend.watch_ips():
            if isinstance(event, Upserted):
                self._ip_changed(event.key, event.entry)
            elif isinstance(event, Deleted):
                network = event.entry.network
                if isinstance(network, IPv4Network):
                    self._withdraw(network, event.key)
            elif isinstance(event, Synced):
                self._ips_synced.set()

    def _ip_changed(self, key: str, entry: IpEntry) -> None:
        network, host = entry.network, entry.host_ip
        if not isinstance(network, IPv4Network):
            return
        if host == self._nodes.local.node_ipv4 or is_local_scope(entry.identity):
            # Own addresses are known first hand; node-local numbers mean nothing here.
            self._withdraw(network, key)
            return
        before = self._merge.best(network)
        if before is not None and before.source >= Source.LOCAL:
            logger.warning(
                "another node publishes an address of this one",
                extra={"ip": str(network), "host_ip": str(host), "metadata": entry.metadata},
            )
        self._state(
            network,
            key,
            IpInfo(
                identity=entry.identity,
                tunnel_endpoint=host if isinstance(host, IPv4Address) else None,
                source=Source.REMOTE,
                node=_node_of(entry.metadata),
                namespace=entry.namespace,
                pod=entry.pod,
            ),
        )

    def _node_changed(self, before: NodeEntry | None, after: NodeEntry | None) -> None:
        node = after or before
        if node is None:
            return
        owner = f"node:{node.full_name}"
        addresses: dict[IPv4Network, IpInfo] = {}
        tunnels: dict[IPv4Network, IPv4Address] = {}
        if after is not None and after.node_ipv4 not in (None, self._nodes.local.node_ipv4):
            addresses = _addresses_of(after)
            tunnels = {cidr: after.node_ipv4 for cidr in after.pod_cidrs if after.node_ipv4}
        for network in self._merge.stated_by(owner) - addresses.keys():
            self._withdraw(network, owner)
        for network, info in addresses.items():
            self._state(network, owner, info)
        for cidr in self._tunnels.stated_by(owner) - _tunnel_keys(tunnels):
            self._tunnels.withdraw(cidr, owner)
            self._wish_tunnel(cidr)
        for cidr, node_ipv4 in tunnels.items():
            key = IPv4Network(cidr.network_address)
            info = IpInfo(_id(Reserved.REMOTE_NODE), node_ipv4, Source.NODE, node.full_name)
            self._tunnels.state(key, owner, info)
            self._wish_tunnel(key)

    # --- wishes

    def _state(self, network: IPv4Network, owner: str, info: IpInfo) -> None:
        before = self._merge.best(network)
        self._merge.state(network, owner, info)
        self._wish(network, before)

    def _withdraw(self, network: IPv4Network, owner: str) -> None:
        before = self._merge.best(network)
        self._merge.withdraw(network, owner)
        self._wish(network, before)

    def _wish(self, network: IPv4Network, before: IpInfo | None) -> None:
        after = self._merge.best(network)
        if after == before:
            return
        if after is None:
            self.table.delete(network)
        else:
            self.table.put(network, IpcacheWish(after.identity, after.tunnel_endpoint))
        for listener in self._listeners:
            listener(network, before, after)

    def _wish_tunnel(self, key: IPv4Network) -> None:
        info = self._tunnels.best(key)
        if info is None or info.tunnel_endpoint is None:
            self.tunnel_table.delete(key.network_address)
        else:
            self.tunnel_table.put(key.network_address, info.tunnel_endpoint)

    # --- strangers

    async def _prune(self) -> None:
        for ready in (self._restored, self._ips_synced, self._nodes_synced):
            await ready.wait()
        await self._prune_until_done(behind_nodes=False)
        await asyncio.sleep(self._prune_grace_s)
        await self._prune_until_done(behind_nodes=True)
        self.pruned = True

    async def _prune_until_done(self, *, behind_nodes: bool) -> None:
        while True:
            try:
                self._prune_once(behind_nodes=behind_nodes)
            except PalomarError as error:
                logger.warning("prune failed", extra={"error": str(error)})
                await asyncio.sleep(PRUNE_RETRY_S)
            else:
                return

    def _prune_once(self, *, behind_nodes: bool) -> None:
        own = self._nodes.local.node_ipv4
        wished = {row.key for row in self.table.rows()}
        gone: list[object] = []
        for network, tunnel_endpoint in self._ipcache_target.strangers(wished).items():
            if behind_nodes or tunnel_endpoint in (None, own):
                self._ipcache_target.delete(network)
                gone.append(network)
        if behind_nodes:
            wished_tunnels = {row.key for row in self.tunnel_table.rows()}
            for prefix in self._tunnel_target.strangers(wished_tunnels):
                self._tunnel_target.delete(prefix)
                gone.append(prefix)
        if gone:
            logger.info("strangers removed from the maps", extra={"count": len(gone)})


def _addresses_of(node: NodeEntry) -> dict[IPv4Network, IpInfo]:
    """What a remote node's addresses are: its router answers through the tunnel, the others directly."""
    found = {}
    for address in node.addresses:
        if address.type in (
            AddressType.INTERNAL_IP,
            AddressType.EXTERNAL_IP,
            AddressType.CILIUM_INTERNAL_IP,
        ):
            with suppress(ValueError):
                inside = address.type is AddressType.CILIUM_INTERNAL_IP
                found[IPv4Network(IPv4Address(address.ip))] = IpInfo(
                    identity=_id(Reserved.REMOTE_NODE),
                    tunnel_endpoint=node.node_ipv4 if inside else None,
                    source=Source.NODE,
                    node=node.full_name,
                )
    return found


def _ipv4_addresses(node: NodeEntry) -> Iterable[IPv4Address]:
    for address in node.addresses:
        with suppress(ValueError):
            yield IPv4Address(address.ip)


def _tunnel_keys(tunnels: Iterable[IPv4Network]) -> set[IPv4Network]:
    return {IPv4Network(cidr.network_address) for cidr in tunnels}


def _node_of(metadata: str) -> str:
    """`<cluster>/<node>` of `cilium-global:<cluster>:<node>:<endpoint id>`; empty for another form."""
    parts = metadata.split(":")
    return f"{parts[1]}/{parts[2]}" if len(parts) == 4 and parts[0] == "cilium-global" else ""


def _id(identity: Reserved) -> NumericIdentity:
    return NumericIdentity(identity)
