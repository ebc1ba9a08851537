"""`observe --follow` that outlives its server: no flow is missing for that, and none is shown twice.

Not for ranges without `--follow`. Input: a way to dial and a request; output: batches as `cli.flowstream`
yields them. The loop is `cli.resume`, what was shown already `cli.seen`.
"""

import time
from collections.abc import Callable, Iterator

import grpc

from cli.flowstream import Batch, stream
from cli.resume import Dial, Say, resume
from cli.seen import Seen, flow_key
from palomar.clock import Clock, SystemClock
from palomar_pb.observer import observer_pb2


def follow(
    dial: Dial,
    request: observer_pb2.GetFlowsRequest,
    say: Say,
    clock: Clock | None = None,
    sleep: Callable[[float], None] = time.sleep,
) -> Iterator[Batch]:
    """Yield the batches of `request` (one that follows), across as many connections as it takes.

    Ends where the server has sent all up to `until`; raises as `cli.resume.resume` does.
    """
    real_clock = clock or SystemClock()
    seen = Seen(request, flow_key, real_clock.wall_ns())

    def ask(channel: grpc.Channel, begun: Callable[[], None]) -> Iterator[Batch]:
        for batch in stream(channel, seen.request(), begun):
            yield Batch(seen.only_new(batch.responses), batch.observed, batch.lost)

    def is_over() -> bool:
        return request.HasField("until") and real_clock.wall_ns() >= request.until.ToNanoseconds()

    return resume(dial, ask, say, is_over=is_over, clock=real_clock, sleep=sleep)
