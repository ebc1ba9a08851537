"""`palomar status` says what the agent says, names what is wrong, and does the sums."""

import json

import pytest

from cli.format import status
from cli.main import main
from tests.cli.agentserver import AgentServer, serving
from tests.cli.flowserver import FlowServer
from tests.cli.flowserver import serving as serving_flows

HEALTHY = {
    "kvstore": {"state": "Ok", "msg": "etcd: 1/1 connected, has-quorum=true"},
    "cilium": {"state": "Ok", "msg": ""},
    "nodeMonitor": {"cpus": 2, "npages": 2048, "pagesize": 4096},
    "ipam": {"status": "IPv4: 2/254 allocated from 10.1.0.0/24", "allocations": {"10.1.0.5": "demo/web-1"}},
    "routing": {
        "inter-host-routing-mode": "Tunnel",
        "intra-host-routing-mode": "BPF",
        "tunnel-protocol": "vxlan",
    },
    "attach-mode": "tc",
    "datapath-mode": "veth",
    "masquerading": {
        "enabled": True,
        "mode": "nftables",
        "snat-exclusion-cidr-v4": "10.0.0.0/8",
        "enabledProtocols": {"ipv4": True, "ipv6": False},
    },
    "clock-source": {"mode": "ktime"},
    "controllers": [
        {"name": "ipcache", "status": {"success-count": 4, "failure-count": 0}},
        {"name": "policy", "status": {"success-count": 9, "failure-count": 1}},
    ],
    "identity-range": {"min-identity": 256, "max-identity": 65535},
    "hubble": {
        "state": "Ok",
        "observer": {"max-flows": 1000, "current-flows": 250, "seen-flows": 300, "uptime": "1m0s"},
        "metrics": {"state": "Ok"},
    },
    "bpf-maps": {"maps": [{"name": "cilium_ipcache", "size": 512000}]},
    "cluster": {"self": "default/node-1", "nodes": [{"name": "default/node-1"}]},
    "palomar": {
        "node": "node-1",
        "version": "0.1.0",
        "node-ip": "172.30.0.11",
        "policy-revision": 3,
        "observed": {
            "emitted": 110,
            "stored": 100,
            "lost": 7,
            "cpus": [
                {"cpu": 0, "emitted": 60, "stored": 60, "lost": 0, "suppressed": 5},
                {"cpu": 1, "emitted": 50, "stored": 40, "lost": 7},
            ],
        },
        "processes": [{"name": "ingest", "state": "running", "pid": 12, "restarts": 0}],
        "tables": [{"name": "policy", "rows": 3, "pending": 0, "errors": 0}],
    },
}

LINES = [
    "KVStore:                 Ok   etcd: 1/1 connected, has-quorum=true",
    "Palomar:                 Ok   node node-1, node ip 172.30.0.11, version 0.1.0",
    "NodeMonitor:             Listening for events on 2 CPUs with 2048x4096 of shared memory",
    "IPAM:                    IPv4: 2/254 allocated from 10.1.0.0/24",
    "Routing:                 Network: Tunnel [vxlan]   Host: BPF",
    "Attach Mode:             TC",
    "Device Mode:             veth",
    "Masquerading:            nftables   10.0.0.0/8   [IPv4: Enabled, IPv6: Disabled]",
    "Clock Source for BPF:    ktime",
    "Controller Status:       2/2 healthy",
    "Global Identity Range:   min 256, max 65535",
    "Hubble:                  Ok   Current/Max Flows: 250/1000 (25.00%), Flows/s: 5.00   Metrics: Ok",
    "BPF Maps:                fixed sizes, 1 maps",
    "Cluster:                 1 nodes, self default/node-1",
    "Policy Revision:         3",
    "Events:                  110 emitted = 100 stored + 7 lost + 3 under way",
    "  CPU 0:                 60 emitted = 60 stored + 0 lost (5 suppressed)",
    "  CPU 1:                 50 emitted = 40 stored + 7 lost + 3 under way",
]


def changed(*path, value):
    """Return HEALTHY with `value` at `path`."""
    copy = json.loads(json.dumps(HEALTHY))
    at = copy
    for key in path[:-1]:
        at = at[key]
    at[path[-1]] = value
    return copy


def test_every_line():
    assert status.lines(HEALTHY) == LINES
    assert status.problems(HEALTHY) == []
    assert status.brief(HEALTHY) == "OK"


