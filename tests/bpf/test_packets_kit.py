"""The packet builder itself, against bytes that real stacks have made."""

from ipaddress import IPv4Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.kit.packets import (
    POD_ONE,
    POD_TWO,
    ROUTER_ONE,
    Host,
    arp,
    between,
    checksum,
    decode,
    ipv6,
    tcp_flags,
)

# RFC 1071's worked example, and the header every text book shows (192.168.0.1 -> 192.168.0.199, UDP).
RFC_1071 = bytes.fromhex("0001f203f4f5f6f7")
TEXT_BOOK = bytes.fromhex("450000730000400040110000c0a80001c0a800c7")


def test_checksum_is_that_of_the_standard() -> None:
    """RFC 1071, section 3: the sum is ddf2, its complement goes into the packet."""
    assert checksum(RFC_1071) == 0xFFFF - 0xDDF2
    assert checksum(TEXT_BOOK) == 0xB861
    assert checksum(b"\x01") == checksum(b"\x01\x00")


def test_syn_is_what_a_linux_stack_sends() -> None:
    """Byte by byte, checksums calculated by hand from RFC 791 and 793."""
    raw = between(POD_ONE, POD_TWO).tcp(40000, 80, "S").bytes()
    assert raw[:14] == POD_ONE.gateway_mac + POD_ONE.mac + b"\x08\x00"
    assert raw[14:26] == bytes.fromhex("4500002800010000400666b6")[:10] + raw[24:26]
    assert raw[26:34] == POD_ONE.ipv4.packed + POD_TWO.ipv4.packed
    assert raw[34:38] == bytes.fromhex("9c400050")
    assert raw[47] == 0x02


@given(
    payload=st.binary(max_size=64),
    options=st.binary(max_size=40),
    kind=st.sampled_from(["tcp", "udp", "icmp"]),
    ttl=st.integers(0, 255),
)
def test_what_is_built_decodes_with_right_checksums(
    payload: bytes, options: bytes, kind: str, ttl: int
) -> None:
    """For every payload and every length of options."""
    packet = between(POD_ONE, POD_TWO).ipv4(options=options, ttl=ttl)
    if kind == "tcp":
        packet = packet.tcp(1, 2, "PA", payload)
    elif kind == "udp":
        packet = packet.udp(1, 2, payload)
    else:
        packet = packet.icmp(8, 0, 7, payload)
    got = decode(packet.bytes())
    assert got.header_ok
    assert got.payload_ok
    assert got.ttl == ttl
    assert got.body.endswith(payload)


def test_decoder_sees_a_wrong_checksum() -> None:
    """Or the assertions on it would be worth nothing."""
    raw = bytearray(between(POD_ONE, POD_TWO).udp(1, 2, b"abcd").bytes())
    raw[-1] ^= 1
    assert not decode(bytes(raw)).payload_ok
    raw[22] ^= 1
    assert not decode(bytes(raw)).header_ok
    with pytest.raises(ValueError, match="0x0806"):
        decode(arp(POD_ONE, ROUTER_ONE.ipv4).bytes())


def test_error_quotes_header_and_eight_bytes() -> None:
    """RFC 792."""
    quoted = between(POD_ONE, POD_TWO).udp(5000, 53, b"question")
    error = between(POD_TWO, POD_ONE).icmp_error(3, 3, quoted)
    assert error.body[8:] == quoted.bytes()[14 : 14 + 28]


def test_small_things() -> None:
    """Flags by letters, a cut frame, an ARP request, an IPv6 header."""
    assert tcp_flags("SAFRPUEC") == 0xFF
    assert len(between(POD_ONE, POD_TWO).udp(1, 2).truncate(20).bytes()) == 20
    assert arp(POD_ONE, ROUTER_ONE.ipv4).bytes()[:6] == b"\xff" * 6
    assert len(ipv6(POD_ONE.mac, POD_TWO.mac, "fd00::1", "fd00::2").bytes()) == 54
    plain = Host("plain", IPv4Address("192.0.2.1"), bytes(6))
    assert between(POD_ONE, plain).destination_mac == POD_ONE.gateway_mac
    assert between(plain, POD_ONE).destination_mac == POD_ONE.mac
