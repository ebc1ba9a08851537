"""One call of one node: its flows as batches of bytes, whichever of two ways it speaks.

Our own nodes send many responses a message with their times beside them (`palomar.v1.FlowBatches`):
they are checked to be whole, and handed on as they came. Any other Hubble server is asked by
`observer.Observer/GetFlows`. Not here: resuming after a break (`relay.reader`).
"""

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass
from typing import Any

import grpc
import numpy as np
from google.protobuf.message import DecodeError

from palomar_pb.observer import observer_pb2
from palomar_pb.palomar.v1 import batch_pb2
from relay.merge import Times

BATCHES_METHOD = "/palomar.v1.FlowBatches/GetFlows"
PLAIN_METHOD = "/observer.Observer/GetFlows"
NS_PER_S = 1_000_000_000
LATEST_NS = int(np.iinfo(np.int64).max)
NO_TIMES: Times = np.empty(0, np.int64)
MAX_RESPONSE_BYTES = 1 << 20
"""A larger response is no flow; a client would refuse it, and with it everything else."""


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
    malformed: int = 0
    """Responses left out: too large, or none at all."""


async def node_batches(
    channel: grpc.aio.Channel, request: observer_pb2.GetFlowsRequest, begun: Callable[[], None]
) -> AsyncGenerator[NodeBatch, None]:
    """Ask `channel` for `request`; raises grpc.aio.AioRpcError.

    `begun` is called once the node has taken up the request: of what comes from then on nothing is missed.
    """
    call: Any = channel.unary_stream(
        BATCHES_METHOD,
        request_serializer=observer_pb2.GetFlowsRequest.SerializeToString,
    )(request)
    try:
        await call.initial_metadata()
        if not call.done():
            begun()
        async for message in messages(call):
            yield from_bytes(message)
        return
    except grpc.aio.AioRpcError as error:
        if error.code() is not grpc.StatusCode.UNIMPLEMENTED:
            raise
    finally:
        call.cancel()
    async for batch in _plain_batches(channel, request, begun):
        yield batch


async def messages(call: Any) -> AsyncGenerator[bytes, None]:
    """Read `call` to its end; whoever is cancelled meanwhile cancels the call, not the read.

    gRPC frees what a read received when the read returns. One that is cancelled never does, and leaves up to
    a message behind, for ever: of every node, with every follower that goes.
    """
    while True:
        try:
            message = await asyncio.shield(call.read())
        except asyncio.CancelledError:
            call.cancel()
            raise
        if message is grpc.aio.EOF:
            return
        yield message


def from_bytes(message: bytes) -> NodeBatch:
    """Read a serialised batch; what in it is no response is left out and counted.

    One parse of the whole (0.7 us a flow) finds out whether all is well: a client that met a broken response
    would lose everything that comes with it. Where a batch lacks the times its responses are asked.
    """
    try:
        batch = batch_pb2.FlowBatchBytes.FromString(message)
    except DecodeError:
        return NodeBatch((), NO_TIMES, malformed=1)
    items = list(batch.responses)
    told = batch.times_ns if len(batch.times_ns) == 8 * len(items) else b""
    times = np.minimum(np.frombuffer(told, dtype="<u8"), np.uint64(LATEST_NS)).astype(np.int64)
    malformed = 0
    if not told or max(map(len, items)) > MAX_RESPONSE_BYTES or not _is_whole(message):
        own = [response_time_ns(item) for item in items]
        whole = [index for index, time_ns in enumerate(own) if time_ns is not None]
        times = times[whole] if told else np.array([own[index] for index in whole], np.int64)
        malformed = len(items) - len(whole)
        items = [items[index] for index in whole]
    clock_ns = min(batch.clock_ns, LATEST_NS)
    return NodeBatch(items, times, batch.observed, batch.lost, clock_ns, malformed)


def _is_whole(message: bytes) -> bool:
    try:
        batch_pb2.FlowBatch.FromString(message)
    except DecodeError:
        return False
    return True


async def _plain_batches(
    channel: grpc.aio.Channel, request: observer_pb2.GetFlowsRequest, begun: Callable[[], None]
) -> AsyncGenerator[NodeBatch, None]:
    call: Any = channel.unary_stream(
        PLAIN_METHOD, request_serializer=observer_pb2.GetFlowsRequest.SerializeToString
    )(request)
    try:
        await call.initial_metadata()
        begun()
        async for item in messages(call):
            time_ns = response_time_ns(item)
            if time_ns is None:
                yield NodeBatch((), NO_TIMES, malformed=1)
            else:
                yield NodeBatch((item,), np.array([time_ns], np.int64))
    finally:
        call.cancel()


def response_time_ns(item: bytes) -> int | None:
    """Time of a serialised response; None for what is none, or too large.

    The flow's own where the response has no time, as old servers do.
    """
    if len(item) > MAX_RESPONSE_BYTES:
        return None
    try:
        response = observer_pb2.GetFlowsResponse.FromString(item)
    except DecodeError:
        return None
    time = response.time if response.HasField("time") else response.flow.time
    return max(0, min(time.seconds * NS_PER_S + time.nanos, LATEST_NS))