NODES = [
    {
        "name": "default/node-1",
        "primary-address": {"ipv4": {"ip": "172.30.0.11", "alloc-range": "10.1.0.0/24"}},
    },
    {"name": "default/node-2"},
]
CERTIFICATES = [{"file": "a.crt", "subject": "CN=a", "not_after": "2026-12-01", "problem": None}]
FAILING = {
    "name": "routes",
    "status": {
        "success-count": 0,
        "failure-count": 3,
        "consecutive-failure-count": 2,
        "last-failure-msg": "no such device",
    },
}


def test_verbose_adds_a_table_of_everything_the_agent_tells():
    told = changed("cluster", "nodes", value=NODES)
    told["palomar"]["certificates"] = CERTIFICATES
    told["controllers"].append(FAILING)
    text = "\n".join(status.lines(told, verbose=True))
    for part in (
        "Controllers:\n  Name      Success   Failures   Last error\n",
        "  ipcache   4         0          no error\n",
        "  policy    9         1          no error\n",
        "  routes    0         3          no such device\n",
        "Processes:\n  Name     State     PID   Restarts\n  ingest   running   12    0",
        "Tables:\n  Name     Rows   Pending   Errors\n  policy   3      0         0",
        "BPF Maps:\n  Name             Size\n  cilium_ipcache   512000",
        "Allocated addresses:\n  Address    Owner\n  10.1.0.5   demo/web-1",
        "Certificates:\n  File    Subject   Not after    Problem\n  a.crt   CN=a      2026-12-01\n",
        "Nodes:\n  Name             Address       Pod CIDR\n",
        "  default/node-1   172.30.0.11   10.1.0.0/24\n  default/node-2",
    ):
        assert part in text
    assert "None" not in text


def test_verbose_shows_no_table_of_nothing():
    assert status.lines({"cilium": {"state": "Ok"}}, verbose=True) == ["Palomar:   Ok"]


UNWELL = [
    (changed("kvstore", value={"state": "Failure", "msg": "no leader"}), "kvstore: no leader"),
    (changed("hubble", "state", value="Warning"), "hubble: Warning"),
    (changed("cilium", value={"state": "Failure", "msg": "lock held"}), "palomar: lock held"),
    (
        changed("controllers", value=[{"name": "x", "status": {"consecutive-failure-count": 2}}]),
        "1 failing controller(s): x",
    ),
    (
        changed("palomar", "processes", value=[{"name": "ingest", "state": "backoff"}]),
        "process ingest: backoff",
    ),
    (
        changed("palomar", "observed", "cpus", value=[{"cpu": 1, "emitted": 1, "stored": 2, "lost": 0}]),
        "events of cpu 1 do not add up",
    ),
]


@pytest.mark.parametrize(("tree", "problem"), UNWELL, ids=[case[1] for case in UNWELL])
def test_what_is_wrong_is_named(tree, problem):
    assert status.problems(tree) == [problem]
    assert status.brief(tree) == f"error in {problem}"
    assert status.lines(tree)[-1] == f"PROBLEM: {problem}"


def test_an_agent_that_says_little_is_still_readable():
    assert status.lines({}) == []
    assert status.lines({"cilium": {"state": "Ok"}}) == ["Palomar:   Ok"]


@pytest.mark.parametrize(
    ("uptime", "expected"),
    [("1h2m3.5s", 3723.5), (90, 90.0), (90_000_000_000, 90.0), ("", 0.0), (None, 0.0), ("12s", 12.0)],
)
def test_uptimes_in_every_shape(uptime, expected):
    assert status.seconds(uptime) == expected


@pytest.fixture
def palomar(tmp_path, capsys, monkeypatch):
    monkeypatch.delenv("PALOMAR_SERVER", raising=False)
    monkeypatch.delenv("HUBBLE_SERVER", raising=False)

    def run(*words):
        code = main(["--run-dir", str(tmp_path), *words])
        return code, capsys.readouterr().out

    return run


