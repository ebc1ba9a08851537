"""The nodes of the cluster as the agent tells them to the flow server: `<run_dir>/peers.json`.

Pure but for `read_peers`. A JSON list of {"name", "address", "server_name"}: name as the node's flows carry
it, address `host:port` of its flow server, server_name the name in its certificate ("" without TLS). The
agent replaces the file atomically (`agent.peersfile`); `hubble.peer` announces what changed.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from palomar.errors import InvalidInputError


@dataclass(frozen=True, slots=True)
class AnnouncedPeer:
    """One node's flow server."""

    name: str
    address: str
    server_name: str = ""


Peers = Mapping[str, AnnouncedPeer]


def parse_peers(text: str) -> dict[str, AnnouncedPeer]:
    """Read the file's content; InvalidInputError names the entry that is wrong."""
    try:
        entries = json.loads(text)
    except ValueError as error:
        raise InvalidInputError(f"not JSON: {error}", "peers") from error
    if not isinstance(entries, list):
        raise InvalidInputError("not a list", "peers")
    peers = [_peer(entry, f"peers[{index}]") for index, entry in enumerate(entries)]
    return {peer.name: peer for peer in peers}


def _peer(entry: Any, path: str) -> AnnouncedPeer:
    if not isinstance(entry, dict):
        raise InvalidInputError("not an object", path)
    values = {}
    for key in ("name", "address", "server_name"):
        value = entry.get(key, "")
        if not isinstance(value, str) or (key != "server_name" and not value):
            raise InvalidInputError("not a text" if value else "missing", f"{path}.{key}")
        values[key] = value
    return AnnouncedPeer(**values)


def read_peers(path: Path) -> dict[str, AnnouncedPeer] | None:
    """Read the file; None while there is none. Raises InvalidInputError and OSError."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    except UnicodeDecodeError as error:
        raise InvalidInputError(f"not UTF-8: {error}", "peers") from error
    return parse_peers(text)
