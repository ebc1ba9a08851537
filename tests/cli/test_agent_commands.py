"""Commands that ask the agent, against a real HTTP server on a unix socket."""

import json

import pytest

from cli.main import main
from tests.cli.agentserver import AgentServer, serving

ENDPOINT = {
    "id": 1234,
    "spec": {},
    "status": {
        "external-identifiers": {"container-name": "web-1", "pod-name": "demo/web-1"},
        "identity": {
            "id": 48291,
            "labels": ["k8s:app=web", "k8s:io.kubernetes.pod.namespace=demo"],
        },
        "networking": {"addressing": [{"ipv4": "10.1.0.5"}]},
        "policy": {"realized": {"policy-enabled": "ingress"}},
        "state": "ready",
    },
}
BARE = {"id": 7, "status": {"state": "waiting-for-identity"}}
IDENTITIES = [
    {"id": 48291, "labels": ["k8s:app=web", "k8s:io.kubernetes.pod.namespace=demo"]},
    {"id": 1, "labels": ["reserved:host"]},
]
RULES = [
    {"metadata": {"name": "allow-web", "namespace": "demo"}, "spec": {"endpointSelector": {}}},
    {"metadata": {"name": "deny-x", "namespace": "demo"}, "spec": {}},
]


@pytest.fixture
def agent(tmp_path):
    server = AgentServer()
    server.answers = {
        ("GET", "/v1/endpoint"): (200, [ENDPOINT, BARE]),
        ("GET", "/v1/endpoint/1234"): (200, ENDPOINT),
        ("GET", "/v1/identity"): (200, IDENTITIES),
        ("GET", "/v1/identity/48291"): (200, IDENTITIES[0]),
        ("GET", "/v1/identity/1"): (200, IDENTITIES[1]),
        ("GET", "/v1/policy"): (
            200,
            {
                "revision": 5,
                "policy": json.dumps(RULES),
                "imported": [{"namespace": "demo", "name": "deny-x"}],
            },
        ),
    }
    with serving(server, tmp_path / "palomar.sock"):
        yield server


@pytest.fixture
def palomar(tmp_path, capsys):
    def run(*words):
        status = main(["--run-dir", str(tmp_path), *words])
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return run


def test_endpoint_list_reads_like_the_field_s(agent, palomar):
    assert palomar("endpoint", "list")[1].splitlines() == [
        (
            "ENDPOINT   POLICY (ingress)   POLICY (egress)   IDENTITY   LABELS (source:key[=value])"
            "            IPv6   IPv4       STATUS"
        ),
        "           ENFORCEMENT        ENFORCEMENT",
        (
            "7          Disabled           Disabled                     no labels"
            "                                                waiting-for-identity"
        ),
        (
            "1234       Enabled            Disabled          48291      k8s:app=web"
            "                                   10.1.0.5   ready"
        ),
        "                                                           k8s:io.kubernetes.pod.namespace=demo",
    ]
    assert len(palomar("endpoint", "list", "--no-headers")[1].splitlines()) == 3
    assert json.loads(palomar("endpoint", "list", "-o", "json")[1]) == [ENDPOINT, BARE]


def test_endpoint_get_log_health_and_delete(agent, palomar):
    assert json.loads(palomar("endpoint", "get", "1234")[1]) == [ENDPOINT]
    agent.answers["GET", "/v1/endpoint/1234/log"] = (
        200,
        [{"timestamp": "2026-11-21T08:00:00Z", "code": "ok", "state": "ready", "message": "regenerated"}],
    )
    assert palomar("endpoint", "log", "1234")[1].splitlines() == [
        "Timestamp              Status   State   Message",
        "2026-11-21T08:00:00Z   ok       ready   regenerated",
    ]
    agent.answers["GET", "/v1/endpoint/1234/healthz"] = (
        200,
        {"overallHealth": "OK", "bpf": "OK", "policy": "OK", "connected": True},
    )
    assert palomar("endpoint", "health", "1234")[1].splitlines() == [
        "Overall Health:   OK",
        "BPF Health:       OK",
        "Policy Health:    OK",
        "Connected:        yes",
    ]
    agent.answers["DELETE", "/v1/endpoint/container-name:web-1"] = (200, None)
    assert palomar("endpoint", "delete", "container-name:web-1")[0] == 0
    assert agent.requests[-1][:2] == ("DELETE", "/v1/endpoint/container-name:web-1")


