"""The event record: every field where the C header puts it."""

import struct

import numpy as np

from datapath.events import (
    EVENT_DTYPE,
    EVENT_SIZE,
    SAMPLE_STRIDE,
    STORED_DTYPE,
    STORED_SIZE,
    EventFlag,
    field_offset,
    l2_addresses,
)

# C `struct event` written by hand, field by field.
C_EVENT = struct.Struct("=4BQQQQ16s16s6I4H8BBBHI")


def test_an_event_of_the_c_layout_reads_back_field_by_field():
    values = [1, 4, 0, 8, 77, 123456789, 5, 600]
    values += [b"\x0a\x01\x00\x05" + bytes(12), b"\x0a\x02\x00\x07" + bytes(12)]
    values += [4242, 5151, 7, 350, 74, 99, 12, 13, 40000, 80, 6, 0x12, 0, 2, 1, 1, 3, 0, 4, 0x1F, 321]
    raw = C_EVENT.pack(*values, int.from_bytes(b"\x01\x00\x1e\xac", "big"))
    assert len(raw) == EVENT_SIZE
    record = np.frombuffer(raw, dtype=EVENT_DTYPE)[0]
    assert EVENT_DTYPE.names is not None
    for name, value in zip(EVENT_DTYPE.names[:-1], values, strict=True):
        got = record[name].tobytes() if isinstance(value, bytes) else int(record[name])
        assert got == value, name


def test_the_tunnel_address_is_read_in_network_order():
    raw = bytearray(EVENT_SIZE)
    raw[112:116] = bytes([172, 30, 0, 1])
    assert int(np.frombuffer(bytes(raw), dtype=EVENT_DTYPE)[0]["tunnel_ipv4"]) == 0xAC1E0001


def test_a_stored_row_is_the_event_and_twelve_bytes():
    assert STORED_DTYPE.itemsize == STORED_SIZE == SAMPLE_STRIDE
    assert EVENT_DTYPE.names == STORED_DTYPE.names[: len(EVENT_DTYPE.names)]
    for name in EVENT_DTYPE.names:
        assert EVENT_DTYPE.fields[name] == STORED_DTYPE.fields[name]
        assert field_offset(name) == EVENT_DTYPE.fields[name][1]
    assert [field_offset(name) for name in ("src_ref", "dst_ref", "cpu", "reserved")] == [116, 120, 124, 126]


def test_mac_addresses_lie_where_the_counters_are_when_the_flag_says_so():
    raw = bytearray(STORED_SIZE)
    raw[20:32] = bytes(range(12))
    record = np.frombuffer(bytes(raw), dtype=STORED_DTYPE).copy()
    assert l2_addresses(record[0]) is None
    record["flags"] = EventFlag.L2_VALID
    assert l2_addresses(record[0]) == (bytes(range(6)), bytes(range(6, 12)))
