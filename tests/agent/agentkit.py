"""An agent without a kernel: the real parts wired by `agent.wiring` over fakes of the datapath.

For tests of the parts together. The fakes are those that live beside their protocols.
"""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from agent.config import AgentConfig, load
from agent.daemon import Daemon
from agent.datapaththread import DatapathThread
from agent.endpoint.datapath import FakeEndpointDatapath
from agent.endpoint.namespaces import FakeNamespaces
from agent.endpoint.request import EndpointRequest, parse_request
from agent.ipam import Ipam
from agent.ipcache.target import FakeIpMaps
from agent.policymaps import FakePolicyMaps
from agent.runtime import Runtime
from agent.wiring import Ground, wire
from cluster.connect import open_backend
from cluster.shared import SharedState, SharedStateConfig
from datapath.abi.addresses import EndpointInfo, EndpointKey
from datapath.abi.counters import EventStats, MetricsKey, MetricsValue
from datapath.abi.policy import PolicyKey
from datapath.maps.conntrack import GcCount
from datapath.node import NodeDatapath
from palomar.clock import SystemClock

POLICY = """
apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {{name: {name}, namespace: demo}}
spec:
  endpointSelector: {{matchLabels: {{app: {subject}}}}}
  ingress:
  - fromEndpoints: [{{matchLabels: {{app: {peer}}}}}]
    toPorts: [{{ports: [{{port: "80", protocol: TCP}}]}}]
"""


def policy_text(name: str = "allow-web", subject: str = "web", peer: str = "client") -> str:
    """A policy that lets `peer` reach port 80 of `subject`, both in the namespace demo."""
    return POLICY.format(name=name, subject=subject, peer=peer)


class FakeMaps(FakeIpMaps, FakePolicyMaps):
    """Every map the agent looks at."""

    def __init__(self, globals_dir: Path) -> None:
        FakeIpMaps.__init__(self)
        FakePolicyMaps.__init__(self)
        self.globals_dir = globals_dir
        self.lxc = self
        self.metrics = _Counters()
        self.ct = _Conntrack()

    def items(self) -> Iterator[tuple[EndpointKey, EndpointInfo]]:
        """No entry of `cilium_lxc`."""
        return iter(())

    def policy_endpoint_ids(self) -> list[int]:
        """Endpoints with a policy map."""
        return sorted(self.maps)

    def event_stats(self) -> list[EventStats]:
        """Two CPUs."""
        return [EventStats(0, 10, 1, 2), EventStats(1, 5, 0, 0)]


class _Counters:
    def items(self) -> dict[MetricsKey, MetricsValue]:
        return {
            MetricsKey(133, 1, 200, 104): MetricsValue(3, 300),
            MetricsKey(133, 1, 201, 104): MetricsValue(1, 100),
            MetricsKey(0, 2, 10, 2): MetricsValue(7, 700),
        }


class _Conntrack:
    def gc(self, now_s: int) -> GcCount:
        return GcCount(10, 4)


class FakeNode(FakeEndpointDatapath):
    """`NodeDatapath` in memory."""

    def __init__(self, namespaces: set[str], globals_dir: Path) -> None:
        super().__init__(namespaces)
        self.maps = FakeMaps(globals_dir)

    def disconnect(self, endpoint_id: int, ifname: str) -> None:
        super().disconnect(endpoint_id, ifname)
        self.maps.maps.pop(endpoint_id, None)


@dataclass
class Agent:
    """A running agent and its fakes."""

    runtime: Runtime
    daemon: Daemon
    node: FakeNode
    namespaces: FakeNamespaces
    backend: SharedState

    def entries(self, endpoint_id: int) -> dict[PolicyKey, Any]:
        """What the endpoint's policy map holds."""
        return dict(self.node.maps.maps[endpoint_id].entries)


def config_for(folder: Path, *argv: str, pod_cidr: str = "10.1.0.0/28") -> AgentConfig:
    """A configuration whose files are all below `folder`."""
    least = ["--node-name=one", "--node-ipv4=127.0.0.1", f"--pod-cidr={pod_cidr}"]
    places = [f"--run-dir={folder}/run", f"--state-dir={folder}/state", f"--bpf-root={folder}/bpf"]
    return load([*least, *places, *argv], {})


def request(name: str, labels: tuple[str, ...] = (), **more: Any) -> EndpointRequest:
    """An add of the pod demo/<name> with the namespace /run/netns/<name>."""
    body = {
        "container-name": name,
        "k8s-pod-name": name,
        "k8s-namespace": "demo",
        "netns": f"/run/netns/{name}",
        "labels": list(labels) or [f"app={name}"],
        **more,
    }
    return parse_request(body, "default")


@asynccontextmanager
async def running(
    config: AgentConfig, node: FakeNode | None = None, *, load_policies: bool = True
) -> AsyncIterator[Agent]:
    """An agent with everything started but the API, the children and the restore of endpoints."""
    paths = {f"/run/netns/{name}" for name in ("web", "client", "other", "extra")}
    namespaces = FakeNamespaces(node.namespaces if node is not None else paths)
    fake = node or FakeNode(namespaces.paths, config.paths.globals_dir)
    daemon = Daemon(config, SystemClock())
    backend = open_backend(
        "file", SharedStateConfig("one", config.node_ipv4, 15), directory=config.kvstore_dir
    )
    thread = DatapathThread()
    ground = Ground(thread, backend, Ipam(config.pod_cidr), cast(NodeDatapath, fake), namespaces)
    runtime = wire(config, daemon.clock, daemon.bootstrap, daemon.metrics, ground)
    parts = (backend, runtime.ipcache, runtime.nodes, runtime.identities)
    try:
        for part in parts:
            await part.start()
        assert await backend.wait_synced(5)
        runtime.sync.store_synced = True
        if load_policies:
            await runtime.policies.load()
        runtime.bootstrap.stage = "ready"
        yield Agent(runtime, daemon, fake, namespaces, backend)
    finally:
        await runtime.policies.stop()
        for part in reversed(parts):
            await part.stop()
        thread.close()
