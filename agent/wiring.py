"""The parts of an agent made and connected, in this one place; nothing is started.

Not the order of the start (`agent.daemon`). Input: the configuration and what touches the world; output: the
parts by name (`agent.runtime`). Tests give it fakes of the ground.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import IPv4Network

from agent.agentevents import AgentEventLog
from agent.cidrfile import read_cidr_numbers, write_cidr_numbers
from agent.config import AgentConfig
from agent.datapaththread import DatapathThread
from agent.endpoint.manager import EndpointManager, EndpointParts
from agent.endpoint.namespaces import NamespaceTable
from agent.endpoint.store import EndpointStore
from agent.flownames import FlowNames
from agent.identity.cache import IdentityCache
from agent.identity.cidr import CidrIdentities
from agent.identity.labelfilter import LabelFilter
from agent.ingestlink import IngestLink
from agent.ipam import Ipam
from agent.ipcache import IpCache
from agent.metrics.registry import Metrics
from agent.nodeidentity import NodeIdentities
from agent.nodes import NodeDiscovery, boot_id, local_node_entry
from agent.peersfile import PeersFile
from agent.policy.engine import PolicyConfig, PolicyEngine
from agent.policy.parse import ParsedPolicies, parse_policies
from agent.policy.resolve import EnforcementMode
from agent.policydir import PolicyDirectory
from agent.policymaps import PolicyMapWriter
from agent.policyset import PolicySet
from agent.policysync import PolicySync
from agent.runtime import Bootstrap, Runtime
from cluster.backend import Backend, NodeEntry
from cluster.connect import open_backend
from cluster.shared import SharedStateConfig
from datapath.config import DatapathConfig
from datapath.node import NodeDatapath
from palomar.clock import Clock
from palomar.identity import NumericIdentity
from palomar.table import RowState
from palomar.version import installed_version


@dataclass(frozen=True, slots=True)
class Ground:
    """What every other part stands on: the kernel, its namespaces, the shared state."""

    thread: DatapathThread
    backend: Backend
    ipam: Ipam
    datapath: NodeDatapath
    namespaces: NamespaceTable


class IpcachePrefixes:
    """The ipcache as policy synchronisation sees it."""

    def __init__(self, ipcache: IpCache) -> None:
        """Stand before `ipcache`."""
        self._ipcache = ipcache

    def set_cidrs(self, cidrs: Mapping[IPv4Network, NumericIdentity]) -> None:
        """Make the prefixes be exactly these."""
        self._ipcache.set_cidrs(cidrs)

    @property
    def settled(self) -> bool:
        """Whether every wish was tried."""
        return all(row.state is not RowState.PENDING for row in self._ipcache.table.rows())


def shared_state(config: AgentConfig) -> Backend:
    """Return the state that the nodes share, unstarted."""
    return open_backend(
        config.kvstore,
        SharedStateConfig(config.node_name, config.node_ipv4, config.kvstore_lease_ttl),
        directory=config.kvstore_dir,
        etcd_endpoints=config.etcd_endpoints,
    )


def datapath_config(config: AgentConfig) -> DatapathConfig:
    """Return what the datapath needs to know of the node."""
    return DatapathConfig(
        bpf_root=config.bpf_root,
        node_name=config.node_name,
        node_ipv4=config.node_ipv4,
        router_ipv4=config.router_ipv4,
        pod_cidr=config.pod_cidr,
        cluster_cidr=config.cluster_pod_cidr,
        device=config.device,
        tunnel_port=config.tunnel_port,
        mtu=config.mtu,
        masquerade=config.enable_ipv4_masquerade,
        aggregation=config.monitor_aggregation,
        ct_tcp_max=config.bpf_ct_global_tcp_max,
        ct_any_max=config.bpf_ct_global_any_max,
    )


def wire(config: AgentConfig, clock: Clock, bootstrap: Bootstrap, metrics: Metrics, given: Ground) -> Runtime:
    """Make every part that stands on `given` and connect them; nothing is started."""
    ipam, backend, datapath = given.ipam, given.backend, given.datapath
    events = AgentEventLog(config.paths.flow_dir, clock)
    link = IngestLink(config.paths.ingest_socket, clock)
    nodes = NodeDiscovery(backend, _local_node(config, ipam))
    ipcache = IpCache(datapath.maps, backend, nodes)
    cache = IdentityCache()
    identities = NodeIdentities(backend, cache, LabelFilter(config.labels))
    sync = _policy_sync(config, cache, ipcache, link, given)
    policies = _policy_set(config, sync, events)
    endpoints = _endpoint_manager(config, clock, given, identities, ipcache, sync)
    identities.moved = endpoints.identity_moved
    endpoints.stage_observers += [metrics.observe_stage]
    _tell_names(FlowNames(config.cluster_name, cache, endpoints, link, events), cache, ipcache, endpoints)
    endpoints.listeners += [metrics.endpoint_changed]
    _tell_regenerations(sync, endpoints, events)
    return Runtime(
        config=config,
        clock=clock,
        version=installed_version(),
        bootstrap=bootstrap,
        thread=given.thread,
        events=events,
        link=link,
        ipam=ipam,
        backend=backend,
        nodes=nodes,
        ipcache=ipcache,
        identities=identities,
        sync=sync,
        policies=policies,
        endpoints=endpoints,
        maps=lambda: datapath.maps,
        processes=list,
    )


def _local_node(config: AgentConfig, ipam: Ipam) -> NodeEntry:
    return local_node_entry(
        config.node_name,
        config.cluster_name,
        config.node_ipv4,
        ipam.router,
        config.pod_cidr,
        dict(config.node_labels),
        boot_id(),
    )


def _policy_sync(
    config: AgentConfig, cache: IdentityCache, ipcache: IpCache, link: IngestLink, given: Ground
) -> PolicySync:
    engine = PolicyEngine(
        PolicyConfig(EnforcementMode(config.enable_policy), config.allow_localhost == "always"),
        {int(number): labels for number, labels in cache.as_mapping().items()},
    )
    cidr_file = config.state_dir / "cidr-identities.json"
    cidrs = CidrIdentities(dict(read_cidr_numbers(cidr_file).items()))
    writer = PolicyMapWriter(given.datapath.maps)
    sync = PolicySync(engine, cache, cidrs, writer, given.thread, IpcachePrefixes(ipcache), link)
    sync.cidrs_changed.append(
        lambda: write_cidr_numbers(
            cidr_file, {n: i for n, i in cidrs.snapshot().items() if isinstance(n, IPv4Network)}
        )
    )
    return sync


def _policy_set(config: AgentConfig, sync: PolicySync, events: AgentEventLog) -> PolicySet:
    def parse(text: str) -> ParsedPolicies:
        return parse_policies(text, config.cluster_name)

    directory = PolicyDirectory(config.policy_dir, parse) if config.policy_dir is not None else None
    return PolicySet(sync, directory, config.paths.policy_state_dir, parse, events)


def _endpoint_manager(
    config: AgentConfig,
    clock: Clock,
    given: Ground,
    identities: NodeIdentities,
    ipcache: IpCache,
    sync: PolicySync,
) -> EndpointManager:
    parts = EndpointParts(
        datapath=given.datapath,
        thread=given.thread,
        namespaces=given.namespaces,
        ipam=given.ipam,
        identities=identities,
        addresses=ipcache,
        policies=sync,
        store=EndpointStore(config.paths.endpoint_dir),
        clock=clock,
    )
    return EndpointManager(parts)


def _tell_names(names: FlowNames, cache: IdentityCache, ipcache: IpCache, endpoints: EndpointManager) -> None:
    """Let the ingest hear of every name that flows are to carry."""
    cache.listen(names.identities_changed)
    ipcache.listen(names.address_changed)
    endpoints.listeners += [names.endpoint_changed]
    names.node_devices()


def _tell_regenerations(sync: PolicySync, endpoints: EndpointManager, events: AgentEventLog) -> None:
    def regenerated(endpoint_id: int, error: str) -> None:
        item = endpoints.get(endpoint_id)
        if item is not None:
            events.regenerated(endpoint_id, item.record.identity_labels.texts(), error)

    sync.regenerated.append(regenerated)


def announce_peers(config: AgentConfig, nodes: NodeDiscovery) -> None:
    """Keep the file from which the flow server announces the nodes to relays, where it listens for them."""
    if config.hubble_listen_address is None:
        return
    _, port = config.hubble_listen_address
    PeersFile(config.run_dir / "peers.json", port, tls=not config.hubble_listen_insecure).follow(nodes)
