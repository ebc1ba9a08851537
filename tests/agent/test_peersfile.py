"""What the agent writes is what the flow server reads."""

from ipaddress import IPv4Address
from pathlib import Path

import pytest

from agent.peersfile import PeersFile, peer_entries
from hubble.peersfile import AnnouncedPeer, read_peers

NODES = [("default", "two", IPv4Address("10.0.0.2")), ("default", "one.a", IPv4Address("10.0.0.1"))]


def test_entries_are_sorted_and_named_as_flows_name_nodes() -> None:
    """With the name in the certificate only where there is TLS."""
    assert peer_entries(NODES, 4244, tls=True) == [
        {
            "name": "default/one.a",
            "address": "10.0.0.1:4244",
            "server_name": "one-a.default.hubble-grpc.cilium.io",
        },
        {
            "name": "default/two",
            "address": "10.0.0.2:4244",
            "server_name": "two.default.hubble-grpc.cilium.io",
        },
    ]
    assert {entry["server_name"] for entry in peer_entries(NODES, 1, tls=False)} == {""}


def test_the_file_is_written_when_it_changes(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """And read back by the flow server; a failure is logged and made up for."""
    path = tmp_path / "run" / "peers.json"
    peers = PeersFile(path, 4244, tls=False)
    peers.write(NODES)
    assert "peers file not written" in caplog.text
    path.parent.mkdir()
    peers.write(NODES)
    found = read_peers(path)
    assert found is not None
    assert found["default/two"] == AnnouncedPeer("default/two", "10.0.0.2:4244")
    inode = path.stat().st_ino
    peers.write(reversed(NODES))
    assert path.stat().st_ino == inode
    peers.write(NODES[:1])
    assert list(read_peers(path) or {}) == ["default/two"]
