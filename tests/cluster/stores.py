"""Real stores for the contract suite (a directory; Debian's etcd on a random loopback port) and its cast."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import time
import urllib.request
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Protocol

from cluster.backend import AddressType, Event, IpEntry, NodeAddress, NodeEntry
from cluster.driver import Driver
from cluster.etcd import EtcdDriver
from cluster.filestore import FileDriver
from cluster.shared import SharedState, SharedStateConfig
from palomar.identity import NumericIdentity
from tests.kit.ports import free_port
from tests.kit.wait import eventually

LEASE_TTL_S = 2  # the shortest that etcd grants
GRACE_S = 1.5


class Store(Protocol):
    """A store that tests can start, stop and empty."""

    def driver(self) -> Driver: ...
    def start(self) -> None: ...
    def stop(self) -> None: ...
    def empty(self) -> None: ...


class FileStore:
    """A directory; "stopped" means that a plain file stands in its place."""

    def __init__(self, folder: Path) -> None:
        self.directory = folder / "store"
        self.away = folder / "away"

    def driver(self) -> FileDriver:
        return FileDriver(self.directory, poll_s=0.02)

    def start(self) -> None:
        if self.directory.is_file():
            self.directory.unlink()
            if self.away.exists():
                self.away.rename(self.directory)

    def stop(self) -> None:
        if self.directory.exists():
            self.directory.rename(self.away)
        while not self.directory.is_file():  # a node at work may make the directory anew in between
            shutil.rmtree(self.directory, ignore_errors=True)
            with contextlib.suppress(IsADirectoryError):
                self.directory.write_text("not a directory")

    def empty(self) -> None:
        shutil.rmtree(self.away, ignore_errors=True)


class EtcdStore:
    """An etcd process."""

    def __init__(self, folder: Path) -> None:
        self.data = folder / "etcd"
        self.log = folder / "etcd.log"
        self.port, self.peer_port = free_port(), free_port()
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def endpoint(self) -> str:
        return f"127.0.0.1:{self.port}"

    def driver(self) -> EtcdDriver:
        return EtcdDriver([self.endpoint], timeout_s=1.0)

    def start(self) -> None:
        if self.process is not None:
            return
        client, peer = f"http://{self.endpoint}", f"http://127.0.0.1:{self.peer_port}"
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [
                    "etcd",
                    f"--data-dir={self.data}",
                    f"--listen-client-urls={client}",
                    f"--advertise-client-urls={client}",
                    f"--listen-peer-urls={peer}",
                    f"--initial-advertise-peer-urls={peer}",
                    f"--initial-cluster=default={peer}",
                ],
                stdout=log,
                stderr=log,
                env={k: v for k, v in os.environ.items() if not k.startswith("ETCD_")},
            )
        eventually(self._is_well, timeout_s=20)

    def _is_well(self) -> bool:
        """Whether it has a leader: one that is killed before it had its first never finds one again."""
        assert self.process is not None
        assert self.process.poll() is None, self.log.read_text()
        try:
            with urllib.request.urlopen(f"http://{self.endpoint}/health", timeout=1) as answer:
                return json.load(answer) == {"health": "true"}
        except OSError:
            return False

    def signal(self, number: signal.Signals) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def stop(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def empty(self) -> None:
        assert self.process is None
        shutil.rmtree(self.data, ignore_errors=True)


class Nodes:
    """Makes nodes on a store, and stops them."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.started: list[SharedState] = []

    async def start(self, number: int, *, synced: bool = True, grace_s: float = GRACE_S) -> SharedState:
        config = SharedStateConfig(f"node-{number}", node_ip(number), LEASE_TTL_S, grace_s)
        node = SharedState(self.store.driver(), config)
        self.started.append(node)
        await node.start()
        if synced:
            assert await node.wait_synced(10), node.status()
        return node

    async def kill(self, node: SharedState) -> None:
        """End a node as kill -9 would: nothing is withdrawn, nobody renews its lease."""
        self.started.remove(node)
        await node.stop()


def node_ip(number: int) -> IPv4Address:
    return IPv4Address(f"172.30.0.{number}")


def node_entry(number: int, **changes: object) -> NodeEntry:
    entry = NodeEntry(
        name=f"node-{number}",
        cluster="default",
        addresses=(
            NodeAddress(AddressType.INTERNAL_IP, str(node_ip(number))),
            NodeAddress(AddressType.CILIUM_INTERNAL_IP, f"10.{number}.0.1"),
        ),
        ipv4_alloc_cidr=IPv4Network(f"10.{number}.0.0/24"),
        boot_id="boot",
    )
    return replace(entry, **changes)  # type: ignore[arg-type]  # tests name the fields


def pod_entry(node: int, last: int = 5, identity: int = 4242) -> IpEntry:
    return IpEntry(
        network=IPv4Network(f"10.{node}.0.{last}"),
        host_ip=node_ip(node),
        identity=NumericIdentity(identity),
        metadata=f"cilium-global:default:node-{node}:{last}",
        namespace="demo",
        pod=f"web-{last}",
    )


class Recorder:
    """Collects the events of a watch in the background."""

    def __init__(self, watch: AsyncIterator[Event[object]]) -> None:
        self.events: list[Event[object]] = []
        self._watch = watch

    async def run(self) -> None:
        async for event in self._watch:
            self.events.append(event)


@contextlib.contextmanager
def duration_under(limit_s: float) -> Iterator[None]:
    start = time.monotonic()
    yield
    assert time.monotonic() - start < limit_s
