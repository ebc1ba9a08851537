"""The batched flow stream: observer.Observer/GetFlows with up to 512 flows a message.

What our own parts use between each other: a gRPC message per flow costs a hundred times what the flow
does. Same request, order and responses; besides, each message says how many events were stored and lost,
what time it is here, and the time of each response, so that a relay need not parse them.
"""

import numpy as np

from hubble.observer import Context, ObserverService
from hubble.responsetimes import Times, response_times
from hubble.store import FlowStoreReader
from hubble.wirebytes import delimited, number, tag, varint
from palomar.clock import Clock
from palomar_pb.observer import observer_pb2
from palomar_pb.palomar.v1 import batch_pb2

_FIELDS = batch_pb2.FlowBatch.DESCRIPTOR.fields_by_name
_FIXED64 = 1
"""Wire type."""
RESPONSES = tag(_FIELDS["responses"].number, delimited=True)
OBSERVED = tag(_FIELDS["observed"].number, delimited=False)
LOST = tag(_FIELDS["lost"].number, delimited=False)
TIMES = tag(_FIELDS["times_ns"].number, delimited=True)
CLOCK = varint(_FIELDS["clock_ns"].number << 3 | _FIXED64)


class FlowBatchesService:
    """Answers palomar.v1.FlowBatches; hands out bytes that are serialised already."""

    def __init__(self, observer: ObserverService, clock: Clock) -> None:
        """Share the observer's store and errors."""
        self._observer = observer
        self._clock = clock

    async def GetFlows(self, request: observer_pb2.GetFlowsRequest, context: Context) -> None:  # noqa: N802  # gRPC method name
        """Stream batches; a follower also gets empty ones that carry counters and clock alone."""
        async with self._observer.call(context):
            stream = self._observer.stream(request)
            await self._observer.greet(context)
            async for responses in stream.batches():
                observed, lost = counters(stream.store)
                await context.write(encode_batch(responses, observed, lost, self._clock.wall_ns()))


def counters(store: FlowStoreReader) -> tuple[int, int]:
    """Events stored and events lost, over all CPUs."""
    accounts = store.accounting()
    return sum(account.stored for account in accounts), sum(account.lost for account in accounts)


def encode_batch(responses: list[bytes], observed: int, lost: int, clock_ns: int) -> bytes:
    """A serialised FlowBatch of serialised responses."""
    parts = [delimited(RESPONSES, response) for response in responses]
    times = delimited(TIMES, _packed(response_times(responses))) if responses else b""
    clock = CLOCK + clock_ns.to_bytes(8, "little")
    return b"".join((*parts, number(OBSERVED, observed), number(LOST, lost), times, clock))


def _packed(times: Times) -> bytes:
    return times.astype(np.dtype("<u8")).tobytes()
