"""Who is who, told to the ingest process and noted as agent events: addresses, identities, devices.

Listens to the ipcache, the identity cache and the endpoint manager and decides nothing. Output: `IngestLink`
and `AgentEventLog`.
"""

import socket
from ipaddress import IPv4Network

from agent.agentevents import AgentEventLog
from agent.endpoint.manager import EndpointChange, EndpointManager
from agent.endpoint.model import Endpoint
from agent.identity.cache import IdentityCache, IdentityChange
from agent.ingestlink import IngestLink
from agent.ipcache import IpInfo, Source
from palomar.identity import NumericIdentity

HOST_BITS = 32


class FlowNames:
    """See the module's text."""

    def __init__(
        self,
        cluster: str,
        identities: IdentityCache,
        endpoints: EndpointManager,
        link: IngestLink,
        events: AgentEventLog,
    ) -> None:
        """Begin with what the identity cache holds; hear of the rest by the three methods below."""
        self._cluster = cluster
        self._identities = identities
        self._endpoints = endpoints
        self._link = link
        self._events = events
        self._bound: dict[IPv4Network, IpInfo] = {}
        self._by_identity: dict[NumericIdentity, set[IPv4Network]] = {}
        for number, labels in identities.as_mapping().items():
            link.identity(number, labels.texts())

    def identities_changed(self, change: IdentityChange) -> None:
        """Tell labels, and name anew the addresses that have them."""
        for number, labels in change.added.items():
            self._link.identity(number, labels.texts())
            for network in self._by_identity.get(number, ()):
                self._bind(network, self._bound[network])

    def address_changed(self, network: IPv4Network, before: IpInfo | None, after: IpInfo | None) -> None:
        """Tell who an address is now."""
        self._events.ipcache_changed(
            str(network),
            int((after or before or _NOBODY).identity),
            None if before is None or after is None else int(before.identity),
            (after or before or _NOBODY).tunnel_endpoint,
            (after or before or _NOBODY).namespace,
            (after or before or _NOBODY).pod,
            deleted=after is None,
        )
        if network.prefixlen != HOST_BITS:
            return
        known = self._bound.pop(network, None)
        if known is not None:
            self._by_identity[known.identity].discard(network)
        # An address that only a policy's CIDR or the world names is named by its identity.
        if after is None or after.source < Source.NODE:
            self._link.unbind(str(network.network_address))
            return
        self._bound[network] = after
        self._by_identity.setdefault(after.identity, set()).add(network)
        self._bind(network, after)

    def endpoint_changed(self, endpoint: Endpoint, change: EndpointChange) -> None:
        """Tell the endpoint's device and name, and note the event."""
        record = endpoint.record
        facts = (endpoint.endpoint_id, record.identity_labels.texts(), record.namespace, record.pod)
        if change is EndpointChange.GONE:
            self._events.endpoint_deleted(*facts)
            return
        if endpoint.device is not None:
            self._link.interface(endpoint.device.ifindex, endpoint.device.ifname)
        network = IPv4Network(record.ipv4)
        if network in self._bound:
            self._bind(network, self._bound[network])
        if change is EndpointChange.CREATED:
            self._events.endpoint_created(*facts)

    def node_devices(self) -> None:
        """Tell what the node's devices are called."""
        for index, name in socket.if_nameindex():
            self._link.interface(index, name)

    def _bind(self, network: IPv4Network, info: IpInfo) -> None:
        labels = self._identities.labels(info.identity)
        endpoint = self._endpoints.get(info.endpoint_id) if info.endpoint_id else None
        workload = endpoint.record.workload if endpoint is not None else None
        self._link.bind(
            str(network.network_address),
            endpoint_id=info.endpoint_id,
            identity=int(info.identity),
            cluster=info.node.partition("/")[0] or self._cluster,
            namespace=info.namespace,
            pod=info.pod,
            labels=labels.texts() if labels is not None else [],
            workload=(workload.name, workload.kind) if workload is not None else None,
        )


_NOBODY = IpInfo(NumericIdentity(0), None, Source.WORLD)
