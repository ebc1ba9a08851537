"""Connections are swept, forgotten and found in batches."""

from dataclasses import replace
from ipaddress import IPv4Address

import pytest

from datapath.abi.conntrack import CtEntry, CtFlag, CtKey, Direction
from datapath.maps.conntrack import GcCount
from datapath.maps.node import DatapathMaps

pytestmark = [pytest.mark.root, pytest.mark.bpf]

POD = IPv4Address("10.1.0.5")


def entry(lifetime_s: int) -> CtEntry:
    return CtEntry(1, 60, 0, 0, lifetime_s, CtFlag(0), 0, 0, 2, 0, 4001, 0, 0, 0, 7)


def key(number: int, protocol: int = 6) -> CtKey:
    return CtKey(POD, IPv4Address(0x0A020000 + number), 80, 1024 + number % 60000, protocol, Direction.IN)


def test_gc_removes_what_expired(maps: DatapathMaps) -> None:
    """10,000 TCP and 10 UDP connections: exactly those whose lifetime is over go."""
    for number in range(10_000):
        maps.ct.tcp.update(key(number).pack(), entry(100 if number % 2 else 200).pack())
    for number in range(10):
        maps.ct.other.update(key(number, 17).pack(), entry(100).pack())
    assert sum(1 for _ in maps.ct.items()) == 10_010
    assert maps.ct.gc(now_s=150) == GcCount(seen=10_010, deleted=5_010)
    assert {v.lifetime_s for _, v in maps.ct.items()} == {200}
    assert maps.ct.gc(now_s=150) == GcCount(seen=5_000, deleted=0)


def test_connections_of_an_address_are_forgotten(maps: DatapathMaps) -> None:
    """Both directions go, others stay; a key that is gone already does not stop the batch."""
    other = replace(key(1), daddr=IPv4Address("10.1.0.6"))
    reverse = CtKey(IPv4Address("10.2.0.9"), POD, 5, 6, 6, Direction.OUT)
    for each in (key(1), key(2), reverse, other):
        maps.ct.tcp.update(each.pack(), entry(1).pack())
    assert maps.ct.forget_addresses(frozenset({POD})) == 3
    assert [k for k, _ in maps.ct.items()] == [other]
    assert maps.ct.get(other) == entry(1)
    assert maps.ct.get(key(1)) is None
    assert maps.ct.tcp.delete_batch([key(1).pack(), other.pack(), key(2).pack()]) == 1
    assert maps.ct.flush() == 0
