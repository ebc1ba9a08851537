"""The story of the issue, told on a whole lab: who talks, what is dropped, which rule decided it."""

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from datapath.maps.node import open_maps
from lab.cluster import LabCluster
from lab.network import in_namespace, processes
from lab.spec import NodeSpec
from palomar.unixhttp import AgentUnreachableError, ApiError
from tests.kit.wait import eventually

AGGREGATION_INDEX = 16
"""Of cilium_runtime_config: 0 none, 1 low, 2 medium, 3 maximum."""

pytestmark = [pytest.mark.root, pytest.mark.bpf, pytest.mark.e2e, pytest.mark.timeout(240)]


def palomar(*arguments: str, node: NodeSpec, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run the command line against `node`."""
    env = {
        **os.environ,
        "PALOMAR_RUN_DIR": str(node.paths.run_dir),
        "PALOMAR_BPF_ROOT": str(node.paths.bpf_root),
    }
    return subprocess.run(
        [sys.executable, "-m", "cli.main", *arguments],
        capture_output=True,
        text=True,
        env=env,
        timeout=60,
        check=check,
    )


def flows(node: NodeSpec, *arguments: str) -> list[dict[str, Any]]:
    """Flows of `node` as dictionaries."""
    output = palomar("observe", "-o", "jsonpb", *arguments, node=node).stdout
    return [json.loads(line)["flow"] for line in output.splitlines() if '"flow"' in line]


def run_in(lab: LabCluster, pod: str, *argv: str) -> subprocess.CompletedProcess[str]:
    """Run a command in a pod's network namespace."""
    namespace = lab.pods[pod].spec.netns(lab.spec.name)
    return subprocess.run(
        in_namespace(namespace, list(argv)), capture_output=True, text=True, timeout=30, check=False
    )


def test_a_permitted_call_between_nodes_answers(lab: LabCluster) -> None:
    """client-1 on node-1 reaches web-2 on node-2, and through it api and store on node-3."""
    web = lab.pods["shop/web-2"]
    assert web.spec.node != lab.pods["shop/client-1"].spec.node

    def answered() -> bool:
        done = run_in(lab, "shop/client-1", "curl", "-s", "-m", "3", f"http://{web.address}:8080/")
        return done.stdout.startswith("items: ")

    assert eventually(answered, 20)


def test_a_forbidden_call_times_out_and_the_rule_is_named(lab: LabCluster) -> None:
    """The intruder does not reach the store; the flow says why, by which rule, who, and where."""
    store = lab.pods["shop/store-1"]
    done = run_in(lab, "shop/intruder-1", "curl", "-s", "-m", "2", f"http://{store.address}:6379/")
    assert done.returncode == 28  # curl: operation timed out
    node = lab.spec.node(store.spec.node)

    def dropped() -> list[dict[str, Any]]:
        return flows(node, "--verdict", "DROPPED", "--to-pod", "shop/store-1", "--last", "5")

    found = eventually(dropped, 10)
    last = found[-1]
    assert last["drop_reason_desc"] == "POLICY_DENIED"
    assert last["source"]["pod_name"] == "intruder-1"
    assert last["destination"]["pod_name"] == "store-1"
    assert last["node_name"] == f"default/{node.name}"
    text = palomar("observe", "--verdict", "DROPPED", "--to-pod", "shop/store-1", "--last", "5", node=node)
    assert "store-from-api" in text.stdout
    assert "shop/intruder-1" in text.stdout


def test_a_deny_rule_is_told_apart_from_default_deny(lab: LabCluster) -> None:
    """The intruder's calls to the API are denied by name: code 181, not 133."""
    node = lab.spec.node(lab.pods["shop/api-1"].spec.node)

    def denied() -> list[dict[str, Any]]:
        return flows(node, "--drop-reason-desc", "POLICY_DENY", "--to-label", "app=api", "--last", "3")

    found = eventually(denied, 20)
    assert found[-1]["drop_reason"] == 181
    assert found[-1]["source"]["pod_name"] == "intruder-1"


def test_the_ipcache_reads_as_the_recipes_print_it(lab: LabCluster) -> None:
    """bpftool's look-up of a remote pod gives its identity and its node's address, byte for byte."""
    node, pod = lab.spec.node("node-1"), lab.pods["shop/api-1"]
    other = lab.spec.node(pod.spec.node)
    listed = json.loads(palomar("endpoint", "list", "-o", "json", node=other).stdout)
    identity = next(entry["status"]["identity"]["id"] for entry in listed if entry["id"] == pod.endpoint_id)
    key = [0x40, 0, 0, 0, 0, 0, 0, 1, *pod.address.packed, *[0] * 12]
    pinned = node.paths.globals_dir / "cilium_ipcache"
    argv = ["bpftool", "-j", "map", "lookup", "pinned", str(pinned), "key", "hex"]
    answer = json.loads(subprocess.check_output([*argv, *[f"{byte:02x}" for byte in key]], text=True))
    value = bytes(int(byte, 16) for byte in answer["value"])
    assert value == identity.to_bytes(4, "little") + other.address.packed + bytes(4)


def test_emitted_is_stored_plus_lost_on_every_cpu(lab: LabCluster) -> None:
    """The accounting closes exactly, per CPU, on every node."""
    for node in lab.spec.nodes:

        def balanced(node: NodeSpec = node) -> bool:
            status = lab.api(node).request("GET", "/v1/healthz")
            cpus = status["palomar"]["observed"]["cpus"]
            busy = sum(cpu["emitted"] for cpu in cpus) > 0
            return busy and all(cpu["emitted"] == cpu["stored"] + cpu["lost"] for cpu in cpus)

        assert eventually(balanced, 20)
        assert "emitted" in palomar("status", "--verbose", node=node).stdout


def test_metrics_pass_promtool(lab: LabCluster) -> None:
    """/metrics of a node is well-formed for Prometheus."""
    node = lab.spec.node("node-1")
    url = f"http://{node.address}:9962/metrics"
    text = subprocess.check_output(in_namespace(node.namespace, ["curl", "-sf", url]), text=True)
    assert "hubble_flows_processed_total" in text
    assert "cilium_drop_count_total" in text
    checked = subprocess.run(
        ["promtool", "check", "metrics"], input=text, capture_output=True, text=True, check=False
    )
    assert checked.returncode == 0, checked.stderr + checked.stdout


def test_any_hubble_client_is_answered(lab: LabCluster) -> None:
    """A bare gRPC client with nothing but the public proto gets status and flows."""
    import grpc

    from palomar_pb.observer import observer_pb2

    node = lab.spec.node("node-1")
    with grpc.insecure_channel(f"unix://{node.paths.hubble_socket}") as channel:
        status = channel.unary_unary(
            "/observer.Observer/ServerStatus",
            request_serializer=observer_pb2.ServerStatusRequest.SerializeToString,
            response_deserializer=observer_pb2.ServerStatusResponse.FromString,
        )(observer_pb2.ServerStatusRequest(), timeout=10)
        assert status.seen_flows > 0
        answers = list(
            channel.unary_stream(
                "/observer.Observer/GetFlows",
                request_serializer=observer_pb2.GetFlowsRequest.SerializeToString,
                response_deserializer=observer_pb2.GetFlowsResponse.FromString,
            )(observer_pb2.GetFlowsRequest(number=20), timeout=10)
        )
    seen = [answer.flow for answer in answers if answer.HasField("flow")]
    assert len(seen) == 20
    assert all(flow.node_name == "default/node-1" and flow.IP.source for flow in seen)


@contextlib.contextmanager
def transfer(lab: LabCluster, source: str, target: str, port: int) -> Iterator[list[int]]:
    """A TCP stream from pod to pod; afterwards the list holds its longest pause between two reads, in ms."""
    server_code = (
        "import socket,time\n"
        f"s=socket.create_server(('',{port}))\n"
        "print('up',flush=True)\n"
        "c,_=s.accept(); last=time.monotonic(); worst=0.0\n"
        "while c.recv(65536):\n"
        "    now=time.monotonic(); worst=max(worst,now-last); last=now\n"
        "print(int(worst*1000),flush=True)\n"
    )
    client_code = (
        "import select,socket,sys\n"
        f"c=socket.create_connection(('{lab.pods[target].address}',{port}),5)\n"
        "while not select.select([sys.stdin],[],[],0.005)[0]:\n"
        "    c.sendall(b'x'*1000)\n"
        "c.close()\n"
    )

    def start(pod: str, code: str) -> subprocess.Popen[str]:
        argv = in_namespace(lab.pods[pod].spec.netns(lab.spec.name), [sys.executable, "-c", code])
        return subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    longest: list[int] = []
    server = start(target, server_code)
    client: subprocess.Popen[str] | None = None
    try:
        assert server.stdout is not None
        assert server.stdout.readline().strip() == "up"
        client = start(source, client_code)
        yield longest
        client.communicate("stop\n", timeout=10)
        longest.append(int(server.stdout.readline()))
    finally:
        for process in filter(None, (client, server)):
            process.kill()
            process.communicate(timeout=10)


def agent_pid(node: NodeSpec) -> int:
    """Process id of the agent of `node`."""
    for pid in processes(node.namespace):
        argv = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        if b"cli.main" in argv and b"agent" in argv:
            return pid
    raise AssertionError(f"no agent runs on {node.name}")


def identities(lab: LabCluster, node: NodeSpec) -> dict[int, tuple[int, str]]:
    """Identity and address by endpoint id."""
    return {
        entry["id"]: (
            entry["status"]["identity"]["id"],
            entry["status"]["networking"]["addressing"][0]["ipv4"],
        )
        for entry in lab.api(node).request("GET", "/v1/endpoint")
    }


def identities_if_up(lab: LabCluster, node: NodeSpec) -> dict[int, tuple[int, str]]:
    """Like `identities`; empty while the agent does not answer."""
    try:
        return identities(lab, node)
    except (AgentUnreachableError, ApiError):
        return {}


def test_kill_9_of_an_agent_does_not_stop_traffic_policy_or_history(lab: LabCluster) -> None:
    """Under a running transfer: no pause, policy still enforced, same endpoints and flows afterwards."""
    node = lab.spec.node("node-2")
    before = identities(lab, node)
    oldest = flows(node, "--first", "1")[0]["time"]
    store = lab.pods["shop/store-1"]
    with transfer(lab, "kube-system/dns", "shop/client-1", 7000) as longest_pause_ms:
        for killed in lab.spec.nodes:
            os.kill(agent_pid(killed), signal.SIGKILL)
        refused = run_in(lab, "shop/intruder-1", "curl", "-s", "-m", "2", f"http://{store.address}:6379/")
        assert refused.returncode == 28
        for again in lab.spec.nodes:
            lab.start_agent(again)
        for again in lab.spec.nodes:
            lab.wait_agent(again)
    assert longest_pause_ms[0] < 500
    assert identities(lab, node) == before
    assert flows(node, "--first", "1")[0]["time"] == oldest
    refused = run_in(lab, "shop/intruder-1", "curl", "-s", "-m", "2", f"http://{store.address}:6379/")
    assert refused.returncode == 28


def test_the_world_is_reached_through_masquerade(lab: LabCluster) -> None:
    """The crawler calls the world on port 80 as policy allows; port 443 is denied at its egress."""
    node = lab.spec.node(lab.pods["shop/crawler-1"].spec.node)

    def to_world() -> list[dict[str, Any]]:
        return flows(node, "--from-pod", "shop/crawler-1", "--to-identity", "world", "--last", "20")

    def both_seen() -> bool:
        found = to_world()
        kinds = {(flow["l4"].get("TCP", {}).get("destination_port"), flow["verdict"]) for flow in found}
        return (80, "FORWARDED") in kinds and (443, "DROPPED") in kinds

    assert eventually(both_seen, 20)


def test_removing_a_policy_opens_and_adding_it_closes_at_once(lab: LabCluster) -> None:
    """The watched directory is followed: the intruder gets in, and a live connection is cut again."""
    policy = lab.spec.policy_dir / "shop.yaml"
    text = policy.read_text()
    store = lab.pods["shop/store-1"]

    def reaches() -> bool:
        code = f"import socket; socket.create_connection(('{store.address}', 6379), 1)"
        return run_in(lab, "shop/intruder-1", sys.executable, "-c", code).returncode == 0

    assert not reaches()
    try:
        policy.unlink()
        assert eventually(reaches, 20)
    finally:
        policy.write_text(text)
    assert eventually(lambda: not reaches(), 20)


def test_bad_policy_is_refused_with_its_path(lab: LabCluster) -> None:
    """An unknown field is named and nothing is applied."""
    node = lab.spec.node("node-1")
    revision = lab.api(node).request("GET", "/v1/policy")["revision"]
    bad = lab.spec.directory / "bad.yaml"
    bad.write_text(
        "apiVersion: cilium.io/v2\nkind: CiliumNetworkPolicy\nmetadata: {name: bad, namespace: shop}\n"
        "spec: {endpointSelector: {}, ingress: [{fromEndpoint: [{}]}]}\n"
    )
    done = palomar("policy", "import", str(bad), node=node, check=False)
    assert done.returncode == 1
    assert "spec.ingress[0].fromEndpoint" in done.stderr
    assert lab.api(node).request("GET", "/v1/policy")["revision"] == revision


def test_over_a_flood_the_account_closes_exactly(lab: LabCluster) -> None:
    """With every packet evented and more events than anyone reads, emitted = stored + lost per CPU."""
    node = lab.spec.node("node-1")
    maps = open_maps(node.paths.bpf_root)
    before = sum(count.emitted for count in maps.event_stats())
    dns = lab.pods["kube-system/dns"].address
    flood = (
        "import socket,time\n"
        "s=socket.socket(socket.AF_INET,socket.SOCK_DGRAM); end=time.monotonic()+2\n"
        f"s.connect(('{dns}',9)); s.setsockopt(socket.SOL_SOCKET,socket.SO_RCVBUF,1<<20)\n"
        "while time.monotonic()<end:\n"
        "    for _ in range(200):\n"
        "        try: s.send(b'x')\n"
        "        except OSError: pass\n"
    )
    maps.runtime_config.set(AGGREGATION_INDEX, 0)
    try:
        assert run_in(lab, "shop/client-1", sys.executable, "-c", flood).returncode == 0
    finally:
        maps.runtime_config.set(AGGREGATION_INDEX, 2)

    def settled() -> bool:
        kernel = {count.cpu: count.emitted for count in maps.event_stats()}
        cpus = lab.api(node).request("GET", "/v1/healthz")["palomar"]["observed"]["cpus"]
        known = {cpu["cpu"]: cpu for cpu in cpus}
        assert sum(kernel.values()) - before > 20_000
        same = all(known[cpu]["emitted"] == emitted for cpu, emitted in kernel.items() if emitted)
        return same and all(cpu["emitted"] == cpu["stored"] + cpu["lost"] for cpu in cpus)

    assert eventually(settled, 30)


def test_two_agents_do_not_share_a_bpffs_root(lab: LabCluster) -> None:
    """The second one refuses and names the first."""
    node = lab.spec.node("node-1")
    config = lab.spec.directory / node.name / "agent.yaml"
    argv = in_namespace(node.namespace, [sys.executable, "-m", "cli.main", "agent", "--config", str(config)])
    done = subprocess.run(argv, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode != 0
    assert str(agent_pid(node)) in done.stderr


def test_without_etcd_the_nodes_go_on_and_say_so(lab: LabCluster) -> None:
    """etcd dies and comes back empty: flows, policy and identities stay, and status tells."""
    node = lab.spec.node("node-2")
    before = {each.name: identities(lab, each) for each in lab.spec.nodes}
    web = lab.pods["shop/web-2"].address

    def store_state() -> str:
        return str(lab.api(node).request("GET", "/v1/healthz")["kvstore"]["state"])

    def permitted() -> bool:
        done = run_in(lab, "shop/client-1", "curl", "-s", "-m", "3", f"http://{web}:8080/")
        return done.stdout.startswith("items: ")

    assert store_state() == "Ok"
    lab.stop_etcd()
    assert eventually(lambda: store_state() != "Ok", 30)
    assert eventually(permitted, 10)
    store = lab.pods["shop/store-1"].address
    assert run_in(lab, "shop/intruder-1", "curl", "-s", "-m", "2", f"http://{store}:6379/").returncode == 28
    assert flows(node, "--last", "1")
    os.kill(agent_pid(node), signal.SIGKILL)
    lab.start_agent(node)
    assert eventually(lambda: identities_if_up(lab, node) == before[node.name], 30)
    assert store_state() != "Ok"
    assert eventually(permitted, 10)
    lab.start_etcd(empty=True)
    assert eventually(lambda: store_state() == "Ok", 60)
    assert {each.name: identities(lab, each) for each in lab.spec.nodes} == before
    assert eventually(permitted, 10)
    shared = palomar("bpf", "ipcache", "list", node=node).stdout
    assert all(str(pod.address) in shared for pod in lab.pods.values())
