"""`palomar list nodes|namespaces` against a real flow server."""

import json

import pytest

from cli.main import main
from palomar_pb.observer import observer_pb2
from palomar_pb.relay import relay_pb2
from tests.cli.flowserver import FlowServer, serving


@pytest.fixture
def palomar(tmp_path, capsys, monkeypatch):
    monkeypatch.delenv("PALOMAR_SERVER", raising=False)
    monkeypatch.delenv("HUBBLE_SERVER", raising=False)
    flows = FlowServer()
    flows.nodes.nodes.add(
        name="default/node-1",
        version="0.1.0",
        address="172.30.0.11",
        state=relay_pb2.NodeState.NODE_CONNECTED,
        tls=observer_pb2.TLS(enabled=True),
        uptime_ns=3_723 * 10**9,
        num_flows=500,
        max_flows=1000,
        seen_flows=7446,
    )
    flows.nodes.nodes.add(name="default/node-2", state=relay_pb2.NodeState.NODE_UNAVAILABLE)
    flows.namespaces.namespaces.add(cluster="default", namespace="demo")
    flows.namespaces.namespaces.add(cluster="default", namespace="kube-system")

    def run(*words):
        status = main(["--run-dir", str(tmp_path), *words])
        return status, capsys.readouterr().out

    with serving(flows, f"unix:{tmp_path}/hubble.sock"):
        yield run, flows


def test_nodes(palomar):
    run, _ = palomar
    assert run("list", "nodes")[1].splitlines() == [
        "NAME             STATUS        AGE      FLOWS/S   CURRENT/MAX-FLOWS",
        "default/node-1   Connected     1h2m3s   2.00      500/1000 ( 50.00%)",
        "default/node-2   Unavailable   N/A      N/A       N/A",
    ]
    wide = run("list", "node", "-o", "wide")[1].splitlines()
    assert wide[0].split()[-3:] == ["VERSION", "ADDRESS", "TLS"]
    assert wide[1].split()[-3:] == ["0.1.0", "172.30.0.11", "Enabled"]
    assert wide[2].split() == ["default/node-2", "Unavailable", "N/A", "N/A", "N/A", "N/A", "N/A"]
    listed = json.loads(run("list", "nodes", "-o", "json")[1])
    assert [(node["name"], node.get("seen_flows")) for node in listed] == [
        ("default/node-1", "7446"),
        ("default/node-2", None),
    ]


def test_namespaces(palomar):
    run, flows = palomar
    assert run("list", "namespaces")[1] == "NAMESPACE\ndemo\nkube-system\n"
    flows.namespaces.namespaces.add(cluster="other", namespace="demo")
    assert run("list", "namespaces")[1].splitlines() == ["NAMESPACE", "demo", "kube-system", "demo"]
    assert run("list", "namespaces", "-o", "wide")[1].splitlines()[::3] == [
        "NAMESPACE     CLUSTER",
        "demo          other",
    ]
    assert json.loads(run("list", "namespaces", "-o", "json")[1])[2] == {
        "cluster": "other",
        "namespace": "demo",
    }


def test_wrong_output_is_refused(palomar):
    assert palomar[0]("list", "namespaces", "-o", "tab")[0] == 2
