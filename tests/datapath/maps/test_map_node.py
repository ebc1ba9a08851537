"""A node's maps over restarts, other layouts and without an agent."""

import os
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

import pytest

from datapath.abi.addresses import IpcacheEntry
from datapath.abi.mapspecs import MapSpec, MapType
from datapath.errors import MapMismatchError, MapMissingError
from datapath.maps.node import DatapathMaps, ensure_maps, open_maps, specs
from datapath.pins import create_pinned

pytestmark = [pytest.mark.root, pytest.mark.bpf]

POD = IPv4Address("10.1.0.5")


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
