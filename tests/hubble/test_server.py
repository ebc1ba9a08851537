"""The flow server as a process: its socket, its start without a store, its end."""

import json
import os
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from hubble.names import NamesWriter
from hubble.server import ServerConfig, main
from hubble.storewriter import FlowStoreWriter
from palomar.clock import SystemClock
from palomar.errors import InvalidInputError
from palomar_pb.observer import observer_pb2, observer_pb2_grpc
from palomar_pb.observer.observer_pb2 import GetFlowsRequest
from tests.kit.flows import FakeNames, record, stored
from tests.kit.flowserver import write_names
from tests.kit.wait import eventually

ROOT = Path(__file__).parents[2]
ENVIRONMENT = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'proto'}"}


def config(folder: Path, **values: Any) -> ServerConfig:
    return ServerConfig(
        run_dir=str(folder / "run"),
        state_dir=str(folder / "state"),
        node_name="one",
        socket_group="no-such-group",
        **values,
    )


def argv(settings: ServerConfig) -> list[str]:
    return [sys.executable, "-m", "hubble.server", "--config-json", settings.to_json()]


@contextmanager
def process(settings: ServerConfig) -> Iterator[subprocess.Popen[str]]:
    running = subprocess.Popen(argv(settings), env=ENVIRONMENT, stderr=subprocess.PIPE, text=True)
    try:
        eventually(settings.paths.hubble_socket.exists, timeout_s=20)
        yield running
    finally:
        running.kill()
        running.communicate()


def health(channel: grpc.Channel) -> int:
    stub = health_pb2_grpc.HealthStub(channel)
    return int(stub.Check(health_pb2.HealthCheckRequest(), timeout=5, wait_for_ready=True).status)


def test_a_process_from_start_to_end(tmp_path: Path) -> None:
    """It waits for the store, answers, and on SIGTERM ends calls, removes the socket and exits 0."""
    settings = config(tmp_path)
    paths = settings.paths
    with process(settings) as running, grpc.insecure_channel(f"unix:{paths.hubble_socket}") as channel:
        assert stat.S_IMODE(paths.hubble_socket.stat().st_mode) == 0o660
        observer: Any = observer_pb2_grpc.ObserverStub(channel)
        assert health(channel) == health_pb2.HealthCheckResponse.NOT_SERVING
        with pytest.raises(grpc.RpcError) as caught:
            observer.ServerStatus(observer_pb2.ServerStatusRequest(), timeout=5)
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        assert "ingest" in caught.value.details()

        writer = FlowStoreWriter.open(paths.flow_dir, 128, SystemClock())
        names = NamesWriter.open(paths.flow_dir)
        write_names(names, FakeNames())
        writer.append(stored(record(), record(sport=2)))
        eventually(lambda: health(channel) == health_pb2.HealthCheckResponse.SERVING)
        flows = [r.flow for r in observer.GetFlows(GetFlowsRequest(number=1), timeout=5)]
        assert [(f.node_name, f.l4.TCP.source_port, f.source.namespace) for f in flows] == [
            ("default/one", 2, "default")
        ]

        follower = observer.GetFlows(GetFlowsRequest(follow=True, number=1), timeout=30)
        assert next(follower).flow.l4.TCP.source_port == 2
        running.send_signal(signal.SIGTERM)
        with pytest.raises(grpc.RpcError):
            next(follower)
        assert running.wait(10) == 0
        assert not paths.hubble_socket.exists()
        assert running.stderr is not None
        assert "no-such-group" in running.stderr.read()
        names.close()
        writer.close()


def test_a_socket_left_behind_does_not_hinder_the_next_start(tmp_path: Path) -> None:
    """After kill -9 the file is still there."""
    settings = config(tmp_path)
    with process(settings) as first:
        first.kill()
        first.wait()
        assert settings.paths.hubble_socket.exists()
    with process(settings), grpc.insecure_channel(f"unix:{settings.paths.hubble_socket}") as channel:
        assert health(channel) == health_pb2.HealthCheckResponse.NOT_SERVING


def test_it_dies_with_the_process_that_started_it(tmp_path: Path) -> None:
    """The agent may be killed at any time; nobody else would stop its children."""
    settings = config(tmp_path)
    code = (
        "import subprocess, sys\n"
        "child = subprocess.Popen(sys.argv[1:], stderr=subprocess.DEVNULL)\n"
        "print(child.pid, flush=True)\n"
        "child.wait()\n"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", code, *argv(settings)], env=ENVIRONMENT, stdout=subprocess.PIPE, text=True
    )
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    try:
        eventually(settings.paths.hubble_socket.exists, timeout_s=20)
        parent.kill()
        parent.wait()
        eventually(lambda: not Path(f"/proc/{child}").exists() or _is_zombie(child))
        assert not settings.paths.hubble_socket.exists()
    finally:
        parent.kill()
        parent.communicate()


def _is_zombie(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"


def test_it_does_not_start_for_a_parent_that_is_gone(tmp_path: Path) -> None:
    """Between fork and prctl the agent may have died."""
    settings = config(tmp_path, parent_pid=1 << 22)
    done = subprocess.run(argv(settings), env=ENVIRONMENT, timeout=20, check=False)
    assert done.returncode == 0
    assert not settings.paths.hubble_socket.exists()


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("{", "config-json"),
        ("[]", "config-json"),
        ('{"run_dir": "/x", "state_dir": "/y"}', "node_name"),
        ('{"run_dir": "/x", "state_dir": "/y", "node_name": ""}', "node_name"),
        ('{"run_dir": 3, "state_dir": "/y", "node_name": "n"}', "run_dir"),
        ('{"run_dir": "/x", "state_dir": "/y", "node_name": "n", "node_label": []}', "node_label"),
        ('{"run_dir": "/x", "state_dir": "/y", "node_name": "n", "node_labels": "a=b"}', "node_labels"),
        ('{"run_dir": "/x", "state_dir": "/y", "node_name": "n", "parent_pid": true}', "parent_pid"),
    ],
)
def test_an_unusable_configuration_is_named(text: str, path: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Status 2 and the key."""
    with pytest.raises(InvalidInputError) as caught:
        ServerConfig.parse(text)
    assert caught.value.path == path
    assert main(["--config-json", text]) == 2
    assert path in capsys.readouterr().err


def test_a_configuration_survives_the_way_through_json() -> None:
    """What the agent writes is what the process reads."""
    settings = ServerConfig("/run/p", "/var/p", "n", node_labels=("k8s:a=b",), parent_pid=7)
    assert ServerConfig.parse(settings.to_json()) == settings
    assert json.loads(settings.to_json())["cluster_name"] == "default"
