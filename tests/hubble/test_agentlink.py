"""The line to the agent: a directory of names by lines, a socket that never blocks and always comes back."""

import json
import select
import socket
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from hubble import agentlink
from hubble.agentlink import RETRY_NS, AgentLink, Directory
from hubble.binder import Binder
from hubble.flowendpoint import FlowEndpoint, Workload
from hubble.names import NamesReader, NamesWriter, PolicyName, PolicyRule
from tests.kit.events import FakeClock

WEB = {
    "id": 12,
    "identity": 4242,
    "cluster": "default",
    "namespace": "demo",
    "pod": "web-1",
    "labels": ["k8s:app=web"],
    "workloads": [{"name": "web", "kind": "Deployment"}],
}
IP, OTHER_IP = IPv4Address("10.1.0.5"), IPv4Address("10.1.0.6")


class Told:
    """A directory over a real names log and binder."""

    def __init__(self, folder: Path) -> None:
        self.names = NamesWriter.open(folder)
        self.binder = Binder(self.names.intern)
        self.directory = Directory(self.binder, self.names)
        self.folder = folder

    def say(self, **message) -> None:
        self.directory.take(json.dumps(message).encode())

    def reader(self) -> NamesReader:
        self.names.flush()
        return NamesReader(self.folder)


@pytest.fixture
def told(tmp_path):
    made = Told(tmp_path)
    yield made
    made.names.close()


def test_every_kind_of_line_reaches_its_place(told):
    told.say(op="bind", ip=str(IP), endpoint=WEB)
    told.say(op="identity", id=4242, labels=["k8s:app=web"])
    told.say(op="interface", index=7, name="lxc0123")
    told.say(op="policy", cookie=77, policies=[{"name": "allow", "namespace": "demo"}], deny=True)
    told.say(op="default_deny", endpoint_id=12, ingress=78, egress=0)
    reader = told.reader()
    assert told.binder.bound() == {IP}
    assert reader.endpoint(1) == FlowEndpoint(
        12, 4242, "default", "demo", "web-1", ("k8s:app=web",), (Workload("web", "Deployment"),)
    )
    assert reader.identity_labels(4242) == ("k8s:app=web",)
    assert reader.interface(7) == "lxc0123"
    assert reader.policy(77) == PolicyRule(77, (PolicyName("allow", "demo"),), deny=True)
    assert told.binder._default_deny[1][12] == 78
    told.say(op="unbind", ip=str(IP))
    assert told.binder.bound() == set()
    assert told.directory.malformed == 0


def test_what_a_new_connection_does_not_name_is_forgotten_at_synced_and_not_before(told):
    told.directory.begin()
    told.say(op="bind", ip=str(IP), endpoint=WEB)
    told.say(op="bind", ip=str(OTHER_IP), endpoint=WEB)
    assert not told.directory.synced
    told.say(op="synced")
    assert told.directory.synced
    told.directory.begin()
    told.say(op="bind", ip=str(IP), endpoint=WEB)
    assert told.binder.bound() == {IP, OTHER_IP}
    told.say(op="synced")
    assert told.binder.bound() == {IP}
    told.say(op="bind", ip=str(OTHER_IP), endpoint=WEB)
    told.say(op="synced")
    assert told.binder.bound() == {IP, OTHER_IP}


@pytest.mark.parametrize(
    "line",
    [
        b"nonsense",
        b"\xff\xfe",
        b"[1]",
        b'{"op":"dance"}',
        b"{}",
        b'{"op":"bind","ip":"10.1.0.300","endpoint":{}}',
        b'{"op":"bind","ip":"10.1.0.5"}',
        b'{"op":"bind","ip":"10.1.0.5","endpoint":{"labels":7}}',
        b'{"op":"identity","id":"x","labels":[]}',
        b'{"op":"default_deny","endpoint_id":1,"ingress":-1,"egress":0}',
        b'{"op":"policy","cookie":1,"policies":["x"]}',
    ],
)
def test_a_line_that_makes_no_sense_is_counted_and_changes_nothing(told, line):
    told.directory.take(line)
    assert told.directory.malformed == 1
    assert told.binder.bound() == set()
    told.say(op="bind", ip=str(IP), endpoint=WEB)
    assert told.binder.bound() == {IP}


