"""Responses that go to a client together, and what they are in a batched message: encoded once for all.

Pure. Input: serialised GetFlowsResponses, oldest first; output: the same, and the fields of a FlowBatch that
do not depend on whom and when it is sent to. Several clients may be told the same object.
"""

from collections.abc import Iterator, Sequence
from functools import cached_property

import numpy as np

from hubble.responsetimes import response_times
from hubble.wirebytes import delimited, tag
from palomar_pb.palomar.v1 import batch_pb2

_FIELDS = batch_pb2.FlowBatch.DESCRIPTOR.fields_by_name
RESPONSES = tag(_FIELDS["responses"].number, delimited=True)
TIMES = tag(_FIELDS["times_ns"].number, delimited=True)


class Responses:
    """Consecutive responses, maybe none; they do not change."""

    def __init__(self, items: Sequence[bytes] = ()) -> None:
        """`items` are serialised GetFlowsResponses."""
        self._items = items

    def __len__(self) -> int:
        return len(self._items)

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._items)

    @cached_property
    def fields(self) -> bytes:
        """The responses and their times as fields of a serialised FlowBatch."""
        return encode_responses(self._items)


def encode_responses(items: Sequence[bytes]) -> bytes:
    """The fields `responses` and `times_ns` of a serialised FlowBatch."""
    if not items:
        return b""
    parts = [delimited(RESPONSES, response) for response in items]
    times = response_times(items).astype(np.dtype("<u8")).tobytes()
    return b"".join((*parts, delimited(TIMES, times)))
