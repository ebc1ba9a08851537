"""`palomar observe` end to end against a real flow server on a unix socket."""

import json
import os
import signal
import subprocess
import sys
import time

import grpc
import pytest

from cli.main import main
from cli.selectors import EVERYTHING
from palomar_pb.flow import flow_pb2
from palomar_pb.observer import observer_pb2
from palomar_pb.relay import relay_pb2
from tests.cli import flowcast
from tests.cli.flowserver import BatchServer, FlowServer, serving
from tests.kit.wait import eventually

SAMPLES = dict(flowcast.samples())


@pytest.fixture(autouse=True)
def utc(monkeypatch):
    for name in list(os.environ):
        if name.startswith(("PALOMAR_", "HUBBLE_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.fixture
def server(tmp_path):
    """A server that speaks only the public API, at the place of the node's own."""
    flows = FlowServer([SAMPLES["trace to-stack"], SAMPLES["drop"]])
    with serving(flows, f"unix:{tmp_path}/hubble.sock"):
        yield flows


@pytest.fixture
def observe(tmp_path, capsys):
    """Run `palomar observe` on the node of tmp_path; returns status, output, errors."""

    def run(*words):
        status = main(["--run-dir", str(tmp_path), "observe", *words])
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return run


def test_newest_twenty_are_asked_for_and_printed(server, observe):
    status, out, err = observe("--print-policy-names=false")
    assert status == 0
    assert out.splitlines() == [
        (
            "Nov 21 08:00:01.123: default/client-6d5f7b9c4d-abcde:40912 (ID:48291) ->"
            " default/server-7c9d8f6b5-fghij:8080 (ID:53731) to-stack FORWARDED (TCP Flags: SYN)"
        ),
        (
            "Nov 21 08:00:03.123: default/client-6d5f7b9c4d-abcde:40912 (ID:48291) <>"
            " default/server-7c9d8f6b5-fghij:8080 (ID:53731) Policy denied DROPPED (TCP Flags: SYN)"
        ),
    ]
    assert err == "2 flows, 0 not seen\n"
    assert (server.requests[-1].number, server.requests[-1].first) == (20, False)


def test_filters_and_range_reach_the_server(server, observe):
    status, _, _ = observe(
        "--since", "2026-11-21T08:00:00.5Z", "--until", "2026-11-21T09:00:00Z", "--pod", "demo/web",
        "--not", "--verdict", "FORWARDED",
    )  # fmt: skip
    assert status == 0
    request = server.requests[-1]
    assert request.number == EVERYTHING
    assert (request.since.seconds, request.since.nanos) == (flowcast.SECOND_ZERO, 500_000_000)
    assert request.until.seconds == flowcast.SECOND_ZERO + 3600
    assert [list(item.source_pod) for item in request.whitelist] == [["demo/web"], []]
    assert [list(item.verdict) for item in request.blacklist] == [[flow_pb2.Verdict.FORWARDED]]


def test_default_names_policy_rule_and_node_behind_a_refusal(server, observe):
    denied = flowcast.flow(
        5,
        5,
        verdict=flowcast.DROPPED,
        traffic_direction=1,
        ingress_denied_by=[flowcast.policy("deny-x", "demo")],
    )
    flowcast.extended(denied, policy_rule="ingressDeny[0]")
    undecided = flowcast.flow(3, 1, 133, verdict=flowcast.DROPPED, drop_reason_desc=133, traffic_direction=1)
    flowcast.extended(undecided, default_deny_by=[flowcast.policy("allow-web", "demo")])
    server.responses = [flowcast.response(item) for item in (denied, undecided)]
    _, out, _ = observe()
    first, second = out.splitlines()
    assert first.endswith(
        "policy-verdict:none INGRESS DENIED (TCP Flags: SYN)"
        " BY demo/deny-x (CiliumNetworkPolicy) ingressDeny[0] on default/worker2"
    )
    assert second.endswith(
        "Policy denied DROPPED (TCP Flags: SYN)"
        " BY default deny of demo/allow-web (CiliumNetworkPolicy) on default/worker2"
    )
    _, named, _ = observe("--print-policy-names")
    assert "DENIED BY deny-x (CiliumNetworkPolicy) (TCP Flags: SYN)\n" in named
    _, exact, _ = observe("--print-policy-names=false")
    assert " BY " not in exact


def test_our_own_server_is_asked_for_batches_and_tells_the_account(tmp_path, observe):
    flows = FlowServer([*SAMPLES.values()])
    with serving(flows, f"unix:{tmp_path}/hubble.sock", BatchServer(flows, observed=1000, lost=7)):
        status, out, err = observe("--last", "100", "--print-policy-names=false")
    assert status == 0
    assert len(flows.requests) == 1, "one call: the batched one"
    assert len(out.splitlines()) == len(SAMPLES)
    assert err == ("14 flows, 5 not seen (HUBBLE_RING_BUFFER 5); node: observed 1000 of 1007 events\n")


def test_all_says_how_many_have_left_the_store(server, observe):
    _, _, err = observe("--all")
    assert err == "2 flows, 0 not seen; 7 older ones have left the store\n"


def test_json_lines_carry_everything_and_standard_error_stays_empty(server, observe):
    _, out, err = observe("-o", "json")
    assert [json.loads(line)["flow"]["verdict"] for line in out.splitlines()] == ["FORWARDED", "DROPPED"]
    assert err == ""


def test_jsonpb_asks_for_the_public_api_alone(server, observe):
    observe("-o", "json")
    assert not server.requests[-1].HasField("extensions")
    observe("-o", "jsonpb")
    assert server.requests[-1].extensions.type_url.endswith("/google.protobuf.Empty")


def test_table_dict_and_wide(server, observe):
    flowcast.extended(server.responses[0].flow, packets=3, bytes=180, rtt_us=1250)
    _, out, _ = observe("-o", "table", "--print-policy-names=false", "--print-node-name")
    header, *rows = out.splitlines()
    assert header.split() == ["TIMESTAMP", "NODE", "SOURCE", "DESTINATION", "TYPE", "VERDICT", "SUMMARY"]
    assert all(row.index("default/worker2") == header.index("NODE") for row in rows)
    assert observe("-o", "tab", "--print-policy-names=false", "--print-node-name")[1] == out
    _, out, _ = observe("-o", "dict")
    assert out.count("------------\n") == 1
    _, out, _ = observe("-o", "wide")
    assert out.splitlines()[0].endswith("(TCP Flags: SYN) [3 packets, 180 bytes, rtt 1.25 ms]")


def test_colour_only_when_wanted(server, observe, monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b[" not in observe()[1]
    assert "\x1b[31mDROPPED\x1b[0m" in observe("--color", "always")[1]
    _, plain, _ = observe("-o", "table", "--color", "never")
    _, coloured, _ = observe("-o", "table", "--color", "always")
    import re

    assert re.sub(r"\x1b\[[0-9]*m", "", coloured) == plain


def test_node_status_goes_to_standard_error_not_between_the_flows(server, observe):
    server.responses.insert(
        0,
        observer_pb2.GetFlowsResponse(
            node_status=relay_pb2.NodeStatusEvent(
                state_change=relay_pb2.NodeState.NODE_UNAVAILABLE, node_names=["a", "b"], message="gone"
            )
        ),
    )
    _, out, err = observe()
    assert len(out.splitlines()) == 2
    assert err.startswith("NODE_UNAVAILABLE: a, b: gone\n")
    _, out, err = observe("-o", "jsonpb")
    assert [next(iter(json.loads(line))) for line in out.splitlines()] == ["flow", "flow"]
    assert json.loads(err)["node_status"]["message"] == "gone"
    server.responses[0].node_status.state_change = relay_pb2.NodeState.NODE_CONNECTED
    assert observe("-o", "jsonpb")[2] == ""


def test_print_raw_filters_asks_nobody(observe):
    status, out, err = observe("--from-pod", "web", "--not", "--port", "53", "--print-raw-filters")
    assert (status, err) == (0, "")
    assert out == (
        "allowlist:\n"
        '    - \'{"source_pod":["default/web"]}\'\n'
        "denylist:\n"
        '    - \'{"source_port":["53"]}\'\n'
        '    - \'{"destination_port":["53"]}\'\n'
    )


def test_no_server_names_socket_and_remedy(observe, tmp_path):
    status, out, err = observe()
    assert (status, out) == (1, "")
    assert f"unix://{tmp_path}/hubble.sock" in err
    assert "palomar agent" in err
    assert "--run-dir" in err
    assert observe("--silent-errors") == (1, "", "")


def test_a_failing_call_shows_the_server_s_words(server, observe):
    server.fail = (grpc.StatusCode.INVALID_ARGUMENT, "source_label: bad selector")
    status, _, err = observe()
    assert status == 1
    assert "source_label: bad selector (INVALID_ARGUMENT)" in err
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["-o", "raw"], "invalid output format: raw"),
        (["--color", "pink"], "--color 'pink'"),
        (["--last", "many"], "--last"),
        (["--follow=perhaps"], "--follow=perhaps"),
        (["--field-mask", "time"], "--field-mask"),
        (["--server", "http://x"], "--server 'http://x'"),
        (["--timeout", "soon"], "--timeout 'soon'"),
        (["everything"], "flows, agent-events"),
        (["--frist", "5"], "--frist"),
        (["--time-format", "ANSIC"], "--time-format 'ANSIC'"),
    ],
)
def test_nonsense_is_refused_with_status_2(observe, words, message):
    status, out, err = observe(*words)
    assert (status, out) == (2, "")
    assert message in err


def test_an_explicit_field_mask_is_sent_with_json(server, observe):
    assert observe("-o", "json", "--field-mask", "time,verdict", "--field-mask", "IP")[0] == 0
    assert list(server.requests[-1].field_mask.paths) == ["time", "verdict", "IP"]


def test_a_unix_socket_is_asked_for_whole_flows(server, observe):
    observe()
    assert not server.requests[-1].HasField("field_mask")


def test_server_of_the_environment_and_of_the_flag(server, observe, tmp_path, monkeypatch):
    monkeypatch.setenv("HUBBLE_SERVER", "unix:///nowhere/hubble.sock")
    assert "/nowhere/hubble.sock" in observe()[2]
    monkeypatch.setenv("PALOMAR_SERVER", f"{tmp_path}/hubble.sock")
    assert observe()[0] == 0
    assert observe("--server", f"unix://{tmp_path}/hubble.sock")[0] == 0


def test_agent_events(server, observe):
    event = observer_pb2.GetAgentEventsResponse(
        agent_event=flow_pb2.AgentEvent(
            type=flow_pb2.AgentEventType.POLICY_UPDATED,
            policy_update=flow_pb2.PolicyUpdateNotification(labels=["a", "b"], revision=3, rule_count=1),
        ),
        node_name=flowcast.NODE,
    )
    event.time.seconds = flowcast.SECOND_ZERO
    created = observer_pb2.GetAgentEventsResponse(
        agent_event=flow_pb2.AgentEvent(
            type=flow_pb2.AgentEventType.ENDPOINT_CREATED,
            endpoint_update=flow_pb2.EndpointUpdateNotification(id=12, pod_name="web-1", namespace="demo"),
        )
    )
    created.time.seconds = flowcast.SECOND_ZERO
    server.agent_events = [event, created]
    assert observe("agent-events", "--last", "7", "--print-node-name")[1].splitlines()[0] == (
        "Nov 21 08:00:00.000 [default/worker2]: POLICY_UPDATED (labels: [a,b], revision: 3, count: 1)"
    )
    assert server.requests[-1].number == 7
    assert observe("agent-events", "-o", "table")[1].splitlines() == [
        "TIMESTAMP             TYPE               DETAILS",
        "Nov 21 08:00:00.000   POLICY_UPDATED     labels: [a,b], revision: 3, count: 1",
        "Nov 21 08:00:00.000   ENDPOINT_CREATED   id: 12, namespace: demo, pod name: web-1",
    ]
    assert observe("agent-events", "-o", "dict")[1].splitlines()[:3] == [
        "  TIMESTAMP: Nov 21 08:00:00.000",
        "       TYPE: POLICY_UPDATED",
        "    DETAILS: labels: [a,b], revision: 3, count: 1",
    ]
    assert json.loads(observe("agent-events", "-o", "json")[1].splitlines()[1])["agent_event"]["type"] == (
        "ENDPOINT_CREATED"
    )
    assert observe("agent-events", "--pod", "x")[0] == 2


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM])
def test_follow_prints_at_once_and_ends_well(server, tmp_path, end):
    command = [sys.executable, "-m", "cli.main", "--run-dir", str(tmp_path), "observe", "--follow"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert "to-stack FORWARDED" in process.stdout.readline()
        assert "Policy denied DROPPED" in process.stdout.readline()
        process.send_signal(end)
        _, err = process.communicate(timeout=20)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 0
    assert err == "2 flows, 0 not seen\n"
    assert server.requests[-1].follow
    eventually(server.ended.is_set)


def test_a_reader_that_stops_reading_is_no_error(server, tmp_path):
    server.responses = [SAMPLES["drop"]] * 5000
    observe = f"{sys.executable} -m cli.main --run-dir {tmp_path} observe --all"
    shell = f"{observe} | head -n 1; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", shell], capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout.splitlines()[-1] == "0"
    assert "Traceback" not in done.stderr
    assert "BrokenPipe" not in done.stderr


