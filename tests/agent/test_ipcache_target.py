"""The fake maps and the kernel's behave alike under the targets."""

import os
import subprocess
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

import pytest

from agent.ipcache.target import FakeIpMaps, IpcacheTarget, IpcacheWish, IpMaps, TunnelTarget
from palomar.errors import TransientError

BPFFS = Path("/sys/fs/bpf")
POD = IPv4Network("10.1.0.5")
NODE = IPv4Address("172.30.0.2")


@pytest.fixture(params=["fake", pytest.param("kernel", marks=[pytest.mark.root, pytest.mark.bpf])])
def maps(request: pytest.FixtureRequest) -> Iterator[IpMaps]:
    """The fake, and real pinned maps below a root of their own."""
    if request.param == "fake":
        yield FakeIpMaps()
        return
    from datapath.maps.node import ensure_maps, specs

    if not os.path.ismount(BPFFS):
        subprocess.run(["mount", "-t", "bpf", "bpf", str(BPFFS)], check=True)
    root = BPFFS / f"plt-{os.getpid()}-ipcache"
    opened = ensure_maps(root, specs(1024, 1024))
    try:
        yield opened
    finally:
        opened.close()
        for pin in root.iterdir():
            pin.unlink()
        root.rmdir()


def test_ipcache_wishes_are_idempotent_and_strangers_are_found(maps: IpMaps) -> None:
    target = IpcacheTarget(maps)
    for _ in range(2):
        target.update(POD, IpcacheWish(4242, NODE))
        target.update(IPv4Network("0.0.0.0/0"), IpcacheWish(2, None))
    assert target.strangers(()) == {POD: NODE, IPv4Network("0.0.0.0/0"): None}
    assert target.strangers({POD}) == {IPv4Network("0.0.0.0/0"): None}
    target.update(POD, IpcacheWish(4243, None))
    assert {key.net: entry.identity for key, entry in maps.ipcache.items()}[POD] == 4243
    for _ in range(2):
        target.delete(POD)
    assert list(target.strangers(())) == [IPv4Network("0.0.0.0/0")]


def test_tunnel_wishes_are_idempotent_and_strangers_are_found(maps: IpMaps) -> None:
    target = TunnelTarget(maps)
    prefix = IPv4Address("10.2.0.0")
    for _ in range(2):
        target.update(prefix, NODE)
    assert [(key.prefix, entry.node_ipv4) for key, entry in maps.tunnel.items()] == [(prefix, NODE)]
    assert target.strangers(()) == [prefix]
    assert target.strangers({prefix}) == []
    for _ in range(2):
        target.delete(prefix)
    assert target.strangers(()) == []


def test_a_broken_fake_fails_as_a_map_does() -> None:
    maps = FakeIpMaps()
    maps.ipcache.broken = True
    with pytest.raises(TransientError):
        IpcacheTarget(maps).update(POD, IpcacheWish(1, None))
