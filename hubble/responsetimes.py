"""Times of serialised GetFlowsResponses, read from their ends, many at once.

Pure. The flow builder and protobuf's own encoder both write `time`, the field with the highest number, last;
so the end of a response is its time. Why: batches carry the times apart, so that a relay merges responses
without parsing them, and parsing them here instead would cost as much as building them.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from hubble.wirebytes import tag
from palomar_pb.observer import observer_pb2

Times = npt.NDArray[np.uint64]

TIME_TAG = tag(observer_pb2.GetFlowsResponse.DESCRIPTOR.fields_by_name["time"].number, delimited=True)
"""Two bytes, of which the first cannot precede the second in a text (UTF-8)."""
HEAD = len(TIME_TAG) + 1
"""The tag and the length of what follows."""
LONGEST = 12
"""A Timestamp of our times: 1 + 5 bytes of seconds, 1 + up to 5 bytes of nanoseconds."""
TAIL = HEAD + LONGEST
SECONDS_TAG, NANOS_TAG = 0x08, 0x10
NANOS_AT = 6
NS_PER_S = 1_000_000_000
FEW = 48
"""So many are read faster one by one than by columns."""


def response_times(responses: Sequence[bytes]) -> Times:
    """Nanoseconds since the epoch per response; 0 where one has no time."""
    if len(responses) <= FEW:
        return np.array([_time_ns(response) for response in responses], dtype=np.uint64)
    raw = b"".join(response[-TAIL:].rjust(TAIL, b"\0") for response in responses)
    tails = np.frombuffer(raw, dtype=np.uint8).reshape(-1, TAIL)
    marks = (tails[:, :LONGEST] == TIME_TAG[0]) & (tails[:, 1 : LONGEST + 1] == TIME_TAG[1])
    begins = LONGEST - 1 - np.argmax(marks[:, ::-1], axis=1) + HEAD
    # Row by row the timestamp moved to the left; zeros after its end.
    reach = begins[:, np.newaxis] + np.arange(LONGEST)
    padded = np.concatenate([tails, np.zeros((len(tails), TAIL), dtype=np.uint8)], axis=1)
    stamps = np.take_along_axis(padded, reach, axis=1)
    times = _varints(stamps[:, 1:NANOS_AT]) * np.uint64(NS_PER_S) + _varints(stamps[:, NANOS_AT + 1 :])
    nanos_tag = stamps[:, NANOS_AT]
    usual = marks.any(axis=1) & (stamps[:, 0] == SECONDS_TAG) & ((nanos_tag == NANOS_TAG) | (nanos_tag == 0))
    usual &= (stamps[:, 1 : NANOS_AT - 1] >= 0x80).all(axis=1) & (stamps[:, NANOS_AT - 1] < 0x80)
    usual &= tails[np.arange(len(tails)), begins - 1] == TAIL - begins
    for row in np.flatnonzero(~usual).tolist():
        times[row] = _parsed(responses[row])
    return times


def _varints(octets: npt.NDArray[np.uint8]) -> Times:
    """The varint at the begin of each row (up to its first octet without the highest bit)."""
    values = np.zeros(len(octets), dtype=np.uint64)
    more = np.ones(len(octets), dtype=np.bool_)
    for place in range(octets.shape[1]):
        octet = octets[:, place]
        part = np.where(more, octet & 0x7F, 0).astype(np.uint64)
        values |= part << np.uint64(7 * place)
        more = more & (octet >= 0x80)
    return values


def _time_ns(response: bytes) -> int:
    """The same for one response."""
    tail = response[-TAIL:]
    # Not in the last octets: a time may end like the tag, and a length must follow it.
    begin = tail.rfind(TIME_TAG, 0, -1) + HEAD
    stamp = tail[begin:]
    usual = begin >= HEAD and tail[begin - 1] == len(stamp) > NANOS_AT
    usual = usual and stamp[0] == SECONDS_TAG and stamp[NANOS_AT] == NANOS_TAG
    if not usual or min(stamp[1 : NANOS_AT - 1]) < 0x80 or stamp[NANOS_AT - 1] >= 0x80:
        return _parsed(response)
    return _varint(stamp[1:NANOS_AT]) * NS_PER_S + _varint(stamp[NANOS_AT + 1 :])


def _varint(octets: bytes) -> int:
    value = 0
    for octet in reversed(octets):
        value = value << 7 | (octet & 0x7F)
    return value


def _parsed(response: bytes) -> int:
    """The slow way, for times before 1978 and after 3058 and for responses without one."""
    time = observer_pb2.GetFlowsResponse.FromString(response).time
    return max(0, min(time.seconds * NS_PER_S + time.nanos, (1 << 64) - 1))
