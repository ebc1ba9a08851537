"""A relay on a unix socket: for its owner and the socket's group, and asked like a node's own server."""

import grp
import os
import signal
import stat

from cli.main import main
from tests.cli.nodeserver import command, node_server
from tests.kit.wait import eventually


def test_a_relay_on_a_unix_socket_serves_its_group(tmp_path, capsys):
    """Mode 0660 from the start; SIGTERM removes it."""
    socket = tmp_path / "relay.sock"
    with node_server(tmp_path) as node:
        node.emit(2)
        peer = f"--peer=default/worker2=unix:{node.config.paths.hubble_socket}"
        with command(node, "relay", f"--listen=unix://{socket}", peer) as relay:
            relay.says("relay listens .*socket=")
            found = socket.stat()
            assert stat.S_IMODE(found.st_mode) == 0o660
            try:
                group = grp.getgrnam("palomar").gr_gid
            except KeyError:
                group = os.getgid()
                assert relay.said("socket stays with its owner's group .*group=palomar")
            assert found.st_gid == group
            eventually(lambda: main(["observe", "--server", f"unix://{socket}", "--last", "9"]) == 0)
            assert "2 flows, 0 not seen" in capsys.readouterr().err
            assert relay.end(signal.SIGTERM) == 0
    assert not socket.exists()
