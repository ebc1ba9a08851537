"""What stands on the wire between two nodes: the sender's identity is the VXLAN network identifier."""

import os
import shutil
import socket
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kit.netns import NetnsFactory, ping, run_in
from tests.kit.topology import Topology

pytestmark = [pytest.mark.root, pytest.mark.bpf]

VXLAN_PORT = 8472
ETH_P_ALL = 3


@pytest.fixture
def topology() -> Iterator[Topology]:
    """An empty underlay, removed with all that was plugged into it."""
    root = Path(f"/sys/fs/bpf/plt-{os.getpid()}-wire")
    root.mkdir()
    factory = NetnsFactory(f"plt{os.getpid()}w")
    made = Topology(factory, root)
    try:
        yield made
    finally:
        made.close()
        factory.close()
        shutil.rmtree(root, ignore_errors=True)


def sniffer(netns: str) -> socket.socket:
    """A packet socket on the namespace's eth0, both ways, without the outer Ethernet header."""

    def make() -> socket.socket:
        made = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(ETH_P_ALL))
        made.bind(("eth0", ETH_P_ALL))
        made.settimeout(3)
        return made

    return run_in(netns, make)


def vxlan(packet: bytes) -> tuple[int, bytes] | None:
    """Network identifier and inner frame of an IPv4 packet that is VXLAN (RFC 7348, section 5)."""
    header = (packet[0] & 0x0F) * 4
    if (
        packet[0] >> 4 != 4
        or packet[9] != 17
        or struct.unpack_from("!H", packet, header + 2)[0] != VXLAN_PORT
    ):
        return None
    (vni,) = struct.unpack_from("!I", packet, header + 8 + 4)
    return vni >> 8, packet[header + 16 :]


def test_identity_travels_in_the_tunnel_header(topology: Topology) -> None:
    """Both ways, each with the identity of its sender; the host goes as remote-node."""
    one, two = topology.add_node(), topology.add_node()
    near, far = topology.add_pod(one, 4001), topology.add_pod(two, 70001)
    with sniffer(two.netns) as wire:
        assert ping(near.netns, far.ip)
        assert ping(one.netns, far.ip)
        seen: dict[tuple[bytes, bytes], int] = {}
        wanted = {
            (near.spec.ipv4.packed, far.spec.ipv4.packed): 4001,
            (far.spec.ipv4.packed, near.spec.ipv4.packed): 70001,
            (one.config.router_ipv4.packed, far.spec.ipv4.packed): 6,
        }
        while not wanted.items() <= seen.items():
            found = vxlan(wire.recv(2048))
            if found is not None:
                vni, inner = found
                seen[inner[26:30], inner[30:34]] = vni
    assert wanted.items() <= seen.items()
