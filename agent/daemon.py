"""The agent of a node: every part made, wired and started in order, in this one place.

Order of the start, each a stage named in log, status and metrics: kvstore, ipam, bpf maps, kvstore sync,
restore endpoints, policies, regenerate endpoints, watches, event path. The kernel forwards and enforces
through all of it as the last agent left it: maps are never emptied, and nothing is pruned before every
endpoint's policy is resolved again. Stopping leaves the kernel as it is.
"""

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as package_version
from ipaddress import IPv4Network
from pathlib import Path
from typing import Protocol

from agent.agentevents import AgentEventLog
from agent.api.server import ApiServer
from agent.children import child_specs
from agent.cidrfile import read_cidr_numbers, write_cidr_numbers
from agent.config import AgentConfig
from agent.controllers import Controller
from agent.datapaththread import DatapathThread
from agent.endpoint import restore
from agent.endpoint.manager import EndpointManager, EndpointParts
from agent.endpoint.namespaces import KernelNamespaces, NamespaceTable
from agent.endpoint.store import EndpointStore
from agent.flownames import FlowNames
from agent.identity.cache import IdentityCache
from agent.identity.cidr import CidrIdentities
from agent.identity.labelfilter import LabelFilter
from agent.ingestlink import IngestLink
from agent.ipam import Ipam
from agent.ipcache import IpCache
from agent.metrics import Metrics
from agent.nodeidentity import NodeIdentities
from agent.nodes import BOOT_ID_FILE, NodeDiscovery, local_node_entry
from agent.peersfile import PeersFile
from agent.policy.engine import PolicyConfig, PolicyEngine
from agent.policy.parse import ParsedPolicies, parse_policies
from agent.policy.resolve import EnforcementMode
from agent.policydir import PolicyDirectory
from agent.policymaps import PolicyMapWriter
from agent.policyset import PolicySet
from agent.policysync import PolicySync
from agent.runtime import Bootstrap, Runtime
from agent.supervisor import Supervisor
from cluster.backend import Backend
from cluster.connect import open_backend
from cluster.shared import SharedStateConfig
from datapath.bpffs import RootLock, ensure_mounted
from datapath.config import DatapathConfig
from datapath.node import NodeDatapath
from palomar.certwatch import CHECK_S as CERTIFICATE_CHECK_S
from palomar.certwatch import CertificateWatch
from palomar.clock import Clock
from palomar.identity import NumericIdentity
from palomar.table import RowState
from palomar.tasks import spawn

logger = logging.getLogger(__name__)

INGEST_TIMEOUT_S = 5.0
"""How long a start waits for the process that reads events, so that the first flows are seen."""
SYNC_TIMEOUT_S = 5.0
"""How long a start waits for the shared state before it goes on with what the state files say."""
SYNC_POLL_S = 0.25
ENOUGH_FAILURES = 3
CT_GC_INTERVAL_S = 60.0
ENDPOINT_GC_INTERVAL_S = 30.0


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


