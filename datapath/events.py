"""The event record as numpy sees it: what the programs send, and what the flow store keeps.

Pure: no perf rings (`perf.py`), no store. `EVENT_DTYPE` mirrors C `struct event` of `bpf/lib/event.h`
(compared through BTF by the layout tests); `STORED_DTYPE` is the same 116 bytes with what the ingest adds.
Words for the numbers are in `palomar.verdict` and `palomar.drop`.
"""

from enum import IntFlag
from typing import Any

import numpy as np

EVENT_VERSION = 1
EVENT_SIZE = 116
SAMPLE_STRIDE = 128
"""One perf sample: 8 bytes perf header, 4 bytes size, then the event."""
STORED_SIZE = 128


class EventFlag(IntFlag):
    """Bits of the `flags` field."""

    IPV6 = 0x01
    L3_DEVICE = 0x02
    L2_VALID = 0x04
    """`packets` and `bytes` hold the source and the destination MAC (see `l2_addresses`)."""
    FROM_TUNNEL = 0x08


_FIELDS: tuple[tuple[str, int, Any], ...] = (
    ("version", 0, "u1"),
    ("type", 1, "u1"),
    ("subtype", 2, "u1"),
    ("flags", 3, "u1"),
    ("seq", 4, "u8"),
    ("time_ns", 12, "u8"),
    ("packets", 20, "u8"),
    ("bytes", 28, "u8"),
    ("saddr", 36, ("u1", (16,))),
    ("daddr", 52, ("u1", (16,))),
    ("src_identity", 68, "u4"),
    ("dst_identity", 72, "u4"),
    ("ifindex", 76, "u4"),
    ("rtt_us", 80, "u4"),
    ("length", 84, "u4"),
    ("policy_cookie", 88, "u4"),
    ("endpoint_id", 92, "u2"),
    ("dst_endpoint_id", 94, "u2"),
    ("sport", 96, "u2"),
    ("dport", 98, "u2"),
    ("protocol", 100, "u1"),
    ("l4_flags", 101, "u1"),
    ("icmp_code", 102, "u1"),
    ("trace_reason", 103, "u1"),
    ("direction", 104, "u1"),
    ("verdict", 105, "u1"),
    ("match_type", 106, "u1"),
    ("drop_reason", 107, "u1"),
    ("file", 108, "u1"),
    ("tcp_flags_seen", 109, "u1"),
    ("line", 110, "u2"),
    ("tunnel_ipv4", 112, ">u4"),
)

_ADDED: tuple[tuple[str, int, Any], ...] = (
    ("src_ref", 116, "u4"),
    ("dst_ref", 120, "u4"),
    ("cpu", 124, "u2"),
    ("reserved", 126, "u2"),
)


def _dtype(fields: tuple[tuple[str, int, Any], ...], size: int) -> np.dtype[np.void]:
    return np.dtype(
        {
            "names": [name for name, _, _ in fields],
            "offsets": [offset for _, offset, _ in fields],
            "formats": [form for _, _, form in fields],
            "itemsize": size,
        }
    )


EVENT_DTYPE = _dtype(_FIELDS, EVENT_SIZE)
"""C `struct event`: host byte order but for the addresses. `time_ns` is CLOCK_MONOTONIC."""

STORED_DTYPE = _dtype(_FIELDS + _ADDED, STORED_SIZE)
"""A row of the flow store: the event with `time_ns` in wall clock, the interned names and the CPU."""


def l2_addresses(record: np.void) -> tuple[bytes, bytes] | None:
    """Return source and destination MAC of a record that carries them, else None."""
    if not int(record["flags"]) & EventFlag.L2_VALID:
        return None
    raw = record.tobytes()[20:32]
    return raw[:6], raw[6:]


def field_offset(name: str) -> int:
    """Return where a field of a stored record begins."""
    for known, offset, _ in _FIELDS + _ADDED:
        if known == name:
            return offset
    raise KeyError(name)
