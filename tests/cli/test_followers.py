"""Commands that follow go on when the flow server is killed and started again: real processes and stores."""

import contextlib
import re
import signal
import time
from collections import deque

import grpc
import pytest

from cli.flowstream import stream
from cli.server import connect
from cli.target import TlsOptions, parse_target
from palomar_pb.observer import observer_pb2
from tests.cli.nodeserver import command, node_server
from tests.kit.wait import eventually

LOST = r"^connection lost: .*; trying again in [\d.]+ s$"
RESUMED = r"^resumed after \d+\.\d s$"


@pytest.fixture
def node(tmp_path):
    with node_server(tmp_path) as running:
        yield running


def restart(node, follower, meanwhile=lambda: None):
    """Kill the flow server, let something happen, start it again."""
    cuts = len(follower.said(LOST))
    node.kill()
    follower.says(LOST, cuts + 1)
    meanwhile()
    node.start()


def listening(node, monitor):
    """Make events until one is shown, wait for the last of them; how many are shown."""
    eventually(lambda: node.emit() or monitor.out, timeout_s=60, interval_s=0.2)
    eventually(lambda: f":{node.account.stored} ->" in monitor.out[-1], timeout_s=60)
    return len(monitor.out)


def ports(lines):
    return [int(re.search(r"client-\S+:(\d+) ", line)[1]) for line in lines]


def test_observe_shows_every_flow_once(node):
    """What was stored while nobody served it as well."""
    with command(node, "observe", "--follow", "--last", "5") as follower:
        node.emit(3)
        follower.prints(3)
        restart(node, follower, lambda: node.emit(4))
        follower.prints(7)
        restart(node, follower)
        node.emit(2)
        assert ports(follower.prints(9)) == list(range(1, 10))
        assert follower.end() == 0
    assert ports(follower.out) == list(range(1, 10))
    assert [len(follower.said(pattern)) for pattern in (LOST, RESUMED)] == [2, 2]
    assert follower.err[-1].startswith("9 flows, 0 not seen; node: observed 9 of 9 events")


def test_monitor_reopens_and_counts_what_it_missed(node):
    """The lines are of now; what came in between is counted and where to see it is said."""
    node.emit(5)
    with command(node, "monitor") as follower:
        follower.says("^Listening for events")
        before = listening(node, follower)
        restart(node, follower, lambda: node.emit(40, lost=3))
        follower.says("^missed meanwhile:")
        node.emit(2, type=1, subtype=133)
        follower.prints(before + 2)
        assert follower.end(signal.SIGTERM) == 0
    (missed,) = follower.said("^missed meanwhile:")
    assert re.fullmatch(
        r"missed meanwhile: 40 events and 3 that the node lost;"
        r" see `palomar observe --since \d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ`",
        missed,
    )
    assert len(follower.out) == before + 2
    assert all("drop" in line for line in follower.out[-2:])
    assert [re.split(r"[: ]", line)[0] for line in follower.err[:4]] == [
        "Listening",
        "connection",
        "resumed",
        "missed",
    ]
    assert f"{before + 2} flows, 0 not seen; 43 more while the connection was lost" in follower.err[-1]


def test_monitor_that_missed_nothing_says_so(node):
    """As many lines as events."""
    node.emit(1)
    with command(node, "monitor") as follower:
        follower.says("^Listening for events")
        listening(node, follower)
        restart(node, follower)
        follower.says("^missed meanwhile: nothing$")
        assert follower.end() == 0
    assert "while the connection was lost" not in follower.err[-1]


def test_watch_peers_prints_changes_only(node):
    """Nobody is added twice; who came, changed or went while nobody announced is told."""
    address = {name: f"10.0.0.{number}" for number, name in enumerate("abcde", 1)}
    cast = [("default", name, address[name]) for name in "abc"]
    node.peers.write(cast)
    with command(node, "watch", "peers") as follower:
        assert follower.prints(3) == [
            f"PEER_ADDED   10.0.0.{number}:4244 default/{name}" for number, name in enumerate("abc", 1)
        ]
        restart(node, follower)
        follower.says(RESUMED)
        changed = [("default", "b", "10.0.0.2"), ("default", "c", "10.0.9.9"), ("default", "d", "10.0.0.4")]
        restart(node, follower, lambda: node.peers.write(changed))
        assert follower.prints(6)[3:] == [
            "PEER_UPDATED 10.0.9.9:4244 default/c",
            "PEER_ADDED   10.0.0.4:4244 default/d",
            "PEER_DELETED 10.0.0.1:4244 default/a",
        ]
        node.peers.write(changed[1:])
        assert follower.prints(7)[6] == "PEER_DELETED 10.0.0.2:4244 default/b"
        assert follower.end() == 0
    assert len(follower.out) == 7
    assert [re.match(r"\w+", line)[0] for line in follower.err] == ["connection", "resumed"] * 2


def test_agent_events_resume_without_repeats(node):
    """Those of the outage are shown, none of before again."""
    log = node.agent_events
    with command(node, "observe", "agent-events", "--last", "10", "--follow") as follower:
        for number in (1, 2):
            log.policy_updated(["k8s:a=b"], number, 1)
        follower.prints(2)
        restart(node, follower, lambda: log.policy_updated(["k8s:a=b"], 3, 1))
        follower.prints(3)
        restart(node, follower)
        follower.says(RESUMED, 2)
        log.policy_updated(["k8s:a=b"], 4, 1)
        follower.prints(4)
        assert follower.end() == 0
    assert [int(re.search(r"revision: (\d+)", line)[1]) for line in follower.out] == [1, 2, 3, 4]
    assert [re.match(r"\w+", line)[0] for line in follower.err] == ["connection", "resumed"] * 2


def test_a_server_that_falls_silent_is_noticed(node):
    """Stopped as by a network that is gone: the connection stands and nobody answers a ping."""
    node.emit(1)
    target = parse_target(f"unix://{node.config.paths.hubble_socket}", TlsOptions())
    with contextlib.ExitStack() as stack:
        channel = stack.enter_context(connect(target, 20.0, silence_s=2.0))
        batches = stream(channel, observer_pb2.GetFlowsRequest(follow=True, number=1))
        assert len(next(batches).responses) == 1
        node.process.send_signal(signal.SIGSTOP)
        began = time.monotonic()
        with pytest.raises(grpc.RpcError) as caught:
            deque(batches, maxlen=0)
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    assert time.monotonic() - began < 30