class Daemon:
    """An agent; `run` it until it is told to stop."""

    def __init__(self, config: AgentConfig, clock: Clock) -> None:
        """Make what needs no other part; nothing is touched before `run`."""
        self.config = config
        self.clock = clock
        self.bootstrap = Bootstrap(started_ns=clock.monotonic_ns())
        self.metrics = Metrics()
        self.stopped = asyncio.Event()
        """Set it to stop the agent."""

    async def run(self) -> None:
        """Start, work until `stopped` is set, stop. Raises PalomarError when the start fails."""
        async with AsyncExitStack() as stack:
            await self._start(stack)
            logger.info("agent is ready", extra={"node": self.config.node_name})
            await self.stopped.wait()
            logger.info("agent stops", extra={"node": self.config.node_name})

    async def _start(self, stack: AsyncExitStack) -> None:
        config, paths = self.config, self.config.paths
        lock = RootLock(paths.lock_file, paths.bpf_root)
        thread = DatapathThread()
        stack.callback(thread.close)
        async with self._stage("bpf root"):
            await thread.run(ensure_mounted, paths.bpf_root)
            lock.acquire()
            stack.callback(lock.release)
        async with self._stage("kvstore"):
            backend = self._backend()
            await backend.start()
            stack.push_async_callback(backend.stop)
        async with self._stage("ipam"):
            ipam = Ipam(config.pod_cidr)
        async with self._stage("bpf maps"):
            datapath = NodeDatapath(self._datapath_config())
            stack.push_async_callback(thread.run, datapath.stop)
            await thread.run(datapath.start)
        runtime = self.wire(thread, backend, ipam, datapath, KernelNamespaces())
        supervisor = self._supervisor()
        runtime.processes = supervisor.status
        self.metrics.bind(runtime)
        await _enter(stack, ApiServer(runtime, self.metrics))
        # Early: events are lost while nobody reads. The ingest waits a second for the names below.
        await _enter(stack, supervisor)
        async with self._stage("kvstore sync"):
            await _enter(stack, runtime.ipcache)
            await _enter(stack, runtime.nodes)
            self._announce_peers(runtime.nodes)
            synced = await _synced_soon(backend)
            if not synced:
                logger.warning("shared state is away: going on with the state files")
            await _enter(stack, runtime.identities)
            runtime.sync.store_synced = synced
        async with self._stage("restore endpoints"):
            runtime.restored = await restore.take_over(runtime.endpoints)
            known = {int(e.endpoint_id): e.record.host_ifname for e in runtime.endpoints.endpoints()}
            await thread.run(restore.remove_strangers, datapath, known)
            await _enter(stack, runtime.link)
        async with self._stage("policies"):
            await runtime.policies.load()
        async with self._stage("regenerate endpoints"):
            await restore.regenerate_all(runtime.endpoints)
            runtime.sync.forget_old_cidrs()
            runtime.ipcache.endpoints_restored()
        async with self._stage("watches"):
            await self._watch(stack, runtime, synced=synced)
        async with self._stage("event path"):
            await _reader_there(runtime.link)
        self.bootstrap.stage = "ready"
        total_s = (self.clock.monotonic_ns() - self.bootstrap.started_ns) / 1e9
        self.bootstrap.durations_s["overall"] = total_s
        runtime.events.agent_started()

    async def _watch(self, stack: AsyncExitStack, runtime: Runtime, *, synced: bool) -> None:
        for name, work in (
            ("policy maps", runtime.sync.run()),
            ("shared state sync", self._when_synced(runtime, synced=synced)),
        ):
            task = spawn(work, name)
            stack.push_async_callback(_cancel, task)
        await _enter(stack, runtime.policies)

        async def sweep() -> None:
            await restore.sweep_vanished(runtime.endpoints)

        async def look_at_certificates() -> None:
            runtime.certificates = watch.check()

        certificate, authority = self.config.hubble_tls_cert_file, self.config.hubble_tls_client_ca_file
        watch = CertificateWatch([path for path in (certificate, authority) if path is not None], self.clock)
        if certificate is not None:
            await look_at_certificates()
            runtime.controllers.append(
                Controller("certificate-watch", CERTIFICATE_CHECK_S, look_at_certificates, self.clock)
            )
        runtime.controllers += [
            Controller("conntrack-gc", CT_GC_INTERVAL_S, lambda: self.collect_conntrack(runtime), self.clock),
            Controller("endpoint-gc", ENDPOINT_GC_INTERVAL_S, sweep, self.clock),
        ]
        for controller in runtime.controllers:
            await _enter(stack, controller)

    async def _when_synced(self, runtime: Runtime, *, synced: bool) -> None:
        while not synced:
            synced = await runtime.backend.wait_synced(SYNC_TIMEOUT_S)
        runtime.identities.refresh()
        await runtime.sync.set_store_synced()

    async def collect_conntrack(self, runtime: Runtime) -> None:
        """Remove connections whose time is over."""
        began_ns = self.clock.monotonic_ns()
        now_s = began_ns // 10**9
        counted = await runtime.thread.run(lambda: runtime.maps().ct.gc(now_s))
        seconds = (self.clock.monotonic_ns() - began_ns) / 1e9
        gc = runtime.conntrack_gc
        gc.runs, gc.last, gc.duration_s = gc.runs + 1, counted, seconds
        self.metrics.observe_gc(seconds, ok=True)

    # --- parts

    def _backend(self) -> Backend:
        config = self.config
        return open_backend(
            config.kvstore,
            SharedStateConfig(config.node_name, config.node_ipv4, config.kvstore_lease_ttl),
            directory=config.kvstore_dir,
            etcd_endpoints=config.etcd_endpoints,
        )

    def _datapath_config(self) -> DatapathConfig:
        config = self.config
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

    def wire(
        self,
        thread: DatapathThread,
        backend: Backend,
        ipam: Ipam,
        datapath: NodeDatapath,
        namespaces: NamespaceTable,
    ) -> Runtime:
        """Make every part that stands on these and connect them; nothing is started."""
        config, paths, clock = self.config, self.config.paths, self.clock
        events = AgentEventLog(paths.flow_dir, clock)
        link = IngestLink(paths.ingest_socket, clock)
        nodes = NodeDiscovery(
            backend,
            local_node_entry(
                config.node_name,
                config.cluster_name,
                config.node_ipv4,
                ipam.router,
                config.pod_cidr,
                dict(config.node_labels),
                boot_id(),
            ),
        )
        ipcache = IpCache(datapath.maps, backend, nodes)
        cache = IdentityCache()
        identities = NodeIdentities(backend, cache, LabelFilter(config.labels))
        engine = PolicyEngine(
            PolicyConfig(EnforcementMode(config.enable_policy), config.allow_localhost == "always"),
            {int(number): labels for number, labels in cache.as_mapping().items()},
        )
        cidr_file = config.state_dir / "cidr-identities.json"
        cidrs = CidrIdentities(dict(read_cidr_numbers(cidr_file).items()))
        sync = PolicySync(
            engine, cache, cidrs, PolicyMapWriter(datapath.maps), thread, IpcachePrefixes(ipcache), link
        )
        sync.cidrs_changed.append(
            lambda: write_cidr_numbers(
                cidr_file, {n: i for n, i in cidrs.snapshot().items() if isinstance(n, IPv4Network)}
            )
        )

        def parse(text: str) -> ParsedPolicies:
            return parse_policies(text, config.cluster_name)

        directory = PolicyDirectory(config.policy_dir, parse) if config.policy_dir is not None else None
        policies = PolicySet(sync, directory, paths.policy_state_dir, parse, events)
        endpoints = EndpointManager(
            EndpointParts(
                datapath=datapath,
                thread=thread,
                namespaces=namespaces,
                ipam=ipam,
                identities=identities,
                addresses=ipcache,
                policies=sync,
                store=EndpointStore(paths.endpoint_dir),
                clock=clock,
            )
        )
        identities.moved = endpoints.identity_moved
        names = FlowNames(config.cluster_name, cache, endpoints, link, events)
        cache.listen(names.identities_changed)
        ipcache.listen(names.address_changed)
        endpoints.listeners += [names.endpoint_changed]
        endpoints.stage_observers += [self.metrics.observe_stage]
        endpoints.listeners += [self.metrics.endpoint_changed]
        names.node_devices()

        def regenerated(endpoint_id: int, error: str) -> None:
            item = endpoints.get(endpoint_id)
            if item is not None:
                events.regenerated(endpoint_id, item.record.identity_labels.texts(), error)

        sync.regenerated.append(regenerated)
        return Runtime(
            config=config,
            clock=clock,
            version=program_version(),
            bootstrap=self.bootstrap,
            thread=thread,
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

    def _supervisor(self) -> Supervisor:
        path = python_path(os.environ.get("PYTHONPATH", ""))
        return Supervisor(child_specs(self.config, os.getpid(), path), self.clock)

    def _announce_peers(self, nodes: NodeDiscovery) -> None:
        """Keep the file from which the flow server announces the nodes to relays."""
        config = self.config
        if config.hubble_listen_address is None:
            return
        peers = PeersFile(
            config.run_dir / "peers.json",
            config.hubble_listen_address[1],
            tls=not config.hubble_listen_insecure,
        )

        def write() -> None:
            known = [(node.cluster, node.name, node.node_ipv4) for node in nodes.nodes()]
            peers.write((cluster, name, ipv4) for cluster, name, ipv4 in known if ipv4 is not None)

        nodes.listen(lambda _before, _after: write(), write)
        write()

    @asynccontextmanager
    async def _stage(self, name: str) -> AsyncIterator[None]:
        self.bootstrap.stage = name
        began_ns = self.clock.monotonic_ns()
        logger.info("start", extra={"stage": name})
        yield
        seconds = (self.clock.monotonic_ns() - began_ns) / 1e9
        self.bootstrap.durations_s[name] = seconds
        logger.info("started", extra={"stage": name, "ms": round(seconds * 1000, 1)})


async def _enter(stack: AsyncExitStack, part: "_Part") -> None:
    """Start a part and stop it when the stack unwinds, also when its start fails half-way."""
    stack.push_async_callback(part.stop)
    await part.start()


class _Part(Protocol):
    """Anything with `start` and `stop`."""

    async def start(self) -> None: ...

    async def stop(self) -> None: ...


async def _synced_soon(backend: Backend) -> bool:
    """Wait for the shared state, but not for one that refused several times: names and policy are waiting."""
    for _ in range(int(SYNC_TIMEOUT_S / SYNC_POLL_S)):
        if await backend.wait_synced(SYNC_POLL_S):
            return True
        if backend.status().failures >= ENOUGH_FAILURES:
            return False
    return False


async def _reader_there(link: IngestLink) -> None:
    try:
        await asyncio.wait_for(link.was_connected.wait(), INGEST_TIMEOUT_S)
    except TimeoutError:
        logger.warning("nobody reads events yet: they are counted as lost")


async def _cancel(task: "asyncio.Task[None]") -> None:
    task.cancel()
    await asyncio.wait([task])


def program_version() -> str:
    """Return the installed version; `unknown` from a source tree that is not installed."""
    try:
        return package_version("palomar")
    except PackageNotFoundError:
        return "unknown"


def boot_id() -> str:
    """Return the kernel's id of this boot; empty where it has none."""
    try:
        return BOOT_ID_FILE.read_text().strip()
    except OSError:
        return ""


def python_path(before: str) -> str:
    """Let a child import what this process imports, also from a checkout that is not installed."""
    root = Path(__file__).resolve().parent.parent
    return os.pathsep.join(filter(None, [str(root), str(root / "proto"), before]))
