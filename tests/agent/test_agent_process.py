"""A real agent in a node namespace: endpoints, packets, policy, kill -9, restart, bad input."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from palomar.unixhttp import AgentUnreachableError, ApiError, UnixHttpClient
from tests.kit.netns import NetnsFactory, command, exec_in, ping, tcp_connect, tcp_listener
from tests.kit.wait import eventually

pytestmark = [pytest.mark.root, pytest.mark.bpf]

ROOT = Path(__file__).resolve().parents[2]
NODE_IPV4 = "172.31.78.1"
POLICY = """
apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {name: only-friend, namespace: demo}
spec:
  endpointSelector: {matchLabels: {app: web}}
  ingress:
  - fromEndpoints: [{matchLabels: {app: friend}}]
"""


@dataclass
class Node:
    """A node namespace and its agent."""

    factory: NetnsFactory
    folder: Path
    bpf_root: Path
    netns: str
    options: dict[str, str] = field(default_factory=dict)
    process: subprocess.Popen[bytes] | None = None

    @property
    def api(self) -> UnixHttpClient:
        return UnixHttpClient(self.folder / "run" / "palomar.sock", timeout_s=10)

    @property
    def log(self) -> str:
        return (self.folder / "log").read_text()

    def argv(self, **options: str) -> list[str]:
        keys = {
            "node-name": "one",
            "node-ipv4": NODE_IPV4,
            "pod-cidr": "10.1.0.0/28",
            "run-dir": f"{self.folder}/run",
            "state-dir": f"{self.folder}/state",
            "bpf-root": str(self.bpf_root),
            "policy-dir": f"{self.folder}/policies",
            "hubble-event-buffer-capacity": "4096",
            "bpf-ct-global-tcp-max": "1024",
            "bpf-ct-global-any-max": "1024",
            **self.options,
            **{name.replace("_", "-"): value for name, value in options.items()},
        }
        flags = [f"--{name}={value}" for name, value in keys.items()]
        return ["nsenter", f"--net={self.netns}", sys.executable, "-m", "cli.main", "agent", *flags]

    def start(self) -> None:
        path = os.pathsep.join([str(ROOT), str(ROOT / "proto")])
        with (self.folder / "log").open("ab") as output:
            self.process = subprocess.Popen(
                self.argv(), stdout=output, stderr=output, cwd="/", env={**os.environ, "PYTHONPATH": path}
            )
        eventually(self.is_ready, 30)

    def is_ready(self) -> bool:
        assert self.process is not None
        if self.process.poll() is not None:
            raise RuntimeError(f"the agent ended: {self.log[-3000:]}")
        try:
            return bool(self.status()["palomar"]["stage"] == "ready")
        except (AgentUnreachableError, ApiError):
            return False

    def status(self) -> dict[str, Any]:
        return dict(self.api.request("GET", "/v1/healthz"))

    def stop(self, number: int = signal.SIGTERM) -> int:
        assert self.process is not None
        self.process.send_signal(number)
        status = self.process.wait(20)
        self.process = None
        return status

    def add(self, name: str, app: str) -> dict[str, Any]:
        body = {
            "container-name": name,
            "k8s-pod-name": name,
            "k8s-namespace": "demo",
            "netns": self.factory.create(name),
            "labels": [f"app={app}"],
        }
        return dict(self.api.request("PUT", "/v1/endpoint/0", body))

    def endpoints(self) -> dict[str, tuple[int, str, int]]:
        found = {}
        for item in self.api.request("GET", "/v1/endpoint"):
            status = item["status"]
            assert status["state"] == "ready"
            found[status["external-identifiers"]["container-name"]] = (
                item["id"],
                status["networking"]["addressing"][0]["ipv4"],
                status["identity"]["id"],
            )
        return found

    def run_once(self, **options: str) -> subprocess.CompletedProcess[str]:
        path = os.pathsep.join([str(ROOT), str(ROOT / "proto")])
        return subprocess.run(
            self.argv(**options),
            capture_output=True,
            text=True,
            timeout=30,
            cwd="/",
            env={**os.environ, "PYTHONPATH": path},
            check=False,
        )


@pytest.fixture
def node(netns_factory: NetnsFactory, bpf_root: Path, unique_prefix: str) -> Iterator[Node]:
    folder = Path("/tmp") / unique_prefix  # sockets need a short path
    (folder / "policies").mkdir(parents=True)
    netns = netns_factory.create("n")
    inside = Path(netns).name
    command("ip", "-n", inside, "link", "add", "eth0", "type", "veth", "peer", "name", "far0")
    command("ip", "-n", inside, "addr", "add", f"{NODE_IPV4}/24", "dev", "eth0")
    command("ip", "-n", inside, "link", "set", "eth0", "up")
    made = Node(netns_factory, folder, bpf_root, netns)
    yield made
    if made.process is not None:
        made.stop(signal.SIGKILL)
    shutil.rmtree(folder, ignore_errors=True)
    Path(f"/run/palomar-bpffs-{str(bpf_root).strip('/').replace('/', '-')}.lock").unlink(missing_ok=True)


@pytest.fixture
def opened() -> Iterator[ExitStack]:
    """Closes what a test opened."""
    with ExitStack() as stack:
        yield stack


def children(node: Node) -> dict[str, int]:
    return {item["name"]: item["pid"] for item in node.status()["palomar"]["processes"]}


def counted(node: Node) -> dict[str, int]:
    observed = node.status()["palomar"]["observed"]
    return {word: observed[word] for word in ("emitted", "stored", "lost")}


def test_from_packet_to_policy_through_kill_9(node: Node, opened: ExitStack) -> None:
    """The story of the issue on one node: reach, forbid, see it, die, come back the same."""
    node.start()
    web = node.add("web", "web")
    client = node.add("client", "client")
    client_address = client["status"]["networking"]["addressing"][0]["ipv4"]
    address = web["status"]["networking"]["addressing"][0]["ipv4"]
    client_netns, web_netns = (
        f"/run/netns/{node.factory.prefix}-client",
        f"/run/netns/{node.factory.prefix}-web",
    )
    assert ping(client_netns, address)
    assert ping(node.netns, address), "the host reaches its endpoints"

    # A connection that is open before the policy, judged anew when it comes.
    listener = opened.enter_context(tcp_listener(web_netns, address, 8080))
    connection = opened.enter_context(tcp_connect(client_netns, address, 8080))
    served = opened.enter_context(listener.accept()[0])
    connection.sendall(b"before")
    assert served.recv(10) == b"before"

    (node.folder / "policies" / "web.yaml").write_text(POLICY)
    eventually(lambda: not ping(client_netns, address), 5)
    connection.sendall(b"after")
    served.settimeout(0.5)
    with pytest.raises(TimeoutError):
        served.recv(10)
    metrics = str(node.api.request("GET", "/metrics"))
    assert 'cilium_drop_count_total{direction="INGRESS",reason="Policy denied"}' in metrics
    eventually(lambda: counted(node)["stored"] > 0 and counted(node)["lost"] == 0)
    before = node.endpoints()
    entries = node.api.request("GET", f"/v1/map/cilium_policy_v2_{web['id']:05d}")["cache"]
    stored = counted(node)["stored"]
    pids = children(node)

    node.stop(signal.SIGKILL)
    for pid in pids.values():
        eventually(lambda pid=pid: not Path(f"/proc/{pid}").exists(), 10)
    assert not ping(client_netns, address), "policy is enforced while no agent runs"
    assert ping(node.netns, client_address), "and forwarding goes on"

    node.start()
    assert node.endpoints() == before
    assert node.api.request("GET", f"/v1/map/cilium_policy_v2_{web['id']:05d}")["cache"] == entries
    assert not ping(client_netns, address)
    eventually(lambda: counted(node)["stored"] >= stored, 10)
    eventually(lambda: set(children(node)) == {"ingest", "flow-server"} and 0 not in children(node).values())
    friend = node.add("friend", "friend")
    assert friend["id"] not in {fact[0] for fact in before.values()}
    assert ping(f"/run/netns/{node.factory.prefix}-friend", address)

    (node.folder / "policies" / "web.yaml").unlink()
    eventually(lambda: ping(client_netns, address), 5)
    for name in ("web", "client", "friend"):
        node.api.request("DELETE", f"/v1/endpoint/container-name:{name}")
    assert node.endpoints() == {}
    assert not list((node.bpf_root / "tc" / "globals").glob("cilium_policy_v2_*"))
    assert "lxc" not in exec_in(node.netns, "ip", "-o", "link").stdout
    assert node.stop() == 0
    assert "Traceback" not in node.log


def test_an_endpoint_whose_namespace_went_while_no_agent_ran_is_cleaned_up(node: Node) -> None:
    node.start()
    kept, gone = node.add("kept", "web"), node.add("gone", "web")
    node.stop(signal.SIGKILL)
    node.factory.delete(f"/run/netns/{node.factory.prefix}-gone")
    node.start()
    assert list(node.endpoints()) == ["kept"]
    assert node.status()["palomar"]["restored"] == {"endpoints": 1, "vanished": 1, "failed": 0}
    assert kept["status"]["networking"]["addressing"][0]["ipv4"] in node.status()["ipam"]["allocations"]
    assert gone["status"]["networking"]["addressing"][0]["ipv4"] not in node.status()["ipam"]["allocations"]
    assert node.stop() == 0


def test_a_second_agent_on_the_same_bpf_root_refuses(node: Node) -> None:
    node.start()
    done = node.run_once(run_dir=f"{node.folder}/run2", state_dir=f"{node.folder}/state2")
    assert done.returncode == 1
    assert f"{node.bpf_root} is in use by process" in done.stderr
    assert node.status()["cilium"]["state"] == "Ok"
    assert node.stop() == 0


def test_bad_input_of_clients_leaves_the_agent_well(node: Node) -> None:
    node.start()
    missing = {"container-name": "x", "netns": "/run/netns/plt-nowhere"}
    with pytest.raises(ApiError, match="plt-nowhere"):
        node.api.request("PUT", "/v1/endpoint/0", missing)
    node.add("web", "web")
    with pytest.raises(ApiError, match="has endpoint 1 already"):
        node.api.request(
            "PUT", "/v1/endpoint/0", {**missing, "netns": f"/run/netns/{node.factory.prefix}-web"}
        )
    for index in range(12):
        node.add(f"e{index}", "filler")
    with pytest.raises(ApiError, match="is exhausted: all 13"):
        node.add("last", "filler")
    assert len(node.endpoints()) == 13
    (node.folder / "policies" / "bad.yaml").write_text(POLICY.replace("fromEndpoints", "fromEndpoint"))
    eventually(lambda: "spec.ingress[0].fromEndpoint" in node.status()["cilium"]["msg"], 5)
    assert node.status()["cilium"]["state"] == "Warning"
    assert node.stop() == 0


def test_a_damaged_flow_store_is_set_aside_and_the_agent_starts(node: Node) -> None:
    flows = node.folder / "state" / "flows"
    flows.mkdir(parents=True)
    (flows / "flows.ring").write_bytes(b"\x00" * 5000)
    node.start()
    eventually(lambda: "set aside" in node.status()["hubble"].get("msg", ""), 10)
    assert list(flows.glob("flows.corrupt-*"))
    assert node.stop() == 0


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"node_ipv4": "198.51.100.9"}, "node-ipv4: 198.51.100.9 is no address of this machine"),
        ({"pod_cidr": "192.168.0.0/24"}, "not inside cluster-pod-cidr"),
        ({"pod_cdir": "10.1.0.0/24"}, "did you mean --pod-cidr?"),
        ({"device": "nosuch0"}, "device: nosuch0 does not exist here"),
    ],
)
def test_a_wrong_configuration_ends_with_status_2_and_the_remedy(
    node: Node, options: dict[str, str], words: str
) -> None:
    done = node.run_once(**options)
    assert done.returncode == 2
    assert words in done.stderr
    assert "Traceback" not in done.stderr


def test_maps_of_another_layout_are_refused_with_every_difference(node: Node) -> None:
    node.start()
    node.stop()
    node.options["bpf-ct-global-tcp-max"] = "2048"
    done = node.run_once()
    assert done.returncode == 1
    assert "cilium_ct4_global: max entries is 1024, this build needs 2048" in done.stderr


def test_etcd_that_is_away_does_not_keep_an_agent_from_enforcing(node: Node) -> None:
    """With a store that never answers: restored endpoints keep their numbers, new labels must wait."""
    node.start()
    node.add("web", "web")
    before = node.endpoints()
    node.stop(signal.SIGKILL)
    node.options |= {"kvstore": "etcd", "etcd-endpoints": "http://127.0.0.1:1"}
    node.start()
    assert node.endpoints() == before
    assert node.status()["kvstore"]["state"] in ("Warning", "Failure")
    assert node.add("twin", "web")["status"]["identity"]["id"] == before["web"][2]
    with pytest.raises(ApiError) as caught:
        node.add("other", "other")
    assert caught.value.status == 503
    assert node.stop() == 0
    records = [json.loads(p.read_text()) for p in (node.folder / "state" / "endpoints").glob("*.json")]
    assert len(records) == 2
