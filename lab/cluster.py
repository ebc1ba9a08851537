"""A lab brought up, looked at and taken down: the one place that knows the order of things.

Up: namespaces, etcd, an agent per node, policies, pods, their processes. Down: processes,
namespaces, pins, files; down of a half-built or killed lab is the same call.
"""

import json
import os
import shutil
import signal
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path

import yaml

from lab import forward, network
from lab.demoapp import DNS_POD, App, apps, dnsmasq_argv
from lab.observers import (
    AGENT_METRICS_PORT,
    Observer,
    agent_keys,
    doors,
    listening,
    make_certificates,
    observers,
    prometheus_config,
)
from lab.process import mark_lives, palomar, start, wait_until, with_resolver
from lab.spec import CLUSTER_CIDR, ETCD_PORT, LabSpec, NodeSpec, PodSpec
from palomar.certdir import CertDirectory
from palomar.certs import Role, utc
from palomar.clock import Clock, SystemClock
from palomar.errors import InvalidInputError, PermanentError
from palomar.proc import run
from palomar.tls import TlsFiles
from palomar.unixhttp import AgentUnreachableError, ApiError, UnixHttpClient

START_TIMEOUT_S = 40.0
SHOP_POLICIES = Path(__file__).parent / "policies"


class LabExistsError(PermanentError):
    """A lab of that name is up, or something of it was left behind."""


@dataclass(frozen=True, slots=True)
class Pod:
    """A pod that runs: its spec, the address the agent gave it and the endpoint id."""

    spec: PodSpec
    address: IPv4Address
    endpoint_id: int


def _say_nothing(_: str) -> None:
    return


