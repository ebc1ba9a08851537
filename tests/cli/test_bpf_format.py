"""Map entries as lines, and `palomar bpf` against maps that are really pinned."""

import json
import os
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

import pytest

from cli.format import bpfmaps
from cli.main import main
from datapath.abi.addresses import (
    EndpointFlag,
    EndpointInfo,
    EndpointKey,
    IpcacheEntry,
    IpcacheKey,
    TunnelEntry,
    TunnelKey,
)
from datapath.abi.conntrack import CtEntry, CtFlag, CtKey, Direction
from datapath.abi.counters import MetricsKey, MetricsValue
from datapath.abi.mapspecs import RuntimeConfig
from datapath.abi.policy import PolicyEntry, PolicyKey

POD = IPv4Address("10.0.1.110")
NODE = IPv4Address("172.18.0.5")
CT_KEY = CtKey(IPv4Address("10.96.0.1"), IPv4Address("10.244.1.5"), 443, 34567, 6, Direction.OUT)
CT_ENTRY = CtEntry(
    rx_packets=42,
    rx_bytes=3456,
    tx_packets=38,
    tx_bytes=2890,
    lifetime_s=1120,
    flags=CtFlag.RX_CLOSING | CtFlag.TX_CLOSING,
    rev_nat=0,
    policy_revision=3,
    tx_flags_seen=0x13,
    rx_flags_seen=0x02,
    source_identity=48291,
    last_tx_report_s=0,
    last_rx_report_s=0,
    rtt_us=1250,
    policy_cookie=7,
)


def test_ipcache():
    rows = bpfmaps.ipcache_rows(
        [
            (IpcacheKey(IPv4Network("10.0.1.110/32")), IpcacheEntry(53731, NODE)),
            (IpcacheKey(IPv4Network("0.0.0.0/0")), IpcacheEntry(2)),
        ]
    )
    assert bpfmaps.ipcache_lines(rows) == [
        "IP PREFIX/ADDRESS   IDENTITY",
        "0.0.0.0/0           identity=2 encryptkey=0 tunnelendpoint=0.0.0.0",
        "10.0.1.110/32       identity=53731 encryptkey=0 tunnelendpoint=172.18.0.5",
    ]


def test_local_endpoints_and_the_host():
    pod = EndpointInfo(11, 2006, bytes.fromhex("6a8cee3a73d5"), bytes.fromhex("003e43dafbc7"), 53731)
    host = EndpointInfo(0, 0, bytes(6), bytes(6), 1, EndpointFlag.HOST)
    rows = bpfmaps.lxc_rows([(EndpointKey(POD), pod), (EndpointKey(NODE), host)])
    assert bpfmaps.lxc_lines(rows) == [
        "IP ADDRESS   LOCAL ENDPOINT INFO",
        (
            "10.0.1.110   id=2006  sec_id=53731 flags=0x0000 ifindex=11"
            "  mac=6A:8C:EE:3A:73:D5 nodemac=00:3E:43:DA:FB:C7"
        ),
        "172.18.0.5   (localhost)",
    ]


def test_tunnel():
    rows = bpfmaps.tunnel_rows([(TunnelKey(IPv4Address("10.0.1.0")), TunnelEntry(NODE))])
    assert bpfmaps.tunnel_lines(rows) == ["TUNNEL     VALUE", "10.0.1.0   172.18.0.5"]


PORTS = [
    (PolicyKey(1, False), "ANY"),
    (PolicyKey(1, False, 6), "ANY/TCP"),
    (PolicyKey(1, False, 6, 80, 16), "80/TCP"),
    (PolicyKey(1, False, 17, 8080, 12), "8080-8095/UDP"),
    (PolicyKey(1, False, 1, 8, 16), "8/ICMP"),
    (PolicyKey(1, False, 47), "ANY/47"),
]


@pytest.mark.parametrize(("key", "expected"), PORTS, ids=[case[1] for case in PORTS])
def test_ports_of_policy_entries(key, expected):
    assert bpfmaps.port_text(key) == expected


def test_policy_with_labels_and_numeric():
    rows = bpfmaps.policy_rows(
        {
            PolicyKey(0, True): PolicyEntry(deny=False, cookie=0),
            PolicyKey(48291, False, 6, 80, 16): PolicyEntry(deny=False, cookie=77),
            PolicyKey(2, False): PolicyEntry(deny=True, cookie=78),
        }
    )
    header, *lines = bpfmaps.policy_lines(rows, {48291: ["k8s:app=web", "k8s:tier=front"]})
    assert header.split("   ")[:4] == ["POLICY", "DIRECTION", "LABELS (source:key[=value])", "PORT/PROTO"]
    assert [line.split() for line in lines] == [
        ["Deny", "Ingress", "reserved:world", "ANY", "NONE", "disabled", "0", "78"],
        ["Allow", "Ingress", "k8s:app=web", "80/TCP", "NONE", "disabled", "24", "77"],
        ["k8s:tier=front"],
        ["Allow", "Egress", "ANY", "ANY", "NONE", "disabled", "0", "0"],
    ]
    assert all(line.index("80/TCP") == header.index("PORT/PROTO") for line in lines if "80/TCP" in line)
    assert lines[2].index("k8s:tier") == header.index("LABELS")
    assert bpfmaps.policy_lines(rows, {}, numeric=True)[2].split()[2] == "48291"


