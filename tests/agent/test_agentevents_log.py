"""The agent events log: lines that the flow server understands, bounded, never in the agent's way."""

import json
from ipaddress import IPv4Address
from pathlib import Path

from google.protobuf import json_format

from agent.agentevents import LOG_NAME, AgentEventLog
from hubble.agentevents import AgentEventLog as Reader
from palomar.clock import SystemClock
from palomar_pb.flow import flow_pb2


def write_all(log: AgentEventLog) -> None:
    log.agent_started()
    log.endpoint_created(7, ["k8s:app=web"], "demo", "web-1")
    log.regenerated(7, ["k8s:app=web"])
    log.regenerated(7, ["k8s:app=web"], "map is full")
    log.policy_updated(["k8s:x=y"], 3, 2)
    log.policy_deleted(["k8s:x=y"], 4, 2)
    log.ipcache_changed("10.1.0.5/32", 4242, None, IPv4Address("172.30.0.1"), "demo", "web-1", deleted=False)
    log.ipcache_changed("10.1.0.5/32", 4242, 300, None, "", "", deleted=True)
    log.endpoint_deleted(7, ["k8s:app=web"], "demo", "web-1")


def test_every_line_is_an_agent_event_of_the_flow_api(tmp_path: Path) -> None:
    log = AgentEventLog(tmp_path, SystemClock())
    write_all(log)
    found = []
    for line in log.path.read_text().splitlines():
        entry = json.loads(line)
        assert entry.pop("time_ns") > 0
        found.append(json_format.ParseDict(entry, flow_pb2.AgentEvent()))
    assert [flow_pb2.AgentEventType.Name(event.type) for event in found] == [
        "AGENT_STARTED",
        "ENDPOINT_CREATED",
        "ENDPOINT_REGENERATE_SUCCESS",
        "ENDPOINT_REGENERATE_FAILURE",
        "POLICY_UPDATED",
        "POLICY_DELETED",
        "IPCACHE_UPSERTED",
        "IPCACHE_DELETED",
        "ENDPOINT_DELETED",
    ]
    assert found[0].agent_start.time.seconds > 0
    assert (found[1].endpoint_update.id, found[1].endpoint_update.pod_name) == (7, "web-1")
    assert found[3].endpoint_regenerate.error == "map is full"
    assert (found[4].policy_update.revision, found[4].policy_update.rule_count) == (3, 2)
    assert not found[6].ipcache_update.HasField("old_identity")
    assert found[7].ipcache_update.old_identity.value == 300


def test_the_flow_servers_reader_reads_it_through_a_rotation(tmp_path: Path) -> None:
    log, reader = AgentEventLog(tmp_path, SystemClock(), max_bytes=2000), Reader(tmp_path)
    seen = 0
    for _ in range(10):
        write_all(log)
        seen += len(reader.read())
    assert seen >= 10
    assert reader.malformed == 0
    assert log.path.stat().st_size <= 2000
    assert (tmp_path / f"{LOG_NAME}.1").stat().st_size <= 2000
    assert log.written == 90


def test_a_log_that_cannot_be_written_is_counted_and_stops_nobody(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    log = AgentEventLog(tmp_path / "file", SystemClock())
    write_all(log)
    assert (log.written, log.dropped) == (0, 9)
