"""Keys of rows: every event of the vocabulary has a key of its own, and gives its kind back."""

from itertools import product

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from hubble.flowbatch import pack_kinds, unpack_kind
from hubble.flowmessages import Kind
from palomar.drop import DropReason
from palomar.verdict import EventType, PolicyMatchType, TraceReason, TrafficDirection, Verdict

OCTET = st.integers(0, 255)
KINDS = st.builds(
    Kind,
    type=OCTET,
    subtype=OCTET,
    verdict=st.sampled_from([int(verdict) for verdict in Verdict]),
    direction=st.sampled_from([int(direction) for direction in TrafficDirection]),
    drop_reason=st.sampled_from([0, *map(int, DropReason)]),
    trace_reason=st.sampled_from([int(reason) for reason in TraceReason]),
    match_type=st.sampled_from([int(match) for match in PolicyMatchType]),
    protocol=OCTET,
    l4_flags=OCTET,
    icmp_code=OCTET,
    ip_version=st.sampled_from([0, 4, 6]),
)


def packed(*kinds: Kind) -> list[int]:
    names = Kind.__dataclass_fields__
    return pack_kinds(
        {name: np.array([getattr(kind, name) for kind in kinds], dtype=np.uint8) for name in names}
    ).tolist()


@given(st.lists(KINDS, min_size=1, max_size=20))
def test_a_kind_comes_back_as_it_was_packed(kinds: list[Kind]) -> None:
    """Whatever the other fields hold, none spills into its neighbour."""
    assert [unpack_kind(key) for key in packed(*kinds)] == kinds


def test_every_event_type_has_its_own_key() -> None:
    """L7 (129) and agent (130) are not taken for drop and debug."""
    kinds = [Kind(kind, 0, verdict, 0, 0, 0, 0, 6, 2, 0, 4) for kind, verdict in product(EventType, Verdict)]
    assert len(set(packed(*kinds))) == len(EventType) * len(Verdict)


def test_the_mark_of_an_encrypted_trace_is_left_out() -> None:
    """A trace reason of 0x82 is a reply like 2."""
    plain, marked = (Kind(4, 0, 1, 1, 0, reason, 0, 6, 16, 0, 4) for reason in (2, 0x82))
    assert packed(plain) == packed(marked)
    assert unpack_kind(packed(marked)[0]) == plain
