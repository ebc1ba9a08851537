"""Typed maps over pinned ones: created, checked, read in batches, changed idempotently."""

from collections.abc import Iterator
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

import pytest

from datapath.abi import (
    CtEntry,
    CtFlag,
    CtKey,
    Direction,
    EndpointInfo,
    IpcacheEntry,
    MapSpec,
    MapType,
    PolicyEntry,
    PolicyKey,
    RuntimeConfig,
)
from datapath.errors import MapError, MapMismatchError, MapMissingError
from datapath.maps import DatapathMaps, GcCount, ensure_maps, open_maps, specs

pytestmark = [pytest.mark.root, pytest.mark.bpf]

POD = IPv4Address("10.1.0.5")


@pytest.fixture
def maps(bpf_root: Path) -> Iterator[DatapathMaps]:
    opened = ensure_maps(bpf_root / "tc" / "globals", specs(ct_tcp_max=16384, ct_any_max=1024))
    yield opened
    opened.close()


def entry(lifetime_s: int) -> CtEntry:
    return CtEntry(1, 60, 0, 0, lifetime_s, CtFlag(0), 0, 0, 2, 0, 4001, 0, 0, 0, 7)


def key(number: int, protocol: int = 6) -> CtKey:
    return CtKey(POD, IPv4Address(0x0A020000 + number), 80, 1024 + number % 60000, protocol, Direction.IN)


def test_ipcache_answers_with_the_longest_match(maps: DatapathMaps) -> None:
    """A /32 wins over its /24; deleting it uncovers the /24; deleting twice is no error."""
    node = IPv4Address("172.18.0.5")
    maps.ipcache.upsert(IPv4Network("10.1.0.0/24"), 2)
    maps.ipcache.upsert(IPv4Network(POD), 4242, node)
    maps.ipcache.upsert(IPv4Network(POD), 4243, node)
    assert maps.ipcache.lookup(POD) == IpcacheEntry(4243, node)
    assert maps.ipcache.delete(IPv4Network(POD)) is True
    assert maps.ipcache.delete(IPv4Network(POD)) is False
    assert maps.ipcache.lookup(POD) == IpcacheEntry(2)
    assert maps.ipcache.lookup(IPv4Address("192.0.2.1")) is None
    assert {k.net: v.identity for k, v in maps.ipcache.items()} == {IPv4Network("10.1.0.0/24"): 2}


def test_endpoints_and_tunnels(maps: DatapathMaps) -> None:
    """Local addresses and nodes' pod CIDRs are kept and forgotten."""
    info = EndpointInfo(7, 12, b"\2\0\0\0\0\1", b"\2\0\0\0\0\2", 4242)
    maps.lxc.upsert(POD, info)
    assert maps.lxc.lookup(POD) == info
    assert [k.ipv4 for k, _ in maps.lxc.items()] == [POD]
    assert maps.lxc.delete(POD)
    assert maps.lxc.lookup(POD) is None
    maps.tunnel.upsert(IPv4Network("10.2.0.0/24"), IPv4Address("172.30.0.2"))
    assert [(str(k.prefix), str(v.node_ipv4)) for k, v in maps.tunnel.items()] == [("10.2.0.0", "172.30.0.2")]
    assert maps.tunnel.delete(IPv4Network("10.2.0.0/24"))


def test_policy_map_is_made_filled_and_removed(maps: DatapathMaps, bpf_root: Path) -> None:
    """The owner creates it empty; entries come back as written; a reader sees them; removal unpins."""
    assert maps.policy(12).items() == {}
    wanted = {
        PolicyKey(0, True): PolicyEntry(False, 1),
        PolicyKey(4242, False, 6, 80, 16): PolicyEntry(True, 2),
        PolicyKey(4242, False, 17): PolicyEntry(False, 3),
    }
    for k, v in wanted.items():
        maps.policy(12).upsert(k, v)
    assert maps.policy(12).items() == wanted
    assert maps.policy_endpoint_ids() == [12]
    reader = open_maps(bpf_root)
    assert reader.policy(12).items() == wanted
    with pytest.raises(MapMissingError):
        reader.policy(13)
    reader.close()
    assert maps.policy(12).delete(PolicyKey(0, True))
    assert not maps.policy(12).delete(PolicyKey(0, True))
    maps.remove_policy(12)
    maps.remove_policy(12)
    assert maps.policy_endpoint_ids() == []
    assert maps.policy(12).items() == {}


