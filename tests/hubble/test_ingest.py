"""The ingest process: real rings, a real agent socket, ended in order, killed, orphaned."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from datapath import bpffs, progtest
from datapath.loader import BpfObject, u32_be
from datapath.perf import EventCounters
from hubble.errors import IngestConfigError
from hubble.ingest import IDLE_S, LOOK_S, IngestConfig, main, wait_idle
from hubble.names import NamesReader
from hubble.storereader import FlowStoreReader
from tests.kit.wait import eventually

REPO = Path(__file__).resolve().parents[2]
OBJECT = REPO / "datapath" / "objects" / "bench_emit.o"
PER_RUN = 10
SOURCE, DESTINATION = 0x0A010005, 0x0A020007
CONFIG = IngestConfig(flow_dir="/flows", globals_dir="/globals", socket="/socket")


def test_a_configuration_reads_back():
    assert IngestConfig.parse(CONFIG.to_json()) == CONFIG
    assert IngestConfig.parse(replace(CONFIG, capacity=4096).to_json()).capacity == 4096


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("nonsense", "no JSON"),
        ("[]", "object"),
        ('{"flow_dir":"/a","globals_dir":"/b"}', "socket: missing"),
        ('{"flow_dir":"/a","globals_dir":"/b","socket":"/c","colour":1}', "colour: unknown"),
        ('{"flow_dir":"/a","globals_dir":"/b","socket":"/c","capacity":"many"}', "capacity: 'many'"),
        ('{"flow_dir":7,"globals_dir":"/b","socket":"/c"}', "flow_dir: 7"),
        ('{"flow_dir":"/a","globals_dir":"/b","socket":"/c","capacity":true}', "capacity: True"),
        ('{"flow_dir":"/a","globals_dir":"/b","socket":"/c","capacity":7}', "capacity: 7"),
        ('{"flow_dir":"/a","globals_dir":"/b","socket":"/c","ring_bytes":5000}', "ring_bytes: 5000"),
    ],
)
def test_an_unusable_configuration_names_the_key(text, named):
    with pytest.raises(IngestConfigError, match=named):
        IngestConfig.parse(text)


def test_the_process_refuses_it_with_status_2(capsys):
    assert main(["--config-json", "{}"]) == 2
    assert "flow_dir: missing" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("told_at", "come_at", "waited_s"),
    [
        (None, None, IDLE_S),
        (None, 1, LOOK_S),
        (None, 3, 3 * LOOK_S),
        (1, None, LOOK_S),
        (2, 4, 2 * LOOK_S),
    ],
    ids=["nothing", "an event at once", "an event later", "the agent at once", "the agent before an event"],
)
def test_an_idle_wait_ends_with_the_first_look_that_finds_anything(told_at, come_at, waited_s):
    polled: list[float] = []

    def poll(timeout_s: float) -> list[tuple[int, int]]:
        polled.append(timeout_s)
        return [(3, 1)] if len(polled) == told_at else []

    wait_idle(poll, lambda: len(polled) == come_at)
    assert sum(polled) == pytest.approx(waited_s)


class Agent:
    """The agent's side: accepts, tells, listens."""

    def __init__(self, path: Path) -> None:
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen()
        self._listener.settimeout(10)
        self._peer: socket.socket | None = None
        self.stats: list[dict[str, Any]] = []
        self._received = b""

    def accept(self, *messages: dict[str, Any]) -> None:
        self._peer = self._listener.accept()[0]
        self._peer.settimeout(0.05)
        self.say(*messages, {"op": "synced"})

    def say(self, *messages: dict[str, Any]) -> None:
        assert self._peer is not None
        self._peer.sendall(b"".join(json.dumps(message).encode() + b"\n" for message in messages))

    def hear(self) -> list[dict[str, Any]]:
        """All stats up to now."""
        assert self._peer is not None
        try:
            while data := self._peer.recv(1 << 16):
                self._received += data
        except TimeoutError:
            pass
        *lines, self._received = self._received.split(b"\n")
        self.stats += [json.loads(line) for line in lines]
        return self.stats

    def close(self) -> None:
        if self._peer is not None:
            self._peer.close()
        self._listener.close()


