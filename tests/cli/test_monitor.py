"""Monitor lines in the field's form, and the command against a real flow server."""

import json
import signal
import subprocess
import sys

import pytest

from cli.commands.monitor import EndpointChoice, lines
from cli.format import monitor
from cli.main import main
from palomar_pb.flow import flow_pb2
from tests.cli import flowcast
from tests.cli.flowserver import FlowServer, serving

SAMPLES = {name: item.flow for name, item in flowcast.samples()}
EVERYONE = EndpointChoice(frozenset(), frozenset(), frozenset())


def hashed(made):
    return f"0x{monitor.flow_hash(made):x}"


def test_drop():
    made = SAMPLES["drop"]
    made.file.name, made.file.line = "bpf_lxc.c", 1234
    made.interface.index = 5
    assert monitor.line(made) == (
        f"xx drop (Policy denied) flow {hashed(made)} to endpoint 5678, ifindex 5, file bpf_lxc.c:1234, ,"
        " identity 48291->53731: 10.0.0.185:40912 -> 10.0.1.110:8080 tcp SYN"
    )


def test_trace():
    made = flowcast.flow(2, 4, 0, trace_reason=flow_pb2.TraceReason.NEW)
    made.interface.name = "lxc1234"
    assert monitor.line(made) == (
        f"-> endpoint 5678 flow {hashed(made)} , identity 48291->53731 state new ifindex lxc1234"
        " orig-ip 10.0.0.185: 10.0.0.185:40912 -> 10.0.1.110:8080 tcp SYN"
    )


def test_policy_verdict():
    made = SAMPLES["policy-verdict audit"]
    made.policy_match_type = 2
    made.verdict = flow_pb2.Verdict.FORWARDED
    assert monitor.line(made) == (
        f"Policy verdict log: flow {hashed(made)} local EP ID 1234, remote ID 53731, proto 6, egress,"
        " action allow, auth: disabled, match L3-L4, 10.0.0.185:40912 -> 10.0.1.110:8080 tcp SYN"
    )
    denied = monitor.line(SAMPLES["policy-verdict deny"])
    assert "local EP ID 5678, remote ID 48291, proto 6, ingress, action deny" in denied
    assert "match none" in denied


POINTS = [
    (2, "-> host from flow"),
    (3, "-> stack flow"),
    (4, "-> overlay flow"),
    (5, "<- endpoint 1234 flow"),
    (7, "<- host flow"),
    (9, "<- overlay flow"),
    (11, "-> network flow"),
]


@pytest.mark.parametrize(("point", "start"), POINTS, ids=[case[1] for case in POINTS])
def test_observation_points(point, start):
    assert monitor.line(flowcast.flow(1, 4, point)).startswith(start)


def test_both_ways_of_a_connection_have_one_hash_and_others_another():
    assert hashed(SAMPLES["trace to-stack"]) == hashed(SAMPLES["trace reply"])
    assert hashed(SAMPLES["trace to-stack"]) != hashed(SAMPLES["to-network world fqdn"])


def test_icmp_udp_and_reserved_identities():
    assert monitor.line(SAMPLES["icmp"]).endswith(": 10.0.0.185 -> 10.0.1.110 icmp EchoRequest")
    made = flowcast.flow(1, 4, 3, l4=flowcast.udp(5000, 53), destination=flowcast.WORLD)
    assert "identity 48291->world" in monitor.line(made)
    assert monitor.line(made).endswith("10.0.0.185:5000 -> 10.0.1.110:53 udp")


def test_verbose_adds_what_the_kernel_knew():
    made = flowcast.extended(
        flowcast.flow(2, 4, 4), cpu=1, sequence=42, length=74, packets=3, bytes=222, tunnel_peer="172.30.0.12"
    )
    text = list(lines(flowcast.response(made), EVERYONE, True, False))
    assert text[0] == monitor.SEPARATOR
    assert text[2] == (
        "  CPU 01, SEQ 42, 74 bytes, flow so far: 3 packets, 222 bytes, tunnel peer 172.30.0.12"
    )


@pytest.mark.parametrize("name", ["drop", "trace reply", "policy-verdict deny"])
def test_json_has_a_form_for_every_kind(name):
    (text,) = lines(flowcast.response(SAMPLES[name]), EVERYONE, False, True)
    tree = json.loads(text)
    assert tree["type"] == {"trace reply": "trace"}.get(name, name.removesuffix(" deny"))
    assert tree["summary"]["l4"]["proto"] == 6


def test_losses_are_lines_too():
    assert list(lines(flowcast.lost(1, 5, cpu=1), EVERYONE, False, False)) == ["CPU 01: Lost 5 events"]
    (text,) = lines(flowcast.lost(1, 5, cpu=1), EVERYONE, False, True)
    assert json.loads(text) == {"type": "lost", "cpu": 1, "events": 5}


def choice(senders=(), receivers=(), either=()):
    return EndpointChoice(frozenset(senders), frozenset(receivers), frozenset(either))


@pytest.mark.parametrize(
    ("chosen", "wanted"),
    [
        (choice(), True),
        (choice(senders=[1234]), True),
        (choice(senders=[5678]), False),
        (choice(receivers=[5678]), True),
        (choice(receivers=[1234]), False),
        (choice(either=[5678]), True),
        (choice(either=[1]), False),
        (choice(senders=[1], receivers=[5678]), True),
    ],
)
def test_endpoint_choice(chosen, wanted):
    assert chosen.wants(SAMPLES["drop"]) is wanted


def test_the_command_asks_for_types_and_prints_until_interrupted(tmp_path):
    flows = FlowServer([item for _, item in flowcast.samples()][2:3])
    command = [sys.executable, "-m", "cli.main", "--run-dir", str(tmp_path), "monitor", "-t", "drop"]
    with serving(flows, f"unix:{tmp_path}/hubble.sock"):
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        try:
            assert process.stdout.readline().startswith("xx drop (Policy denied)")
            process.send_signal(signal.SIGINT)
            _, err = process.communicate(timeout=20)
        finally:
            process.kill()
            process.wait()
    assert process.returncode == 0
    assert err.splitlines()[-1] == "1 flow, 0 not seen"
    request = flows.requests[-1]
    assert request.follow
    assert [item.event_type[0].type for item in request.whitelist] == [1]


@pytest.mark.parametrize(
    "words", [["--type", "l7"], ["--from", "x"], ["--to", "0"], ["--related-to", "65536"]]
)
def test_nonsense_names_the_flag(words, capsys):
    assert main(["monitor", *words]) == 2
    assert words[0] in capsys.readouterr().err