# Reading from a file


@pytest.fixture
def recorded(tmp_path):
    from cli.format.protojson import JsonFormat

    file = tmp_path / "flows.json"
    line = JsonFormat().line
    file.write_text("".join(line(item) + "\n" for item in SAMPLES.values()))
    return str(file)


def test_a_file_is_read_whole_and_filtered_here(recorded, observe):
    assert observe("--input-file", recorded)[2] == "14 flows, 5 not seen (HUBBLE_RING_BUFFER 5)\n"
    assert observe("--input-file", recorded, "--verdict", "DROPPED")[2].startswith("2 flows")
    assert observe("--input-file", recorded, "--since", "2026-11-21T08:00:12Z")[2].startswith("3 flows")
    assert observe("--input-file", recorded, "--until", "2026-11-21T08:00:02Z")[2].startswith("1 flow,")
    assert observe("--input-file", recorded, "--first", "3")[2].startswith("3 flows")
    out = observe("--input-file", recorded, "--last", "2", "--verdict", "DROPPED", "--follow")[1]
    assert len(out.splitlines()) == 2


def test_an_extension_of_somebody_else_s_is_shown_as_bytes_and_read_over(server, observe, tmp_path):
    theirs = flowcast.flow(1, 4, 0)
    theirs.extensions.type_url, theirs.extensions.value = "type.googleapis.com/acme.Thing", b"\x08\x01"
    server.responses = [flowcast.response(theirs), flowcast.response(flowcast.flow(2, 4, 0))]
    status, out, _ = observe("-o", "json")
    first = json.loads(out.splitlines()[0])["flow"]
    assert (status, first["extensions"]) == (0, {"@type": "type.googleapis.com/acme.Thing", "value": "CAE="})
    file = tmp_path / "theirs.json"
    file.write_text(out)
    status, again, err = observe("--input-file", str(file), "-o", "json")
    assert (status, len(again.splitlines())) == (0, 2)
    assert err == "palomar: line 1: this version does not know the field extensions (said once)\n"


def test_lines_that_are_no_flows_are_reported_and_skipped(tmp_path, observe, recorded):
    file = tmp_path / "damaged.json"
    with open(recorded) as lines:
        good = lines.readline()
    newer = '{"flow":{"verdict":"DROPPED","from_the_future":1}}\n'
    file.write_text(good[:50] + "\n" + good + "\n" + newer + newer + '{"agent_event":{}}\n"x"\n')
    status, out, err = observe("--input-file", str(file))
    assert status == 0
    assert len(out.splitlines()) == 3
    assert err.count("is skipped") == 2
    assert err.count("from_the_future") == 1
    assert "line 1 " in err


def test_a_missing_file_is_named(observe):
    status, _, err = observe("--input-file", "/nowhere/flows.json")
    assert status == 2
    assert "--input-file /nowhere/flows.json" in err
