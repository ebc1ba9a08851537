"""Tells the node's flow server which nodes there are: writes `<run_dir>/peers.json`.

`peer_entries` is pure; `PeersFile` is the rim. Input: the nodes of `agent.nodes`; the reader is
`hubble.peersfile`. A node is told once its flow server listens on TCP, at `port` of its address.
"""

import json
import logging
from collections.abc import Iterable
from ipaddress import IPv4Address
from pathlib import Path

from agent.nodes import NodeDiscovery
from palomar.certs import node_server_name
from palomar.files import write_atomically

logger = logging.getLogger(__name__)

PEERS_MODE = 0o644
NodeAddress = tuple[str, str, IPv4Address]
"""Cluster, node and the node's address."""


def peer_entries(nodes: Iterable[NodeAddress], port: int, *, tls: bool) -> list[dict[str, str]]:
    """Describe the flow servers of `nodes`, which all listen on `port`; by name."""
    return [
        {
            "name": f"{cluster}/{node}",
            "address": f"{ipv4}:{port}",
            "server_name": node_server_name(node, cluster) if tls else "",
        }
        for cluster, node, ipv4 in sorted(nodes)
    ]


class PeersFile:
    """Keeps the file at what the cluster is."""

    def __init__(self, path: Path, port: int, *, tls: bool) -> None:
        """`port` is where every node's flow server listens; nothing is written before `write`."""
        self._path = path
        self._port = port
        self._tls = tls
        self._written: str | None = None

    def write(self, nodes: Iterable[NodeAddress]) -> None:
        """Write the file where its content changes; a failure is logged and tried again at the next call."""
        text = json.dumps(peer_entries(nodes, self._port, tls=self._tls), indent=1) + "\n"
        if text == self._written:
            return
        try:
            write_atomically(self._path, text, PEERS_MODE)
        except OSError as error:
            logger.error("peers file not written", extra={"path": str(self._path), "error": str(error)})
            return
        self._written = text

    def follow(self, nodes: NodeDiscovery) -> None:
        """Write `nodes` now and whenever they change."""

        def write() -> None:
            known = [(node.cluster, node.name, node.node_ipv4) for node in nodes.nodes()]
            self.write((cluster, name, ipv4) for cluster, name, ipv4 in known if ipv4 is not None)

        nodes.listen(lambda _before, _after: write(), write)
        write()
