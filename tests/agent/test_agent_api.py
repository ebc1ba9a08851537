"""The agent's API over a real unix socket: shapes, statuses, words; nothing it hears breaks it."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from agent.api.server import ApiServer, SocketInUseError, status_of
from agent.endpoint.model import EndpointState
from agent.ipam import PoolExhaustedError
from cluster.errors import BackendUnavailableError
from palomar.errors import PermanentError
from palomar.unixhttp import ApiError, UnixHttpClient
from tests.agent.agentkit import Agent, config_for, policy_text, running

WEB = {
    "container-name": "web",
    "k8s-pod-name": "web-1",
    "k8s-namespace": "demo",
    "netns": "/run/netns/web",
    "labels": ["app=web"],
    "workload": {"name": "web", "kind": "Deployment"},
}


class Api:
    """The client people use, off the loop."""

    def __init__(self, agent: Agent) -> None:
        self.agent = agent
        self.client = UnixHttpClient(agent.runtime.config.paths.api_socket, timeout_s=5)

    async def call(self, method: str, path: str, body: object = None) -> Any:
        return await asyncio.to_thread(self.client.request, method, f"/v1{path}", body)

    async def refused(self, method: str, path: str, body: object = None) -> tuple[int, str]:
        with pytest.raises(ApiError) as caught:
            await self.call(method, path, body)
        return caught.value.status, caught.value.reason


@pytest_asyncio.fixture
async def api(tmp_path: Path) -> AsyncIterator[Api]:
    async with running(config_for(tmp_path)) as agent:
        agent.daemon.metrics.bind(agent.runtime)
        server = ApiServer(agent.runtime, agent.daemon.metrics)
        await server.start()
        yield Api(agent)
        await server.stop()


async def test_an_endpoint_is_added_shown_and_deleted(api: Api) -> None:
    added = await api.call("PUT", "/endpoint/container-name:web", WEB)
    assert added["id"] == 1
    status = added["status"]
    assert status["state"] == "ready"
    assert status["external-identifiers"]["pod-name"] == "demo/web-1"
    assert status["networking"]["addressing"] == [{"ipv4": "10.1.0.2"}]
    assert status["identity"]["labels"] == [
        "k8s:app=web",
        "k8s:io.cilium.k8s.policy.cluster=default",
        "k8s:io.kubernetes.pod.namespace=demo",
    ]
    assert status["policy"]["realized"]["policy-enabled"] == "none"
    assert status["health"] == {"overallHealth": "OK", "bpf": "OK", "policy": "OK", "connected": True}
    assert added["palomar"]["workload"] == {"name": "web", "kind": "Deployment"}
    for name in ("1", "container-name:web", "pod-name:demo/web-1", "pod-name:demo%2Fweb-1", "ipv4:10.1.0.2"):
        assert (await api.call("GET", f"/endpoint/{name}"))["id"] == 1
    assert [item["id"] for item in await api.call("GET", "/endpoint")] == [1]
    log = await api.call("GET", "/endpoint/pod-name:demo/web-1/log")
    assert [entry["state"] for entry in log] == ["ready", "regenerating", "waiting-for-identity"]
    assert (await api.call("GET", "/endpoint/1/healthz"))["overallHealth"] == "OK"
    assert await api.call("DELETE", "/endpoint/1") is None
    assert await api.refused("DELETE", "/endpoint/1") == (
        404,
        "no endpoint 1: `palomar endpoint list` shows those of this node",
    )
    assert await api.call("GET", "/endpoint") == []


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        ({**WEB, "netns": ""}, 400, "netns: is missing"),
        ({**WEB, "netns": "/run/netns/nowhere"}, 400, "network namespace /run/netns/nowhere"),
        ({**WEB, "labels": ["="]}, 400, "labels[0]"),
        ({**WEB, "addressing": {"ipv4": "10.9.0.1"}}, 400, "addressing.ipv4"),
        ("{", 400, "the body is not JSON"),
        ("[]", 400, "must be a JSON object"),
    ],
)
async def test_a_bad_add_is_400_with_the_path(api: Api, body: object, status: int, words: str) -> None:
    found, reason = await api.refused("PUT", "/endpoint/0", body)
    assert found == status
    assert words in reason
    assert api.agent.runtime.endpoints.endpoints() == []


async def test_adding_twice_is_409_and_an_exhausted_pool_503(api: Api) -> None:
    await api.call("PUT", "/endpoint/0", WEB)
    assert (await api.refused("PUT", "/endpoint/0", WEB))[0] == 409
    ipam = api.agent.runtime.ipam
    while len(ipam.allocations) < ipam.capacity:
        ipam.allocate("filler")
    other = {**WEB, "container-name": "client", "netns": "/run/netns/client"}
    status, reason = await api.refused("PUT", "/endpoint/0", other)
    assert status == 503
    assert "pod-cidr 10.1.0.0/28 is exhausted" in reason


async def test_policies_are_imported_shown_and_deleted(api: Api) -> None:
    await api.call("PUT", "/endpoint/0", WEB)
    answer = await api.call("PUT", "/policy", policy_text())
    assert answer["revision"] == 2
    assert any("a peer selects nothing" in warning for warning in answer["warnings"])
    shown = await api.call("GET", "/policy")
    (document,) = json.loads(shown["policy"])
    assert shown["imported"] == [{"namespace": "demo", "name": "allow-web"}], "what a command may delete"
    assert document["metadata"] == {"name": "allow-web", "namespace": "demo"}
    endpoint = await api.call("GET", "/endpoint/1")
    assert endpoint["status"]["policy"]["realized"]["policy-enabled"] == "ingress"
    assert endpoint["status"]["policy"]["realized"]["policy-revision"] == 2
    await api.call("DELETE", "/policy", {"namespace": "demo", "name": "allow-web"})
    assert json.loads((await api.call("GET", "/policy"))["policy"]) == []
    await api.call("PUT", "/policy", policy_text())
    await api.call("DELETE", "/policy", ["k8s:io.cilium.k8s.policy.name=allow-web"])
    assert json.loads((await api.call("GET", "/policy"))["policy"]) == []


@pytest.mark.parametrize(
    ("method", "body", "status", "words"),
    [
        ("PUT", policy_text().replace("toPorts", "toPort"), 400, "spec.ingress[0].toPort"),
        ("PUT", policy_text().replace('"80"', '"99999"'), 400, "spec.ingress[0].toPorts[0].ports[0].port"),
        ("PUT", "", 400, "no policy in it"),
        ("DELETE", {"namespace": "demo", "name": "nothing"}, 404, "no policy demo/nothing"),
        ("DELETE", ["k8s:app=nothing"], 404, "no imported policy has the labels"),
        ("DELETE", {}, 400, "a list of labels"),
        ("DELETE", None, 400, "the body is not JSON"),
    ],
)
async def test_bad_policy_calls_say_what_is_wrong(
    api: Api, method: str, body: object, status: int, words: str
) -> None:
    found, reason = await api.refused(method, "/policy", body)
    assert (found, words in reason) == (status, True), reason


async def test_identities_addresses_nodes_config_and_maps_are_listed(api: Api) -> None:
    added = await api.call("PUT", "/endpoint/0", WEB)
    identity = added["status"]["identity"]
    assert identity in await api.call("GET", "/identity")
    assert await api.call("GET", f"/identity/{identity['id']}") == identity
    assert (await api.call("GET", "/identity/2"))["labels"] == ["reserved:world"]
    assert (await api.refused("GET", "/identity/77777"))[0] == 404
    assert (await api.refused("GET", "/identity/x"))[0] == 400
    (entry,) = await api.call("GET", "/ip?cidr=10.1.0.2/32")
    assert entry["identity"] == identity["id"]
    assert entry["metadata"] == {"source": "local", "namespace": "demo", "name": "web-1"}
    assert (await api.refused("GET", "/ip?cidr=x"))[0] == 400
    nodes = await api.call("GET", "/cluster/nodes")
    assert nodes["self"] == "default/one"
    assert nodes["nodes-added"][0]["primary-address"]["ipv4"]["alloc-range"] == "10.1.0.0/28"
    keys = (await api.call("GET", "/config"))["status"]["daemonConfigurationMap"]
    assert keys["pod-cidr"] == "10.1.0.0/28"
    paths = [item["path"] for item in (await api.call("GET", "/map"))["maps"]]
    assert any(path.endswith("cilium_policy_v2_00001") for path in paths)
    assert (await api.call("GET", "/map/cilium_policy_v2_00001"))["cache"]
    assert (await api.refused("GET", "/map/cilium_nothing"))[0] == 404


async def test_status_says_everything_of_the_contract(api: Api) -> None:
    status = await api.call("GET", "/healthz")
    assert status["kvstore"]["state"] == "Ok"
    assert status["cilium"] == {"state": "Ok", "msg": ""}
    assert status["ipam"]["allocations"] == {"10.1.0.1": "router"}
    own = status["palomar"]
    assert (own["node"], own["cluster"], own["pod-cidr"]) == ("one", "default", "10.1.0.0/28")
    assert own["router-ip"] == "10.1.0.1"
    assert {table["name"] for table in own["tables"]} == {"policy", "ipcache", "tunnel"}
    assert own["observed"] == {"emitted": 0, "stored": 0, "lost": 0, "cpus": []}
    assert own["policy-revision"] == 1


async def test_status_names_what_is_not_well(api: Api) -> None:
    await api.call("PUT", "/endpoint/0", WEB)
    item = api.agent.runtime.endpoints.find("1")
    item.state = EndpointState.NOT_READY
    api.agent.node.maps.policy(1).broken = True
    await api.call("PUT", "/policy", policy_text())
    cilium = (await api.call("GET", "/healthz"))["cilium"]
    assert cilium["state"] == "Warning"
    assert "1 endpoints are not ready" in cilium["msg"]
    assert "1 rows of policy are not in the kernel: fake policy map is broken" in cilium["msg"]


async def test_while_it_starts_only_status_and_metrics_answer(api: Api) -> None:
    api.agent.runtime.bootstrap.stage = "restore endpoints"
    status, reason = await api.refused("GET", "/endpoint")
    assert (status, "the agent is starting (restore endpoints)" in reason) == (503, True)
    assert (await api.call("GET", "/healthz"))["cilium"]["state"] == "Failure"
    text = await asyncio.to_thread(api.client.request, "GET", "/metrics")
    assert "cilium_endpoint 0.0" in text


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/nothing", 404),
        ("POST", "/endpoint", 405),
        ("GET", "/endpoint/x/log", 400),
        ("PUT", "/config", 405),
    ],
)
async def test_unknown_paths_and_methods_are_json_errors(
    api: Api, method: str, path: str, status: int
) -> None:
    found, reason = await api.refused(method, path)
    assert found == status
    assert reason


async def test_a_body_without_end_is_refused(api: Api) -> None:
    status, reason = await api.refused("PUT", "/policy", "x" * (5 << 20))
    assert (status, "larger than" in reason) == (413, True)


async def test_garbage_on_the_socket_does_not_stop_the_agent(api: Api) -> None:
    def shout() -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
            client.connect(str(api.client.path))
            client.sendall(b"\x00\xff nonsense\r\n\r\n")
            client.settimeout(3)
            assert b"400" in client.recv(200)

    await asyncio.to_thread(shout)
    assert (await api.call("GET", "/healthz"))["kvstore"]["state"] == "Ok"


async def test_the_socket_has_its_mode_and_the_answers_the_version(api: Api) -> None:
    def version() -> bytes:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
            client.connect(str(api.client.path))
            client.sendall(b"GET /v1/config HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            return client.recv(4096)

    assert api.client.path.stat().st_mode & 0o777 == 0o660
    assert f"X-Palomar-Version: {api.agent.runtime.version}".encode() in await asyncio.to_thread(version)


async def test_a_second_agent_does_not_take_the_socket(api: Api) -> None:
    second = ApiServer(api.agent.runtime, api.agent.daemon.metrics)
    with pytest.raises(SocketInUseError, match="another agent answers"):
        await second.start()
    assert (await api.call("GET", "/healthz"))["kvstore"]["state"] == "Ok"


def test_errors_have_their_status() -> None:
    assert status_of(BackendUnavailableError("etcd", "allocate", "down")) == 503
    assert status_of(PermanentError("something")) == 500
    assert issubclass(PoolExhaustedError, PermanentError)
