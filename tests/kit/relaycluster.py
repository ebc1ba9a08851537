"""Nodes and a relay in this process: real flow servers over real stores, real mutual TLS on loopback."""

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import grpc

from hubble.names import NamesWriter
from hubble.server import PEERS_FILE, FlowServer, ServerConfig
from hubble.storewriter import FlowStoreWriter
from palomar import certs
from palomar.certdir import CertDirectory
from palomar.certs import RELAY_SERVER_NAME, Role, node_server_name
from palomar.clock import Clock, SystemClock
from palomar.tls import TlsFiles, channel_credentials, verify_name_option
from palomar_pb.observer import observer_pb2_grpc
from palomar_pb.observer.observer_pb2 import GetFlowsRequest, GetFlowsResponse
from palomar_pb.palomar.v1 import batch_pb2_grpc
from relay.config import RelayConfig
from relay.discovery import PeerService
from relay.main import Relay
from relay.peers import Peer, PeerState
from tests.kit.flows import FakeNames, record, stored
from tests.kit.flowserver import write_names
from tests.kit.ports import free_port
from tests.kit.wait import eventually_async

NS_PER_S = 1_000_000_000


class ShiftedClock(SystemClock):
    """The machine's clock, `offset_ns` off."""

    def __init__(self, offset_ns: int = 0) -> None:
        self.offset_ns = offset_ns

    def wall_ns(self) -> int:
        return super().wall_ns() + self.offset_ns


class Certificates:
    """One CA and everybody's certificates, in a directory."""

    def __init__(self, folder: Path) -> None:
        self.directory = CertDirectory(folder)
        self.directory.init(self.now)

    @property
    def now(self) -> Any:
        return certs.utc(SystemClock().wall_ns())

    def issue(self, role: Role, name: str, **options: Any) -> TlsFiles:
        return self.directory.issue(role, name, self.now, **options)

    def spoil(self, files: TlsFiles, role: Role, name: str, **options: Any) -> None:
        """Replace a certificate by one made with odd options of `certs.issue`, e.g. `not_before`."""
        pair = certs.issue(options.pop("ca", self.directory.ca()), role, name, self.now, **options)
        files.key.write_bytes(pair.key)
        files.cert.write_bytes(pair.cert)


@dataclass
class Node:
    """A node: its store, and its flow server, which may be stopped and started again."""

    name: str
    folder: Path
    tls: TlsFiles
    clock: Clock
    capacity: int = 65_536
    port: int = field(default_factory=free_port)
    """Its own also while the server is stopped."""
    server: FlowServer | None = None
    sent: int = 0
    peers_file: Path = field(init=False)

    def __post_init__(self) -> None:
        config = self.config
        self.peers_file = config.paths.run_dir / PEERS_FILE
        config.paths.run_dir.mkdir(parents=True, exist_ok=True)
        self.writer = FlowStoreWriter.open(config.paths.flow_dir, self.capacity, self.clock)
        self.names = NamesWriter.open(config.paths.flow_dir)
        write_names(self.names, FakeNames())

    @property
    def config(self) -> ServerConfig:
        return ServerConfig(
            run_dir=str(self.folder / "run"),
            state_dir=str(self.folder / "state"),
            node_name=self.name,
            socket_group="",
            listen_address=f"127.0.0.1:{self.port}",
            tls_cert_file=str(self.tls.cert),
            tls_key_file=str(self.tls.key),
            tls_ca_file=str(self.tls.ca),
        )

    @property
    def full_name(self) -> str:
        return f"default/{self.name}"

    @property
    def server_name(self) -> str:
        return node_server_name(self.name)

    @property
    def peer(self) -> Peer:
        return Peer(self.full_name, f"127.0.0.1:{self.port}", self.server_name)

    async def start(self) -> Self:
        self.server = FlowServer(self.config, self.clock)
        await self.server.start()
        server = self.server
        await eventually_async(lambda: server.tcp_port)
        return self

    async def stop(self) -> None:
        if self.server is not None:
            server, self.server = self.server, None
            await server.stop()

    def emit(self, count: int = 1, **values: Any) -> list[int]:
        """Store flows of now; their source ports are their numbers on this node, which are returned."""
        now = self.clock.wall_ns()
        numbers = list(range(self.sent, self.sent + count))
        rows = stored(
            *(
                record(**{"time_ns": now + i, "sport": n % 65536, "seq": n, **values})
                for i, n in enumerate(numbers)
            )
        )
        self.writer.append(rows)
        self.sent += count
        return numbers

    def close(self) -> None:
        self.names.close()
        self.writer.close()


def write_peers(path: Path, nodes: Iterable[Node]) -> None:
    """What the agent writes."""
    entries = [
        {"name": node.full_name, "address": node.peer.address, "server_name": node.server_name}
        for node in nodes
    ]
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(entries))
    partial.replace(path)


def client_channel(port: int, tls: TlsFiles) -> grpc.aio.Channel:
    """A client's channel to the relay on `port` of this machine: a connection of its own, any message."""
    options = [
        verify_name_option(RELAY_SERVER_NAME),
        ("grpc.use_local_subchannel_pool", 1),
        ("grpc.max_receive_message_length", -1),
    ]
    return grpc.aio.secure_channel(f"127.0.0.1:{port}", channel_credentials(tls), options=options)


