"""A flow server in this process on a real socket and a real store, and a client for it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc

from hubble.names import NamesWriter, PolicyRule
from hubble.server import FlowServer, ServerConfig
from hubble.storewriter import FlowStoreWriter
from palomar.clock import Clock, SystemClock
from palomar_pb.flow.flow_pb2 import Flow
from palomar_pb.observer import observer_pb2_grpc
from palomar_pb.observer.observer_pb2 import GetFlowsRequest, GetFlowsResponse
from palomar_pb.palomar.v1 import batch_pb2_grpc
from tests.kit.flows import FakeNames

CAPACITY = 4096


@dataclass
class Server:
    """What a test holds in its hands."""

    writer: FlowStoreWriter
    names: NamesWriter
    channel: grpc.aio.Channel
    config: ServerConfig

    @property
    def observer(self) -> Any:
        return observer_pb2_grpc.ObserverStub(self.channel)

    @property
    def batches(self) -> Any:
        return batch_pb2_grpc.FlowBatchesStub(self.channel)

    async def get(self, **request: Any) -> list[GetFlowsResponse]:
        """Every response to a GetFlowsRequest that does not follow."""
        call = self.observer.GetFlows(GetFlowsRequest(**request), timeout=20)
        return [response async for response in call]

    async def flows(self, **request: Any) -> list[Flow]:
        """The flows among them."""
        return [r.flow for r in await self.get(**request) if r.WhichOneof("response_types") == "flow"]


def write_names(names: NamesWriter, cast: FakeNames) -> None:
    """Give the references of `cast` the same numbers in a real names log."""
    for ref in sorted(cast.endpoints):
        assert names.intern(cast.endpoints[ref]) == ref
    for cookie, policies in cast.cookies.items():
        names.policy(PolicyRule(cookie, policies))
    for index, name in cast.interfaces.items():
        names.interface(index, name)
    for identity, labels in cast.labels.items():
        names.identity(identity, labels)
    names.flush()


@asynccontextmanager
async def flow_server(
    folder: Path, clock: Clock | None = None, capacity: int = CAPACITY
) -> AsyncIterator[Server]:
    """A running server over an empty store below `folder`, with the names of the cast."""
    clock = clock or SystemClock()
    config = ServerConfig(
        run_dir=str(folder / "run"),
        state_dir=str(folder / "state"),
        node_name="worker2",
        node_labels=("k8s:zone=a",),
        socket_group="",
    )
    flow_dir = config.paths.flow_dir
    writer = FlowStoreWriter.open(flow_dir, capacity, clock)
    names = NamesWriter.open(flow_dir)
    write_names(names, FakeNames())
    server = FlowServer(config, clock)
    await server.start()
    try:
        async with grpc.aio.insecure_channel(f"unix:{config.paths.hubble_socket}") as channel:
            yield Server(writer, names, channel, config)
    finally:
        await server.stop()
        names.close()
        writer.close()