def test_policy_revision_moves_by_one(maps: DatapathMaps) -> None:
    """Each bump is seen by the next read; endpoints are apart."""
    assert [maps.bump_policy_revision(5), maps.bump_policy_revision(5)] == [1, 2]
    assert (maps.policy_revision(5), maps.policy_revision(6)) == (2, 0)


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


def test_runtime_config_and_counters(maps: DatapathMaps) -> None:
    """Switches read back; counters start at zero, one row per possible CPU."""
    maps.runtime_config.set(RuntimeConfig.REPORT_INTERVAL_NS, 5_000_000_000)
    assert maps.runtime_config.get(RuntimeConfig.REPORT_INTERVAL_NS) == 5_000_000_000
    assert maps.runtime_config.items()[RuntimeConfig.EVENTS_OFF] == 0
    stats = maps.event_stats()
    assert [row.cpu for row in stats] == list(range(len(stats)))
    assert all((row.emitted, row.failed, row.suppressed) == (0, 0, 0) for row in stats)
    assert maps.metrics.items() == {}


def test_second_open_keeps_the_contents(maps: DatapathMaps, bpf_root: Path) -> None:
    """Restart: the same maps with what was in them."""
    maps.ipcache.upsert(IPv4Network(POD), 4242)
    again = ensure_maps(bpf_root / "tc" / "globals", specs(ct_tcp_max=16384, ct_any_max=1024))
    assert again.ipcache.lookup(POD) == IpcacheEntry(4242)
    again.close()


def test_mismatch_names_every_attribute_of_every_map(maps: DatapathMaps, bpf_root: Path) -> None:
    """Two maps with five and one differences: six lines, and nothing was created or changed."""
    folder = bpf_root / "tc" / "globals"
    (folder / "cilium_lxc").unlink()
    (folder / "cilium_tunnel_map").unlink()
    import os

    from datapath.maps import create_pinned

    os.close(create_pinned(MapSpec("cilium_lxc", MapType.ARRAY, 4, 8, 10), folder / "cilium_lxc"))
    with pytest.raises(MapMismatchError) as caught:
        ensure_maps(folder, specs(ct_tcp_max=16384, ct_any_max=2048))
    found = {(d.pin_path.name, d.attribute) for d in caught.value.differences}
    assert found == {
        ("cilium_ct_any4_global", "max entries"),
        ("cilium_lxc", "type"),
        ("cilium_lxc", "key size"),
        ("cilium_lxc", "value size"),
        ("cilium_lxc", "max entries"),
        ("cilium_lxc", "flags"),
    }
    assert "max entries is 1024, this build needs 2048" in str(caught.value)
    assert not (folder / "cilium_tunnel_map").exists()
    with pytest.raises(MapMismatchError):
        open_maps(bpf_root)


def test_reader_without_agent(bpf_root: Path) -> None:
    """Opening an empty root says that no agent ran with it."""
    with pytest.raises(MapMissingError, match="is the agent running"):
        open_maps(bpf_root)


def test_full_map_is_a_transient_error(bpf_root: Path) -> None:
    """Writing beyond the size raises with map, operation and errno."""
    from datapath.maps import RawMap, create_pinned

    spec = MapSpec("tiny", MapType.HASH, 4, 4, 1)
    raw = RawMap(spec, create_pinned(spec, bpf_root / "tiny"))
    raw.update(bytes(4), bytes(4))
    with pytest.raises(MapError, match="tiny: update 01000000 failed") as caught:
        raw.update(b"\1\0\0\0", bytes(4))
    assert caught.value.errno == 7
    raw.close()
    raw.close()