@dataclass
class Cluster:
    """What a test holds in its hands."""

    folder: Path
    certificates: Certificates
    nodes: list[Node]
    relay: Relay
    client: TlsFiles

    def channel(self, tls: TlsFiles | None = None) -> grpc.aio.Channel:
        """A client's channel to the relay."""
        return client_channel(self.relay.server.port, tls or self.client)

    async def connected(self, *names: str) -> None:
        """Wait until these nodes (all, without names) are connected."""
        wanted = {f"default/{name}" for name in names} or {node.full_name for node in self.nodes}
        pool = self.relay.pool

        def are() -> bool:
            return wanted <= {e.peer.name for e in pool.entries() if e.state is PeerState.CONNECTED}

        await eventually_async(are, timeout_s=20)

    def state(self, name: str) -> PeerState:
        entry = self.relay.pool.get(f"default/{name}")
        return PeerState.GONE if entry is None else entry.state

    def reason(self, name: str) -> str:
        entry = self.relay.pool.get(f"default/{name}")
        return "" if entry is None else entry.reason


@asynccontextmanager
async def cluster(
    folder: Path, count: int = 3, *, announced: bool = False, capacity: int = 4096, **config: Any
) -> AsyncIterator[Cluster]:
    """`count` nodes and a relay that knows them by list, or by the first one's announcements."""
    certificates = Certificates(folder / "certs")
    nodes: list[Node] = []
    relay: Relay | None = None
    try:
        for number in range(1, count + 1):
            name = f"n{number}"
            tls = certificates.issue(Role.AGENT, name)
            nodes.append(Node(name, folder / name, tls, ShiftedClock(), capacity))
            await nodes[-1].start()
        settings: dict[str, Any] = {
            "listen": "127.0.0.1:0",
            "tls": certificates.issue(Role.RELAY, "relay"),
            "peers": () if announced else tuple(node.peer for node in nodes),
            **config,
        }
        if announced:
            write_peers(nodes[0].peers_file, nodes)
            settings["peer_service"] = PeerService(f"unix:{nodes[0].config.paths.hubble_socket}")
        relay = Relay(RelayConfig(**settings), SystemClock())
        await relay.start()
        running = relay
        await eventually_async(lambda: running.server.port)
        client = certificates.issue(Role.CLIENT, "someone")
        yield Cluster(folder, certificates, nodes, relay, client)
    finally:
        if relay is not None:
            await relay.stop()
        for node in nodes:
            await node.stop()
            node.close()


def flows_of(responses: Iterable[GetFlowsResponse]) -> list[tuple[str, int]]:
    """Node and number of the flows among `responses`."""
    return [
        (response.node_name.removeprefix("default/"), response.flow.l4.TCP.source_port)
        for response in responses
        if response.WhichOneof("response_types") == "flow"
    ]


async def ask(channel: grpc.aio.Channel, **request: Any) -> list[GetFlowsResponse]:
    """Every response to a request that does not follow, by the plain API."""
    stub: Any = observer_pb2_grpc.ObserverStub(channel)
    return [response async for response in stub.GetFlows(GetFlowsRequest(**request), timeout=30)]


class Follower:
    """Follows a relay by the batched stream and keeps what comes."""

    def __init__(self, channel: grpc.aio.Channel, **request: Any) -> None:
        stub: Any = batch_pb2_grpc.FlowBatchesStub(channel)
        self._call = stub.GetFlows(GetFlowsRequest(follow=True, **request))
        self.responses: list[GetFlowsResponse] = []
        self.task: Any = None

    async def run(self) -> None:
        async for batch in self._call:
            self.responses.extend(batch.responses)

    def flows(self) -> list[tuple[str, int]]:
        return flows_of(self.responses)

    def states(self) -> list[tuple[int, tuple[str, ...], str]]:
        """Node status events."""
        return [
            (r.node_status.state_change, tuple(r.node_status.node_names), r.node_status.message)
            for r in self.responses
            if r.WhichOneof("response_types") == "node_status"
        ]

    def forget_flows(self, expected: Counter[tuple[str, int]]) -> None:
        """Check what has come against `expected`, then drop both."""
        assert Counter(self.flows()) == expected
        self.responses.clear()
        expected.clear()

    def cancel(self) -> None:
        self._call.cancel()


@asynccontextmanager
async def follower(channel: grpc.aio.Channel, **request: Any) -> AsyncIterator[Follower]:
    """A client that follows; it has begun when this is entered."""
    running = Follower(channel, **request)
    running.task = asyncio.get_running_loop().create_task(running.run())
    try:
        await eventually_async(lambda: running.responses)
        yield running
    finally:
        running.cancel()
        await asyncio.gather(running.task, return_exceptions=True)


async def nodes_are_followed(running: Cluster) -> None:
    """Check that a client hears every new flow of the cluster's nodes, whatever else the relay knows."""
    names = {node.name for node in running.nodes}
    async with running.channel() as channel, follower(channel) as seen:
        expected = Counter((n.name, number) for n in running.nodes for number in n.emit(3))
        await eventually_async(lambda: Counter(flow for flow in seen.flows() if flow[0] in names) == expected)
        assert not seen.task.done()