def test_endpoint_add_sends_all_it_was_told(agent, palomar):
    agent.answers["PUT", "/v1/endpoint/container-name:web-1"] = (201, ENDPOINT)
    status, out, _ = palomar(
        "endpoint", "add", "web-1", "--netns", "/run/netns/web-1", "--pod", "demo/web-1", "-l", "app=web",
        "-l", "k8s:tier=front", "--ipv4", "10.1.0.5", "--workload", "Deployment/web", "--interface", "net0",
    )  # fmt: skip
    assert status == 0
    assert "10.1.0.5" in out
    assert json.loads(agent.requests[-1][2]) == {
        "container-name": "web-1",
        "k8s-pod-name": "web-1",
        "k8s-namespace": "demo",
        "labels": ["app=web", "k8s:tier=front"],
        "netns": "/run/netns/web-1",
        "container-interface-name": "net0",
        "addressing": {"ipv4": "10.1.0.5"},
        "workload": {"name": "web", "kind": "Deployment"},
    }


def test_the_agent_s_refusal_is_shown_in_its_own_words(agent, palomar):
    agent.answers["PUT", "/v1/endpoint/container-name:web-1"] = (409, "container web-1 is endpoint 1234")
    assert palomar("endpoint", "add", "web-1", "--netns", "/run/netns/web-1")[::2] == (
        1,
        "palomar: container web-1 is endpoint 1234\n",
    )
    assert palomar("endpoint", "get", "99")[::2] == (1, "palomar: /v1/endpoint/99: no such thing\n")


@pytest.mark.parametrize("text", ["0", "70000", "web", "container-name:", "-1"])
def test_an_endpoint_id_that_cannot_be_is_refused(palomar, text):
    assert palomar("endpoint", "get", text)[0] == 2


def test_identity_list_and_get(agent, palomar):
    assert palomar("identity", "list")[1].splitlines() == [
        "ID      LABELS                                 REFCOUNT",
        "1       reserved:host                          0",
        "48291   k8s:app=web                            1",
        "        k8s:io.kubernetes.pod.namespace=demo",
    ]
    assert palomar("identity", "get", "48291")[1].splitlines()[1].startswith("48291   k8s:app=web")
    assert "reserved:host" in palomar("identity", "get", "reserved:host")[1]
    assert palomar("identity", "get", "nobody")[0] == 2


def test_policy_get_prints_rules_then_revision(agent, palomar):
    _, out, _ = palomar("policy", "get")
    assert out.endswith("\nRevision: 5\n")
    assert json.loads(out.removesuffix("Revision: 5\n")) == RULES
    _, out, _ = palomar("policy", "get", "demo/deny-x", "-o", "json")
    assert json.loads(out) == {"policy": [RULES[1]], "revision": 5}
    assert palomar("policy", "get", "demo/none")[0] == 2


def test_policy_import_sends_the_file_as_it_is(agent, palomar, tmp_path):
    agent.answers["PUT", "/v1/policy"] = (200, {"revision": 6, "policy": "[]"})
    file = tmp_path / "p.yaml"
    file.write_text("kind: CiliumNetworkPolicy\n")
    assert palomar("policy", "import", str(file))[:2] == (0, "Revision: 6\n")
    assert agent.requests[-1] == ("PUT", "/v1/policy", "kind: CiliumNetworkPolicy\n")
    warning = "demo/x: spec.endpointSelector selects no endpoint"
    agent.answers["PUT", "/v1/policy"] = (200, {"revision": 6, "policy": "[]", "warnings": [warning]})
    assert palomar("policy", "import", str(file))[2] == f"{file}: warning: {warning}\n"
    agent.answers["PUT", "/v1/policy"] = (400, "spec.ingress[0].fromCIDR[0]: not a CIDR")
    status, _, err = palomar("policy", "import", str(file))
    assert (status, err) == (1, f"palomar: {file}: spec.ingress[0].fromCIDR[0]: not a CIDR\n")
    assert palomar("policy", "import", "/nowhere.yaml")[0] == 2