class Agent:
    """The agent's side of the socket."""

    def __init__(self, path: Path) -> None:
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(str(path))
        self.listener.listen()
        self.peer: socket.socket | None = None

    def accept(self) -> socket.socket:
        self.listener.settimeout(5)
        self.peer = self.listener.accept()[0]
        self.peer.settimeout(5)
        return self.peer

    def close(self) -> None:
        if self.peer is not None:
            self.peer.close()
        self.listener.close()


@pytest.fixture
def linked(told, tmp_path):
    clock = FakeClock()
    epoll = select.epoll()
    link = AgentLink(tmp_path / "ingest.sock", told.directory, epoll, clock)
    yield told, link, clock, epoll, tmp_path / "ingest.sock"
    link.finish(0, lambda peer, timeout_s: False)
    epoll.close()


def test_lines_arrive_in_any_pieces(linked):
    told, link, _, epoll, path = linked
    agent = Agent(path)
    link.poll()
    peer = agent.accept()
    line = json.dumps({"op": "bind", "ip": str(IP), "endpoint": WEB}).encode() + b"\n"
    peer.sendall(line[:20])
    link.poll()
    assert told.binder.bound() == set()
    peer.sendall(line[20:] + b'{"op":"interface","index":7,')
    assert epoll.poll(1) != []
    link.poll()
    assert told.binder.bound() == {IP}
    peer.sendall(b'"name":"lxc"}\n')
    link.poll()
    assert told.reader().interface(7) == "lxc"
    agent.close()


def test_without_an_agent_it_tries_again_now_and_then(linked):
    _, link, clock, _, path = linked
    link.poll()
    assert not link.connected
    agent = Agent(path)
    link.poll()
    assert not link.connected
    clock.now_ns += RETRY_NS
    link.poll()
    assert link.connected
    agent.accept()
    agent.close()
    link.poll()
    assert not link.connected
    link.send({"op": "stats"})
    path.unlink()
    again = Agent(path)
    clock.now_ns += RETRY_NS
    link.poll()
    assert link.connected
    again.close()


def test_counters_go_up_as_lines(linked):
    _, link, _, _, path = linked
    agent = Agent(path)
    link.poll()
    peer = agent.accept()
    link.send({"op": "stats", "edges": 1})
    link.send({"op": "stats", "edges": 2})
    lines = peer.makefile("rb")
    assert [json.loads(lines.readline())["edges"] for _ in range(2)] == [1, 2]
    lines.close()
    agent.close()


def test_an_agent_that_does_not_read_is_dropped_and_never_waited_for(linked, monkeypatch):
    monkeypatch.setattr(agentlink, "MAX_UNSENT", 100_000)
    _, link, _, _, path = linked
    agent = Agent(path)
    link.poll()
    agent.accept()
    for _ in range(1000):
        link.send({"op": "stats", "padding": "x" * 10_000})
        if not link.connected:
            break
    assert not link.connected
    agent.close()


def test_the_last_line_is_sent_whole_when_the_agent_makes_room(linked):
    _, link, _, _, path = linked
    agent = Agent(path)
    link.poll()
    peer = agent.accept()
    link.send({"op": "stats", "padding": "x" * 2_000_000})
    received = bytearray()

    def drained(_: socket.socket, __: float) -> bool:
        received.extend(peer.recv(1 << 20))
        return True

    link.finish(1, drained)
    while data := peer.recv(1 << 20):
        received.extend(data)
    assert json.loads(received)["op"] == "stats"
    agent.close()


def test_a_line_without_end_drops_the_connection(linked, monkeypatch):
    monkeypatch.setattr(agentlink, "MAX_LINE", 1000)
    _, link, _, _, path = linked
    agent = Agent(path)
    link.poll()
    agent.accept().sendall(b"x" * 2000)
    link.poll()
    assert not link.connected
    agent.close()
