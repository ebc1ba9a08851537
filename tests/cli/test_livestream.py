"""What `monitor` says of the time it did not see, by the server's counters."""

import pytest

from cli.flowstream import Batch, Tally
from cli.livestream import Gap
from palomar_pb.observer import observer_pb2
from tests.cli.flowcast import SECOND_ZERO

FLOW = observer_pb2.GetFlowsResponse(node_name="n")
SEE = "; see `palomar observe --since 2026-11-21T08:00:00Z`"
CASES = [
    (Batch((), 100, 3), Batch((), 140, 3), 40, "40 events" + SEE),
    (Batch((), 100, 3), Batch((), 140, 5), 42, "40 events and 2 that the node lost" + SEE),
    (Batch((), 100, 3), Batch((FLOW,) * 4, 140, 3), 36, "36 events" + SEE),
    (Batch((), 100, 3), Batch((FLOW,), 100, 3), 0, "nothing"),
    (Batch((), 100, 3), Batch((), 100, 4), 1, "0 events and 1 that the node lost" + SEE),
    (Batch((), 100, 3), Batch((), 60, 3), 0, "not known" + SEE),
    (Batch((), 100, 3), Batch((), 160, 0), 0, "not known" + SEE),
    (Batch((FLOW,)), Batch((FLOW,)), 0, "not known" + SEE),
    (Batch((), 0, 0), Batch((), 9, 0), 0, "not known" + SEE),
    (None, Batch((), 9, 0), 0, "not known" + SEE),
]


@pytest.mark.parametrize(("before", "after", "missed", "text"), CASES)
def test_what_was_missed(before, after, missed, text):
    """Shown is not missed; counters that are not told or began anew say nothing."""
    gap = Gap()
    if before is not None:
        gap.heard(before)
    gap.open(SECOND_ZERO * 10**9 + 5)
    gap.open((SECOND_ZERO + 60) * 10**9)
    assert gap.close(after) == f"missed meanwhile: {text}"
    assert (gap.missed, gap.since_ns) == (missed, None)


def test_the_account_of_a_run_tells_what_was_missed():
    """Apart from the losses inside the answer."""
    assert Tally(flows=2, missed=42).summary() == "2 flows, 0 not seen; 42 more while the connection was lost"
