"""A relay on a unix socket: for its owner and the socket's group, and asked like a node's own server."""

import grp
import os
import signal
import stat

import pytest

from cli.main import main
from palomar.paths import SOCKET_GROUP
from tests.cli.nodeserver import Command, command, node_server
from tests.kit.wait import eventually


def gid_of(group: str, relay: Command) -> int:
    """The group's number; where there is none, the owner's, and the relay has said so."""
    try:
        return grp.getgrnam(group).gr_gid
    except KeyError:
        assert relay.said(f"socket stays with its owner's group .*group={group}")
        return os.getgid()


def another_group() -> str:
    """A group that is not the owner's and may be given a file; empty for a user who has none."""
    may = [group for group in grp.getgrall() if os.geteuid() == 0 or group.gr_gid in os.getgroups()]
    return next((group.gr_name for group in may if group.gr_gid != os.getgid()), "")


@pytest.mark.parametrize("group", [SOCKET_GROUP, another_group(), "no-such-group"])
def test_a_relay_on_a_unix_socket_serves_its_group(tmp_path, capsys, group):
    """Mode 0660 from the start; SIGTERM removes it."""
    if not group:
        pytest.skip("this user may give files to no other group")
    socket = tmp_path / "relay.sock"
    flags = [] if group == SOCKET_GROUP else [f"--socket-group={group}"]
    with node_server(tmp_path) as node:
        node.emit(2)
        peer = f"--peer=default/worker2=unix:{node.config.paths.hubble_socket}"
        with command(node, "relay", f"--listen=unix://{socket}", peer, *flags) as relay:
            relay.says("relay listens .*socket=")
            found = socket.stat()
            assert stat.S_IMODE(found.st_mode) == 0o660
            assert found.st_gid == gid_of(group, relay)
            eventually(lambda: main(["observe", "--server", f"unix://{socket}", "--last", "9"]) == 0)
            assert "2 flows, 0 not seen" in capsys.readouterr().err
            assert relay.end(signal.SIGTERM) == 0
    assert not socket.exists()


def test_a_socket_without_a_group_is_its_owner_s_alone(tmp_path):
    """`--socket-group=''`: nothing is said, nothing is given."""
    socket = tmp_path / "relay.sock"
    with node_server(tmp_path) as node:
        peer = f"--peer=default/worker2=unix:{node.config.paths.hubble_socket}"
        with command(node, "relay", f"--listen=unix://{socket}", peer, "--socket-group=") as relay:
            relay.says("relay listens .*socket=")
            assert socket.stat().st_gid == os.getgid()
            assert not relay.said("socket stays with")
