"""The batched flow stream: observer.Observer/GetFlows with up to 512 flows a message.

What our own parts use between each other: a gRPC message per flow costs a hundred times what the flow
does. Same request, order and responses; besides, each message says how many events were stored and lost,
what time it is here, and the time of each response, so that a relay need not parse them.
"""

from collections.abc import Sequence
from contextlib import aclosing

from hubble.observer import Context, ObserverService
from hubble.responses import encode_responses
from hubble.wirebytes import number, tag, varint
from palomar.clock import Clock
from palomar_pb.observer import observer_pb2
from palomar_pb.palomar.v1 import batch_pb2

_FIELDS = batch_pb2.FlowBatch.DESCRIPTOR.fields_by_name
_FIXED64 = 1
"""Wire type."""
OBSERVED = tag(_FIELDS["observed"].number, delimited=False)
LOST = tag(_FIELDS["lost"].number, delimited=False)
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
            async with aclosing(stream.batches()) as batches:
                async for responses in batches:
                    facts = encode_facts(*stream.counters(), self._clock.wall_ns())
                    await context.write(responses.fields + facts)


def encode_batch(responses: Sequence[bytes], observed: int, lost: int, clock_ns: int) -> bytes:
    """A serialised FlowBatch of serialised responses."""
    return encode_responses(responses) + encode_facts(observed, lost, clock_ns)


def encode_facts(observed: int, lost: int, clock_ns: int) -> bytes:
    """The fields of a serialised FlowBatch that are about its sender."""
    clock = CLOCK + clock_ns.to_bytes(8, "little")
    return b"".join((number(OBSERVED, observed), number(LOST, lost), clock))
