"""Fixtures of the BPF unit tests: one loaded node for the whole session, its maps reset for every test."""

import os
import platform
from collections.abc import Iterator
from pathlib import Path

import pytest

from datapath.abi.mapspecs import MapSpec, MapType
from datapath.loader import BpfObject
from datapath.tables import ProgramArray
from palomar import proc
from tests.kit.bpfnode import BpfNode, FromTunnel, Outcome
from tests.kit.packets import NODE_TWO, Packet


@pytest.fixture(scope="session")
def loaded_node() -> Iterator[BpfNode]:
    """Every object in the kernel, specialised for the cast."""
    if os.geteuid() != 0:
        pytest.skip("loading eBPF programs needs root")
    with BpfNode() as node:
        yield node


@pytest.fixture
def node(loaded_node: BpfNode) -> BpfNode:
    """The loaded node with maps as `BpfNode.reset` leaves them."""
    loaded_node.reset()
    return loaded_node


@pytest.fixture(scope="session")
def shim_object(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """tunnel_shim.c, compiled."""
    target = tmp_path_factory.mktemp("shim") / "tunnel_shim.o"
    include = f"-I/usr/include/{platform.machine()}-linux-gnu"
    source = Path(__file__).with_name("tunnel_shim.c")
    flags = ["-O2", "-g", "-target", "bpf", "-mcpu=v3", "-Wall", "-Werror", include]
    proc.run(["clang", *flags, "-c", str(source), "-o", str(target)])
    return target


@pytest.fixture
def from_tunnel(node: BpfNode, shim_object: Path) -> Iterator[FromTunnel]:
    """Run a packet through an overlay program as if NODE_TWO had sent it with an identity."""
    opened: list[BpfObject] = []

    def run(packet: Packet, identity: int, program: str = "cil_from_overlay") -> Outcome:
        shim = BpfObject(shim_object)
        opened.append(shim)
        shim.set_constants({"shim_identity": identity, "shim_node": int(NODE_TWO.ipv4)})
        shim.load()
        spec = MapSpec("shim_next", MapType.PROG_ARRAY, 4, 4, 1)
        following = ProgramArray(spec, shim.map_fd("shim_next"))
        following.set(0, node.object("overlay").program_fd(program))
        return node.run_fd(shim.program_fd("shim_tunnel"), packet)

    yield run
    for shim in opened:
        shim.close()