def test_connections():
    rows = bpfmaps.ct_rows([(CT_KEY, CT_ENTRY)], now_s=1000)
    assert bpfmaps.ct_lines(rows) == [
        (
            "TCP OUT SRC: 10.244.1.5:34567 DST: 10.96.0.1:443 Flags: rx+tx closing Lifetime: 120s"
            " RxPackets: 42 RxBytes: 3456 TxPackets: 38 TxBytes: 2890"
            " RxFlagsSeen: SYN TxFlagsSeen: FIN,SYN,ACK SourceSecurityID: 48291 RTT: 1.250ms"
        )
    ]


def test_metrics_forwards_first():
    rows = bpfmaps.metrics_rows(
        {
            MetricsKey(133, 1, 1234, 2): MetricsValue(3, 180),
            MetricsKey(0, 2, 99, 2): MetricsValue(10, 1000),
        }
    )
    assert bpfmaps.metrics_lines(rows) == [
        "REASON          DIRECTION   PACKETS   BYTES   LINE   FILE",
        "Success         EGRESS      10        1000    99     bpf_lxc.c",
        "Policy denied   INGRESS     3         180     1234   bpf_lxc.c",
    ]


def test_switches_with_their_meaning():
    rows = bpfmaps.config_rows(
        {
            RuntimeConfig.AGGREGATION: 2,
            RuntimeConfig.REPORT_INTERVAL_NS: 0,
            RuntimeConfig.EVENTS_OFF: 1,
            RuntimeConfig.AUDIT_MODE: 0,
        }
    )
    assert [line.split(maxsplit=2) for line in bpfmaps.config_lines(rows)[1:]] == [
        ["aggregation", "2", "medium"],
        ["report-interval-ns", "0", "5s"],
        ["events-off", "1", "events off"],
        ["audit-mode", "0", "enforce"],
    ]


# Real maps


@pytest.fixture
def bpf_root():
    """Maps created and pinned below a root of our own."""
    if os.geteuid() != 0:
        pytest.skip("needs root to pin maps")
    from datapath.bpffs import ensure_mounted, remove_tree
    from datapath.maps.node import ensure_maps, specs

    root = Path(f"/sys/fs/bpf/plt-{os.getpid()}-cli")
    ensure_mounted(root)
    maps = ensure_maps(root / "tc" / "globals", specs())
    try:
        maps.ipcache.upsert(IPv4Network("10.0.1.110/32"), 53731, NODE)
        maps.ipcache.upsert(IPv4Network("10.0.0.0/8"), 16777217)
        maps.lxc.upsert(POD, EndpointInfo(11, 2006, bytes(6), bytes(6), 53731))
        maps.tunnel.upsert(IPv4Network("10.0.1.0/24"), NODE)
        maps.policy(2006).upsert(PolicyKey(53731, False, 6, 80, 16), PolicyEntry(deny=False, cookie=77))
        maps.runtime_config.set(RuntimeConfig.AGGREGATION, 3)
        yield root
    finally:
        maps.close()
        remove_tree(root)


@pytest.fixture
def bpf(bpf_root, tmp_path, capsys):
    def run(*words):
        status = main(["--run-dir", str(tmp_path), "bpf", *words, "--bpf-root", str(bpf_root)])
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return run


@pytest.mark.root
@pytest.mark.bpf
def test_every_map_is_readable_where_it_is_pinned(bpf):
    assert "10.0.1.110/32       identity=53731" in bpf("ipcache", "list")[1]
    assert json.loads(bpf("ipcache", "list", "-o", "json")[1])[1] == {
        "cidr": "10.0.1.110/32",
        "identity": 53731,
        "encryptkey": 0,
        "tunnelendpoint": "172.18.0.5",
    }
    assert bpf("ipcache", "get", "10.0.1.110")[1] == ("10.0.1.110 maps to identity 53731 behind 172.18.0.5\n")
    assert "identity 16777217" in bpf("ipcache", "get", "10.9.9.9")[1]
    assert bpf("ipcache", "get", "11.0.0.1")[0] == 2
    assert bpf("ipcache", "get", "fd00::1")[0] == 2
    assert "id=2006" in bpf("lxc", "list")[1] == bpf("endpoint", "list")[1]
    assert "10.0.1.0   172.18.0.5" in bpf("tunnel", "list")[1]
    assert bpf("ct", "list", "global")[:2] == (0, "\n")
    assert bpf("ct", "list", "local")[0] == 2
    assert bpf("metrics", "list")[1].startswith("REASON")
    assert "maximum" in bpf("config", "list")[1]


@pytest.mark.root
@pytest.mark.bpf
def test_policy_of_one_and_of_all_endpoints(bpf):
    assert "80/TCP" in bpf("policy", "get", "2006")[1]
    assert bpf("policy", "get", "2006", "-n")[1].splitlines()[1].split()[2] == "53731"
    assert bpf("policy", "list")[1].startswith("Endpoint ID: 2006\n")
    assert set(json.loads(bpf("policy", "get", "--all", "-o", "json")[1])) == {"2006"}
    status, _, err = bpf("policy", "get", "7")
    assert status == 2
    assert "endpoints with one: 2006" in err
    assert bpf("policy", "get")[0] == 2


def test_another_node_s_maps_are_never_shown_by_accident(tmp_path, capsys, monkeypatch):
    monkeypatch.delenv("PALOMAR_BPF_ROOT", raising=False)
    assert main(["--run-dir", str(tmp_path), "bpf", "ipcache", "list"]) == 2
    assert "--bpf-root" in capsys.readouterr().err


def test_a_root_without_maps_is_named(tmp_path, capsys):
    assert main(["bpf", "ipcache", "list", "--bpf-root", str(tmp_path)]) == 1
    assert str(tmp_path) in capsys.readouterr().err
