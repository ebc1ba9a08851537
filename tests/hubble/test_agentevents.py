"""The agent's event log: lines become events, rotation loses none, garbage is skipped."""

import json
from pathlib import Path

import pytest
from google.protobuf.wrappers_pb2 import UInt32Value

from hubble.agentevents import LOG_NAME, AgentEventLog, LoggedEvent, parse_line, select
from palomar_pb.flow import flow_pb2


def line(time_ns: int, endpoint: int = 1) -> str:
    return (
        json.dumps({"time_ns": time_ns, "type": "ENDPOINT_DELETED", "endpoint_update": {"id": endpoint}})
        + "\n"
    )


def times(events: list[LoggedEvent]) -> list[int]:
    return [event.time_ns for event in events]


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        (
            {
                "type": "POLICY_UPDATED",
                "policy_update": {"labels": ["k8s:a=b"], "revision": "7", "ruleCount": "2"},
            },
            flow_pb2.AgentEvent(
                type=flow_pb2.POLICY_UPDATED,
                policy_update=flow_pb2.PolicyUpdateNotification(labels=["k8s:a=b"], revision=7, rule_count=2),
            ),
        ),
        (
            {"type": "IPCACHE_UPSERTED", "ipcache_update": {"cidr": "10.0.0.1/32", "oldIdentity": 3}},
            flow_pb2.AgentEvent(
                type=flow_pb2.IPCACHE_UPSERTED,
                ipcache_update=flow_pb2.IPCacheNotification(
                    cidr="10.0.0.1/32", old_identity=UInt32Value(value=3)
                ),
            ),
        ),
        ({"type": "AGENT_STARTED"}, flow_pb2.AgentEvent(type=flow_pb2.AGENT_STARTED)),
    ],
)
def test_a_line_is_an_event(entry: dict[str, object], expected: flow_pb2.AgentEvent) -> None:
    """In protobuf's JSON, with the time beside it."""
    text = json.dumps({"time_ns": 5, **entry}).encode()
    assert parse_line(text) == LoggedEvent(5, expected)


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"{",
        b"[]",
        b"7",
        b"{}",
        b'{"time_ns": "x"}',
        b'{"time_ns": 1, "type": "NO_SUCH"}',
        b'{"time_ns": 1, "x": 2}',
    ],
)
def test_what_is_not_an_event_is_none(text: bytes) -> None:
    """Never an exception: it would end a client's stream."""
    assert parse_line(text) is None


def test_the_log_is_read_as_it_grows(tmp_path: Path) -> None:
    """A half-written last line waits for its end; garbage is counted."""
    log = AgentEventLog(tmp_path)
    assert log.read() == []
    path = tmp_path / LOG_NAME
    with path.open("a") as file:
        file.write(line(1) + line(2) + line(3)[:10])
        file.flush()
        assert times(log.read()) == [1, 2]
        file.write(line(3)[10:] + "garbage\n" + line(4))
    assert times(log.read()) == [3, 4]
    assert log.malformed == 1
    assert log.read() == []


def test_a_rotated_log_is_read_to_its_end(tmp_path: Path) -> None:
    """Neither twice nor in part; a newcomer reads both files."""
    path, rotated = tmp_path / LOG_NAME, tmp_path / f"{LOG_NAME}.1"
    log = AgentEventLog(tmp_path)
    path.write_text(line(1))
    assert times(log.read()) == [1]
    with path.open("a") as file:
        file.write(line(2))
    path.rename(rotated)
    path.write_text(line(3))
    assert times(log.read()) == [2, 3]
    assert times(AgentEventLog(tmp_path).read()) == [1, 2, 3]


def test_a_follower_that_missed_a_rotation_reads_the_rotated_log(tmp_path: Path) -> None:
    """Two rotations between two looks: what is still there is told."""
    path, rotated = tmp_path / LOG_NAME, tmp_path / f"{LOG_NAME}.1"
    log = AgentEventLog(tmp_path)
    path.write_text(line(1))
    log.read()
    path.rename(tmp_path / "kept-so-that-its-inode-is-not-given-again")
    rotated.write_text(line(2))
    path.write_text(line(3))
    assert times(log.read()) == [2, 3]


def test_a_truncated_log_is_read_anew(tmp_path: Path) -> None:
    """Someone emptied it by hand."""
    path = tmp_path / LOG_NAME
    log = AgentEventLog(tmp_path)
    path.write_text(line(1) + line(2))
    log.read()
    path.write_text(line(3))
    assert times(log.read()) == [3]


@pytest.mark.parametrize(
    ("number", "first", "since", "until", "expected"),
    [
        (0, False, 0, 99, [1, 2, 3, 4]),
        (2, False, 0, 99, [3, 4]),
        (2, True, 0, 99, [1, 2]),
        (2, True, 2, 99, [2, 3]),
        (0, False, 2, 3, [2, 3]),
        (9, False, 0, 99, [1, 2, 3, 4]),
    ],
)
def test_selectors(number: int, first: bool, since: int, until: int, expected: list[int]) -> None:
    """The newest unless `first` is set, within the time range, oldest first."""
    events = [LoggedEvent(n, flow_pb2.AgentEvent()) for n in (1, 2, 3, 4)]
    assert times(select(events, number, first, since, until)) == expected