def test_policy_delete_by_name_and_all(agent, palomar):
    agent.answers["DELETE", "/v1/policy"] = (200, {"revision": 7})
    assert palomar("policy", "delete", "demo/allow-web", "other", "-n", "ns")[1] == "Revision: 7\n"
    bodies = [json.loads(body) for method, _, body in agent.requests if method == "DELETE"]
    assert bodies == [{"namespace": "demo", "name": "allow-web"}, {"namespace": "ns", "name": "other"}]
    palomar("policy", "delete", "--all")
    bodies = [json.loads(body) for method, _, body in agent.requests if method == "DELETE"][2:]
    assert bodies == [{"namespace": "demo", "name": "deny-x"}]  # not what a policy directory holds
    assert palomar("policy", "delete")[0] == 2
    assert palomar("policy", "delete", "x", "--all")[0] == 2


def test_config_lists_and_finds_keys(agent, palomar):
    agent.answers["GET", "/v1/config"] = (
        200,
        {"status": {"daemonConfigurationMap": {"pod-cidr": "10.1.0.0/24", "mtu": 1450, "masquerade": True}}},
    )
    assert palomar("config")[1] == "masquerade   true\nmtu          1450\npod-cidr     10.1.0.0/24\n"
    assert palomar("config", "get", "pod-cidr")[1] == "10.1.0.0/24\n"
    status, _, err = palomar("config", "get", "pod-cird")
    assert status == 2
    assert "did you mean pod-cidr?" in err
    assert palomar("config", "set", "x")[0] == 2


def test_version_with_and_without_an_agent(agent, palomar):
    agent.answers["GET", "/v1/healthz"] = (200, {"palomar": {"version": "9.9"}})
    assert palomar("version")[1].splitlines()[1] == "Daemon: 9.9"
    assert set(json.loads(palomar("version", "-o", "json")[1])) == {"client", "daemon"}
    del agent.answers["GET", "/v1/healthz"]
    assert palomar("version")[:2][1].splitlines()[1] == "Daemon: not running"


@pytest.mark.parametrize("words", [["endpoint", "list"], ["identity", "list"], ["policy", "get"], ["status"]])
def test_no_agent_names_socket_and_remedy(palomar, tmp_path, words):
    status, out, err = palomar(*words)
    assert (status, out) == (1, "")
    assert f"{tmp_path}/palomar.sock" in err
    assert "palomar agent" in err
    assert "--run-dir" in err


VALID = """
apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {name: allow-web, namespace: demo}
spec:
  endpointSelector: {matchLabels: {app: web}}
  ingress:
  - fromEndpoints: [{matchLabels: {app: client}}]
"""


def test_policy_validate_needs_no_agent_and_names_every_problem(palomar, tmp_path):
    good, bad = tmp_path / "good.yaml", tmp_path / "bad.yaml"
    good.write_text(VALID)
    bad.write_text(VALID.replace("fromEndpoints: [{matchLabels: {app: client}}]", "fromCIDR: [10.0.0.0/99]"))
    assert palomar("policy", "validate", str(good))[:2] == (0, f"{good}: 1 valid policy\n")
    status, out, err = palomar("policy", "validate", str(bad), str(good))
    assert (status, out) == (1, f"{good}: 1 valid policy\n")
    assert err.startswith(f"{bad}: ")
    assert "spec.ingress[0].fromCIDR[0]" in err
