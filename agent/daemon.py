"""The agent of a node: every part (`agent.wiring`) started in order and stopped in the opposite one.

Order of the start, each a stage named in log, status and metrics: kvstore, ipam, bpf maps, kvstore sync,
restore endpoints, policies, regenerate endpoints, watches, event path. The kernel forwards and enforces
through all of it as the last agent left it: maps are never emptied, and nothing is pruned before every
endpoint's policy is resolved again. Stopping leaves the kernel as it is.
"""

import asyncio
import logging
import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Protocol

from agent.api.server import ApiServer
from agent.children import child_specs, python_path
from agent.config import AgentConfig
from agent.controllers import Controller
from agent.datapaththread import DatapathThread
from agent.endpoint import restore
from agent.endpoint.namespaces import KernelNamespaces
from agent.ingestlink import IngestLink
from agent.ipam import Ipam
from agent.metrics.registry import Metrics
from agent.runtime import Bootstrap, Runtime
from agent.supervisor import Supervisor
from agent.wiring import Ground, announce_peers, datapath_config, shared_state, wire
from cluster.backend import Backend
from datapath.bpffs import RootLock, ensure_mounted
from datapath.node import NodeDatapath
from palomar.certwatch import CHECK_S as CERTIFICATE_CHECK_S
from palomar.certwatch import CertificateWatch
from palomar.clock import Clock
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

    async def _ground(self, stack: AsyncExitStack) -> Ground:
        config, paths = self.config, self.config.paths
        lock = RootLock(paths.lock_file, paths.bpf_root)
        thread = DatapathThread()
        stack.callback(thread.close)
        async with self._stage("bpf root"):
            await thread.run(ensure_mounted, paths.bpf_root)
            lock.acquire()
            stack.callback(lock.release)
        async with self._stage("kvstore"):
            backend = shared_state(config)
            await backend.start()
            stack.push_async_callback(backend.stop)
        async with self._stage("ipam"):
            ipam = Ipam(config.pod_cidr)
        async with self._stage("bpf maps"):
            datapath = NodeDatapath(datapath_config(config))
            stack.push_async_callback(thread.run, datapath.stop)
            await thread.run(datapath.start)
        return Ground(thread, backend, ipam, datapath, KernelNamespaces())

    async def _start(self, stack: AsyncExitStack) -> None:
        ground = await self._ground(stack)
        runtime = wire(self.config, self.clock, self.bootstrap, self.metrics, ground)
        supervisor = self._supervisor()
        runtime.processes = supervisor.status
        self.metrics.bind(runtime)
        await _enter(stack, ApiServer(runtime, self.metrics))
        # Early: events are lost while nobody reads. The ingest waits a second for the names below.
        await _enter(stack, supervisor)
        async with self._stage("kvstore sync"):
            await _enter(stack, runtime.ipcache)
            await _enter(stack, runtime.nodes)
            announce_peers(self.config, runtime.nodes)
            synced = await _synced_soon(ground.backend)
            if not synced:
                logger.warning("shared state is away: going on with the state files")
            await _enter(stack, runtime.identities)
            runtime.sync.store_synced = synced
        async with self._stage("restore endpoints"):
            runtime.restored = await restore.take_over(runtime.endpoints)
            known = {int(e.endpoint_id): e.record.host_ifname for e in runtime.endpoints.endpoints()}
            await ground.thread.run(restore.remove_strangers, ground.datapath, known)
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

    def _supervisor(self) -> Supervisor:
        path = python_path(os.environ.get("PYTHONPATH", ""))
        return Supervisor(child_specs(self.config, os.getpid(), path), self.clock)

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
