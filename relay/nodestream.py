"""One call of one node: its flows as batches of bytes, whichever of two ways it speaks.

Our own nodes send many responses a message with their times beside them (`palomar.v1.FlowBatches`):
nothing is parsed here. Any other Hubble server is asked by `observer.Observer/GetFlows`. Not here:
resuming after a break (`relay.reader`).
"""

from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass
from typing import Any

import grpc
import numpy as np

from palomar_pb.observer import observer_pb2
from palomar_pb.palomar.v1 import batch_pb2
from relay.merge import Times

BATCHES_METHOD = "/palomar.v1.FlowBatches/GetFlows"
PLAIN_METHOD = "/observer.Observer/GetFlows"
NS_PER_S = 1_000_000_000
LATEST_NS = int(np.iinfo(np.int64).max)


@dataclass(frozen=True, slots=True)
class NodeBatch:
    """Consecutive responses of a node, maybe none."""

    items: Sequence[bytes]
    """Serialised GetFlowsResponses."""
    times: Times
    """Of the items, ns since the epoch as the node tells it."""
    observed: int = 0
    lost: int = 0
    """The node's counters; both 0: not told."""
    clock_ns: int = 0
    """The node's wall clock; 0: not told."""


async def node_batches(
    channel: grpc.aio.Channel, request: observer_pb2.GetFlowsRequest, begun: Callable[[], None]
) -> AsyncGenerator[NodeBatch, None]:
    """Ask `channel` for `request`; raises grpc.aio.AioRpcError.

    `begun` is called once the node has taken up the request: of what comes from then on nothing is missed.
    """
    call: Any = channel.unary_stream(
        BATCHES_METHOD,
        request_serializer=observer_pb2.GetFlowsRequest.SerializeToString,
        response_deserializer=batch_pb2.FlowBatchBytes.FromString,
    )(request)
    try:
        await call.initial_metadata()
        if not call.done():
            begun()
        async for message in call:
            yield from_message(message)
        return
    except grpc.aio.AioRpcError as error:
        if error.code() is not grpc.StatusCode.UNIMPLEMENTED:
            raise
    finally:
        call.cancel()
    async for batch in _plain_batches(channel, request, begun):
        yield batch


def from_message(message: batch_pb2.FlowBatchBytes) -> NodeBatch:
    """Read a batch; the times of one that lacks them are taken from its responses."""
    items = list(message.responses)
    if len(message.times_ns) == 8 * len(items):
        told = np.frombuffer(message.times_ns, dtype="<u8")
        times = np.minimum(told, np.uint64(LATEST_NS)).astype(np.int64)
    else:
        times = np.fromiter(map(response_time_ns, items), np.int64, len(items))
    return NodeBatch(items, times, message.observed, message.lost, message.clock_ns)


async def _plain_batches(
    channel: grpc.aio.Channel, request: observer_pb2.GetFlowsRequest, begun: Callable[[], None]
) -> AsyncGenerator[NodeBatch, None]:
    call: Any = channel.unary_stream(
        PLAIN_METHOD, request_serializer=observer_pb2.GetFlowsRequest.SerializeToString
    )(request)
    try:
        await call.initial_metadata()
        begun()
        async for item in call:
            yield NodeBatch((item,), np.array([response_time_ns(item)], np.int64))
    finally:
        call.cancel()


def response_time_ns(item: bytes) -> int:
    """Time of a serialised response; the flow's own where the response has none, as old servers do."""
    response = observer_pb2.GetFlowsResponse.FromString(item)
    time = response.time if response.HasField("time") else response.flow.time
    return max(0, min(time.seconds * NS_PER_S + time.nanos, LATEST_NS))