def test_exit_status_says_whether_the_node_is_well(tmp_path, palomar):
    agent, flows = AgentServer(), FlowServer()
    flows.status.uptime_ns = 10 * 10**9
    server = "Flow Server:             Ok   Current/Max Flows: 10/100 (10.00%), Flows/s: 1.70"
    at = LINES.index(next(line for line in LINES if line.startswith("BPF Maps")))
    expected = "".join(f"{line}\n" for line in [*LINES[:at], server, *LINES[at:]])
    with (
        serving(agent, tmp_path / "palomar.sock"),
        serving_flows(flows, f"unix:{tmp_path}/hubble.sock"),
    ):
        agent.answers["GET", "/v1/healthz"] = (200, HEALTHY)
        assert palomar("status") == (0, expected)
        assert palomar("status", "--brief") == (0, "OK\n")
        code, out = palomar("status", "-o", "json")
        facts = {"state": "Ok", "current-flows": 10, "max-flows": 100, "seen-flows": 17, "uptime": 10.0}
        assert (code, json.loads(out)) == (0, {**HEALTHY, "flow-server": facts})
        agent.answers["GET", "/v1/healthz"] = (200, UNWELL[0][0])
        assert palomar("status")[0] == 1
        assert palomar("status", "--brief") == (1, "error in kvstore: no leader\n")


def test_a_flow_server_that_does_not_answer_is_a_problem(tmp_path, palomar):
    agent = AgentServer()
    agent.answers["GET", "/v1/healthz"] = (200, HEALTHY)
    with serving(agent, tmp_path / "palomar.sock"):
        code, out = palomar("status", "--brief")
    assert code == 1
    assert out.startswith(f"error in flow-server: flow server does not answer on unix://{tmp_path}")


def test_a_flow_server_or_relay_reports_in_the_field_s_form(tmp_path, palomar):
    flows = FlowServer()
    flows.status.num_flows, flows.status.max_flows = 4095, 4095
    flows.status.seen_flows, flows.status.uptime_ns = 120_000, 60 * 10**9
    flows.status.num_connected_nodes.value = 2
    flows.status.num_unavailable_nodes.value = 2
    flows.status.version = "palomar 1"
    flows.status.unavailable_nodes.append("default/node-3")
    target = f"unix://{tmp_path}/hubble.sock"
    with serving_flows(flows, f"unix:{tmp_path}/hubble.sock"):
        code, out = palomar("status", "--server", target)
        assert code == 0
        assert out.splitlines() == [
            f"Healthcheck (via {target}): Ok",
            "Current/Max Flows: 4,095/4,095 (100.00%)",
            "Flows/s: 2000.00",
            "Connected Nodes: 2/4",
            "Unavailable Nodes: 2",
            "  - default/node-3",
            "  - and 1 more...",
        ]
        assert json.loads(palomar("status", "--server", target, "-o", "json")[1])["seen_flows"] == "120000"
        flows.status.flows_rate = 0.5
        assert palomar("status", "--server", target, "-o", "dict")[1].splitlines() == [
            "          NUM FLOWS: 4,095",
            "          MAX FLOWS: 4,095",
            "         SEEN FLOWS: 120,000",
            "   FLOWS PER SECOND: 0.50",
            "             UPTIME: 1m0s",
            "NUM CONNECTED NODES: 2",
            " NUM UNAVAIL. NODES: 2",
            "            VERSION: palomar 1",
        ]
        header, row = palomar("status", "--server", target, "-o", "table")[1].splitlines()
        assert [name.strip() for name in header.split("   ") if name] == [
            "NUM FLOWS",
            "MAX FLOWS",
            "SEEN FLOWS",
            "FLOWS PER SECOND",
            "UPTIME",
            "NUM CONNECTED NODES",
            "NUM UNAVAILABLE NODES",
            "VERSION",
        ]
        assert row.split() == ["4,095", "4,095", "120,000", "0.50", "1m0s", "2", "2", "palomar", "1"]
        assert row.index("palomar 1") == header.index("VERSION")


@pytest.mark.parametrize(
    ("states", "code", "first"),
    [
        ({}, 0, "Ok"),
        ({"": "NOT_SERVING"}, 1, "Unavailable: NOT_SERVING"),
        ({"": "NOT_SERVING", "hubble.server.Observer": "SERVING"}, 0, "Ok"),
        ({"": "SERVING", "hubble.server.Observer": "NOT_SERVING"}, 1, "Unavailable: NOT_SERVING"),
    ],
)
def test_a_server_s_own_health_check_decides(tmp_path, palomar, states, code, first):
    target = f"unix://{tmp_path}/hubble.sock"
    with serving_flows(FlowServer(), f"unix:{tmp_path}/hubble.sock", health=states):
        status, out = palomar("status", "--server", target)
        assert (status, out.splitlines()[0]) == (code, f"Healthcheck (via {target}): {first}")
        assert palomar("status", "--server", target, "--brief")[0] == code