@dataclass
class Node:
    """Pins, an emitter on one CPU, folders, and the ingest processes started."""

    config: IngestConfig
    cpu: int
    emit: Callable[[int], object]
    agent: Agent
    children: list[subprocess.Popen[bytes]]

    def start(self, **changes: Any) -> subprocess.Popen[bytes]:
        config = replace(self.config, parent_pid=os.getpid(), **changes)
        child = subprocess.Popen(
            [sys.executable, "-m", "hubble.ingest", "--config-json", config.to_json()], cwd=REPO
        )
        self.children.append(child)
        return child

    @property
    def flow_dir(self) -> Path:
        return Path(self.config.flow_dir)

    def account(self):
        return FlowStoreReader.open(self.flow_dir).accounting()[self.cpu]

    def kernel(self) -> list[int]:
        counters = EventCounters(Path(self.config.globals_dir) / "palomar_event_stats")
        values: list[int] = counters.read()[self.cpu].tolist()
        counters.close()
        return values


@pytest.fixture
def node(tmp_path) -> Iterator[Node]:
    root = Path(f"/sys/fs/bpf/plt-{os.getpid()}-ingest")
    bpffs.ensure_mounted(root)
    before = os.sched_getaffinity(0)
    cpu = min(before)
    agent = Agent(tmp_path / "ingest.sock")
    made: Node | None = None
    try:
        with BpfObject(OBJECT, root) as emitter:
            emitter.set_constants(
                {
                    "bench_events": PER_RUN,
                    "bench_src_ipv4": u32_be(SOURCE),
                    "bench_dst_ipv4": u32_be(DESTINATION),
                }
            )
            emitter.load()
            program = emitter.program_fd("bench_emit")

            def emit(count: int) -> None:
                os.sched_setaffinity(0, {cpu})
                progtest.run(program, bytes(64), repeat=count // PER_RUN)
                os.sched_setaffinity(0, before)

            config = IngestConfig(
                flow_dir=str(tmp_path / "flows"),
                globals_dir=str(root),
                socket=str(tmp_path / "ingest.sock"),
                capacity=4096,
                ring_bytes=1 << 16,
            )
            made = Node(config, cpu, emit, agent, [])
            yield made
    finally:
        for child in made.children if made else []:
            child.kill()
            child.wait()
        agent.close()
        bpffs.remove_tree(root)


BIND = {
    "op": "bind",
    "ip": "10.1.0.5",
    "endpoint": {"id": 12, "identity": 1000, "namespace": "demo", "pod": "web-1", "labels": ["k8s:app=web"]},
}


@pytest.mark.bpf
@pytest.mark.root
def test_events_become_named_rows_and_counters_until_sigterm(node):
    child = node.start()
    node.agent.accept(BIND, {"op": "interface", "index": 1, "name": "lo"})
    reader = eventually(lambda: opened(node), 10)
    assert os.getpriority(os.PRIO_PROCESS, child.pid) == -15
    eventually(node.agent.hear, 10)
    node.emit(200)
    assert eventually(lambda: reader.head == 200, 5)
    block, _ = reader.read(0, 200)
    assert set(block.column("cpu").tolist()) == {node.cpu}
    assert block.columns["dport"].tolist() == [80] * 200
    names = NamesReader(node.flow_dir)
    assert {names.endpoint(ref).pod for ref in set(block.columns["src_ref"].tolist())} == {"web-1"}
    assert {names.endpoint(ref).identity for ref in set(block.columns["dst_ref"].tolist())} == {1000}
    assert names.interface(1) == "lo"
    child.send_signal(signal.SIGTERM)
    assert child.wait(10) == 0
    stats = node.agent.hear()
    assert [entry["first"] for entry in stats] == [True] + [False] * (len(stats) - 1)
    last = stats[-1]
    assert (last["cpus"][node.cpu]["emitted"], last["cpus"][node.cpu]["stored"]) == (200, 200)
    assert last["cpus"][node.cpu]["lost"] == 0
    assert last["metrics"]["flows_processed"] == [["TCP", "Trace", "to-endpoint", "FORWARDED", 200]]
    assert last["metrics"]["port_distribution"] == [["TCP", "80", 200]]
    assert (last["edges"], last["store"]["head"], last["malformed_lines"]) == (1, 200, 0)


def opened(node: Node) -> FlowStoreReader | None:
    path = node.flow_dir / "flows.ring"
    return FlowStoreReader.open(node.flow_dir) if path.exists() else None


@pytest.mark.bpf
@pytest.mark.root
def test_sigterm_stores_what_is_still_in_the_rings(node):
    child = node.start(socket="")
    reader = eventually(lambda: opened(node), 10)
    eventually(lambda: attached(node), 10)
    node.emit(100)
    child.send_signal(signal.SIGTERM)
    assert child.wait(10) == 0
    emitted, failed, _ = node.kernel()
    account = node.account()
    assert (account.emitted, account.lost) == (emitted, failed)
    assert reader.head == account.stored == emitted - failed >= 110


def attached(node: Node) -> bool:
    """Emit until a ring takes it."""
    before = node.kernel()[1]
    node.emit(PER_RUN)
    return node.kernel()[1] == before


@pytest.mark.bpf
@pytest.mark.root
def test_over_a_flood_a_kill_and_a_restart_every_event_is_stored_or_lost(node):
    node.emit(50)
    child = node.start(socket="")
    reader = eventually(lambda: opened(node), 10)
    eventually(lambda: attached(node), 10)
    for _ in range(20):
        node.emit(1000)
    eventually(lambda: node.account().emitted == node.kernel()[0], 10)
    account = node.account()
    assert account.lost == node.kernel()[1] > 0
    assert account.stored == reader.head
    child.kill()
    child.wait()
    node.emit(300)
    head = reader.head
    node.start(socket="")
    eventually(lambda: attached(node), 10)
    eventually(lambda: node.account().emitted == node.kernel()[0], 10)
    account = node.account()
    assert reader.head > head
    assert account.stored == reader.head
    assert account.stored + account.lost == node.kernel()[0]
    assert account.lost == node.kernel()[1]
    assert sum(loss.count for loss in reader.losses()) <= account.lost
    assert not reader.is_replaced()


@pytest.mark.bpf
@pytest.mark.root
def test_an_agent_that_comes_back_tells_the_names_again(node):
    node.start()
    node.agent.accept()
    node.agent._peer.close()
    node.agent.accept(BIND)
    eventually(lambda: named(node), 10)


def named(node: Node) -> bool:
    """Emit, and look whether the newest row has the pod's name."""
    node.emit(PER_RUN)
    reader = FlowStoreReader.open(node.flow_dir)
    block, _ = reader.read(max(0, reader.head - 1), 1)
    if not len(block):
        return False
    endpoint = NamesReader(node.flow_dir).endpoint(int(block.columns["src_ref"][0]))
    return endpoint is not None and endpoint.pod == "web-1"


ORPHAN = """
import os, subprocess, sys
from hubble.ingest import IngestConfig
from dataclasses import replace
config = replace(IngestConfig.parse(sys.argv[1]), parent_pid=os.getpid())
child = subprocess.Popen([sys.executable, "-m", "hubble.ingest", "--config-json", config.to_json()])
print(child.pid, flush=True)
child.wait()
"""


@pytest.mark.bpf
@pytest.mark.root
def test_it_ends_with_its_parent(node):
    config = replace(node.config, socket="")
    parent = subprocess.Popen(
        [sys.executable, "-c", ORPHAN, config.to_json()], cwd=REPO, stdout=subprocess.PIPE
    )
    node.children.append(parent)
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    parent.stdout.close()
    eventually(lambda: opened(node), 10)
    eventually(lambda: attached(node), 10)
    parent.kill()
    parent.wait()
    eventually(lambda: not Path(f"/proc/{pid}").exists() or state(pid) == "Z", 10)


def state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


@pytest.mark.bpf
@pytest.mark.root
def test_it_does_not_start_for_a_parent_that_is_gone(node):
    config = replace(node.config, parent_pid=(1 << 22) - 1)
    child = subprocess.run(
        [sys.executable, "-m", "hubble.ingest", "--config-json", config.to_json()],
        cwd=REPO,
        capture_output=True,
        check=False,
        timeout=20,
    )
    assert child.returncode == 2
    assert b"is gone" in child.stderr


@pytest.mark.bpf
@pytest.mark.root
def test_missing_maps_and_a_second_ingest_end_it_with_a_reason(node):
    command = [sys.executable, "-m", "hubble.ingest", "--config-json"]
    elsewhere = replace(node.config, globals_dir="/sys/fs/bpf/plt-nowhere", socket="")
    done = subprocess.run(
        [*command, elsewhere.to_json()], cwd=REPO, capture_output=True, check=False, timeout=20
    )
    assert done.returncode == 1
    assert b"is the agent running" in done.stderr
    node.start(socket="")
    eventually(lambda: opened(node), 10)
    done = subprocess.run(
        [*command, replace(node.config, socket="").to_json()],
        cwd=REPO,
        capture_output=True,
        check=False,
        timeout=20,
    )
    assert done.returncode == 1
    assert b"another process writes" in done.stderr