class LabCluster:
    """One lab on this machine."""

    def __init__(
        self, spec: LabSpec, clock: Clock | None = None, say: Callable[[str], None] = _say_nothing
    ) -> None:
        """`say` hears one line per step."""
        self.spec = spec
        self.clock = clock or SystemClock()
        self.say = say
        self.pods: dict[str, Pod] = {}
        self.observed = True
        """With relay, UI, Prometheus and OTLP receiver."""
        self.doors: dict[str, str] = {}
        """Addresses on this machine's loopback of relay, ui, prometheus and otlp."""
        self.owner = ""
        """Mark of the process without which the lab is not wanted (`lab.process`); empty: it stays."""

    @classmethod
    def load(cls, name: str) -> "LabCluster":
        """Find the running lab `name`; raise InvalidInputError where there is none."""
        path = LabSpec.build(name, 1).directory / "lab.json"
        if not path.exists():
            raise InvalidInputError(f"no lab {name!r} is up: start it with `palomar lab up --name {name}`")
        state = json.loads(path.read_text())
        lab = cls(LabSpec.build(name, state["nodes"]))
        lab.doors = state["doors"]
        for entry in state["pods"]:
            spec = PodSpec(
                entry["name"], entry["namespace"], entry["node"], tuple(entry["labels"]), entry["workload"]
            )
            lab.pods[f"{spec.namespace}/{spec.name}"] = Pod(spec, IPv4Address(entry["address"]), entry["id"])
        return lab

    def up(
        self, *, demo: bool = True, observed: bool | None = None, options: dict[str, object] | None = None
    ) -> None:
        """Bring everything up; on any failure take it down again and raise.

        `demo`: with the demo application. `observed`: with relay, UI, Prometheus and OTLP receiver (as
        `demo` where not said). `options` are agent configuration keys that override the lab's own.
        """
        spec = self.spec
        if self.exists():
            raise LabExistsError(f"lab {spec.name} is up already: `palomar lab down --name {spec.name}`")
        try:
            self.observed = demo if observed is None else observed
            self._up(demo, options or {})
        except BaseException:
            self.down()
            raise

    def exists(self) -> bool:
        """Something of a lab of this name is there."""
        spec = self.spec
        return spec.directory.exists() or bool(network.namespaces(spec.name)) or spec.bpf_root.exists()

    def owner_died(self) -> bool:
        """The lab of this name belongs to a process that is gone, and so did not take it down."""
        try:
            owner = json.loads(self._state_file.read_text()).get("owner", "")
        except (OSError, ValueError):
            return False
        return bool(owner) and not mark_lives(owner)

    @property
    def _state_file(self) -> Path:
        return self.spec.directory / "lab.json"

    def _up(self, demo: bool, options: dict[str, object]) -> None:
        spec = self.spec
        spec.policy_dir.mkdir(parents=True)
        self._save()
        network.build(spec)
        self.say(f"underlay and {len(spec.nodes)} nodes are connected")
        make_certificates(spec, utc(self.clock.wall_ns()))
        self.start_etcd()
        for node in spec.nodes:
            self.start_agent(node, options)
        for node in spec.nodes:
            self.wait_agent(node)
        self.say("agents are ready")
        self._start_world()
        if demo:
            for policy in sorted(SHOP_POLICIES.glob("*.yaml")):
                shutil.copy(policy, spec.policy_dir / policy.name)
            self._start_apps(apps(spec.nodes))
            self.say(f"{len(self.pods)} pods run")
        if self.observed:
            self._start_observers()
            self.say("relay, UI, Prometheus and OTLP receiver run")

    def _log(self, name: str) -> Path:
        return self.spec.directory / "logs" / f"{name}.log"

    def stop_etcd(self) -> None:
        """Kill etcd, as a test of what nodes do without it."""
        for pid in network.processes(self.spec.underlay_namespace):
            os.kill(pid, signal.SIGKILL)

    def start_etcd(self, *, empty: bool = False) -> None:
        """Start etcd and wait until it answers; `empty`: with nothing of what it knew."""
        spec = self.spec
        if empty:
            shutil.rmtree(spec.directory / "etcd", ignore_errors=True)
        url = f"http://{spec.etcd_address}:{ETCD_PORT}"
        argv = ["etcd", "--name", "lab", "--data-dir", str(spec.directory / "etcd")]
        argv += ["--listen-client-urls", url, "--advertise-client-urls", url]
        argv += ["--listen-peer-urls", f"http://{spec.etcd_address}:2380", "--unsafe-no-fsync"]
        start(spec.underlay_namespace, argv, self._log("etcd"))
        probe = network.in_namespace(spec.underlay_namespace, ["curl", "-sf", f"{url}/health"])
        self._wait("etcd", lambda: run(probe, check=False).returncode == 0, "etcd")

    def agent_config(self, node: NodeSpec, options: dict[str, object]) -> dict[str, object]:
        """Return the agent configuration of `node`, as written to its file."""
        paths = node.paths
        return {
            "node-name": node.name,
            "node-ipv4": str(node.address),
            "pod-cidr": str(node.pod_cidr),
            "cluster-pod-cidr": str(CLUSTER_CIDR),
            "device": "eth0",
            "run-dir": str(paths.run_dir),
            "state-dir": str(paths.state_dir),
            "bpf-root": str(paths.bpf_root),
            "kvstore": "etcd",
            "etcd-endpoints": [f"http://{self.spec.etcd_address}:{ETCD_PORT}"],
            "policy-dir": str(self.spec.policy_dir),
            "hubble-event-buffer-capacity": 65536,
            "prometheus-serve-addr": f"{node.address}:{AGENT_METRICS_PORT}",
            **agent_keys(self.spec, node, telemetry=self.observed),
            **options,
        }

    def start_agent(self, node: NodeSpec, options: dict[str, object] | None = None) -> int:
        """Write the configuration of `node` and start its agent; return the process id."""
        path = self.spec.directory / node.name / "agent.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        if options is not None or not path.exists():
            path.write_text(yaml.safe_dump(self.agent_config(node, options or {})))
        return start(node.namespace, palomar("agent", "--config", str(path)), self._log(f"agent-{node.name}"))

    def wait_agent(self, node: NodeSpec) -> None:
        """Wait until the agent of `node` answers and is healthy."""

        def healthy() -> bool:
            try:
                status = self.api(node).request("GET", "/v1/healthz")
            except (AgentUnreachableError, ApiError):
                return False
            return bool(status.get("cilium", {}).get("state") == "Ok") and node.paths.hubble_socket.exists()

        self._wait(f"agent of {node.name}", healthy, f"agent-{node.name}")

    def api(self, node: NodeSpec) -> UnixHttpClient:
        """Return a client of the agent of `node`."""
        return UnixHttpClient(node.paths.api_socket)

    def _start_observers(self) -> None:
        spec = self.spec
        namespace = spec.underlay_namespace
        (spec.directory / "prometheus.yaml").write_text(prometheus_config(spec))
        started = observers(spec, self.certificates)
        for observer in started:
            start(namespace, observer.argv, self._log(observer.name))
        probe = network.in_namespace(namespace, ["ss", "-Htln"])
        for observer in started:

            def listens(observer: Observer = observer) -> bool:
                return listening(run(probe).stdout.splitlines(), observer.port)

            self._wait(observer.name, listens, observer.name)
        wanted = doors(spec)
        self.doors = forward.start(namespace, wanted, self._log("forward"))
        for name, (port, _) in wanted.items():
            if not self.doors[name].endswith(f":{port}"):
                holder = forward.holder(port)
                self.say(f"port {port} is in use here{holder}: {name} is at {self.doors[name]} instead")
        self._save()

    @property
    def certificates(self) -> CertDirectory:
        """The lab's CA and what it issued."""
        return CertDirectory(self.spec.directory / "certs")

    def client_files(self) -> TlsFiles:
        """Certificate files of a client of the relay."""
        return self.certificates.files(Role.CLIENT, "client")

    def _start_world(self) -> None:
        argv = [str(Path("/usr/bin/python3")), "-m", "http.server", "80", "--directory", "/var/empty"]
        Path("/var/empty").mkdir(exist_ok=True)
        start(self.spec.world_namespace, argv, self._log("world"))

    def endpoint_request(self, spec: PodSpec) -> dict[str, object]:
        """Return what the agent is asked to make an endpoint of."""
        return {
            "container-name": f"{spec.namespace}-{spec.name}",
            "k8s-pod-name": spec.name,
            "k8s-namespace": spec.namespace,
            "labels": list(spec.labels),
            "netns": str(network.NETNS_DIR / spec.netns(self.spec.name)),
            "workload": {"name": spec.workload or spec.name, "kind": "Deployment"},
        }

    def add_pod(self, spec: PodSpec) -> Pod:
        """Make the namespace of a pod and its endpoint."""
        node = self.spec.node(spec.node)
        network.add_namespace(spec.netns(self.spec.name))
        answer = self.api(node).request("PUT", "/v1/endpoint/0", self.endpoint_request(spec))
        address = IPv4Address(answer["status"]["networking"]["addressing"][0]["ipv4"])
        pod = Pod(spec, address, int(answer["id"]))
        self.pods[f"{spec.namespace}/{spec.name}"] = pod
        self._save()
        return pod

    def _start_apps(self, demo: Iterable[App]) -> None:
        listed = list(demo)
        for app in listed:
            self.add_pod(app.pod)
        services: dict[str, list[IPv4Address]] = {}
        for app in listed:
            pod = self.pods[f"{app.pod.namespace}/{app.pod.name}"]
            if app.service:
                services.setdefault(f"{app.service}.{app.pod.namespace}", []).append(pod.address)
        dns = self.pods[f"kube-system/{DNS_POD}"].address
        resolv_conf = self.spec.directory / "resolv.conf"
        resolv_conf.write_text(f"nameserver {dns}\noptions timeout:1 attempts:2\n")
        for app in listed:
            argv = dnsmasq_argv(services) if app.pod.name == DNS_POD else list(app.argv)
            self.run_in_pod(app.pod, argv)

    def stop_apps(self) -> None:
        """Kill every process in the pods; the pods and their endpoints stay."""
        for pod in self.pods.values():
            for pid in network.processes(pod.spec.netns(self.spec.name)):
                os.kill(pid, signal.SIGKILL)

    def run_in_pod(self, pod: PodSpec, argv: list[str]) -> int:
        """Start `argv` in `pod`, with the lab's DNS where it has one; return the process id."""
        resolv_conf = self.spec.directory / "resolv.conf"
        command = with_resolver(resolv_conf, argv) if resolv_conf.exists() else argv
        return start(pod.netns(self.spec.name), command, self._log(f"pod-{pod.namespace}-{pod.name}"))

    def down(self) -> None:
        """Take everything of this lab away, whatever state it is in."""
        spec = self.spec
        network.remove(spec.name)
        for directory in (spec.bpf_root, spec.directory):
            shutil.rmtree(directory, ignore_errors=True)
        for node in spec.nodes:
            node.paths.lock_file.unlink(missing_ok=True)

    def _wait(self, what: str, ready: Callable[[], bool], log: str) -> None:
        wait_until(what, ready, START_TIMEOUT_S, self.clock, self._log(log))

    def _save(self) -> None:
        pods = [
            {
                "name": pod.spec.name,
                "namespace": pod.spec.namespace,
                "node": pod.spec.node,
                "labels": list(pod.spec.labels),
                "workload": pod.spec.workload,
                "address": str(pod.address),
                "id": pod.endpoint_id,
            }
            for pod in self.pods.values()
        ]
        state = {"name": self.spec.name, "nodes": len(self.spec.nodes), "pods": pods, "doors": self.doors}
        state["owner"] = self.owner
        path = self._state_file
        partial = path.with_suffix(".partial")
        partial.write_text(json.dumps(state, indent=1))
        partial.replace(path)
