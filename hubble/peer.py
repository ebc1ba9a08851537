"""peer.Peer/Notify: the cluster's nodes, then every one that comes, changes or goes.

Input: the file the agent keeps (`hubble.peersfile`); output: announcements. Not decided here: who is a
node. A damaged or missing file changes nothing: what was announced last stays.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

from hubble.peersfile import AnnouncedPeer, Peers, read_peers
from palomar.errors import InvalidInputError
from palomar_pb.peer import peer_pb2

logger = logging.getLogger(__name__)

POLL_S = 0.25
Version = tuple[int, int, int]


class PeerService:
    """Answers peer.Peer from one file."""

    def __init__(self, path: Path, poll_s: float = POLL_S) -> None:
        """`path` need not exist yet; it is looked at every `poll_s` while somebody listens."""
        self._path = path
        self._poll_s = poll_s
        self._version: Version | None = None
        self._peers: dict[str, AnnouncedPeer] = {}

    async def Notify(  # noqa: N802  # gRPC method name
        self, _request: peer_pb2.NotifyRequest, _context: object
    ) -> AsyncIterator[peer_pb2.ChangeNotification]:
        """Announce all peers, then changes, until the client leaves."""
        announced: dict[str, AnnouncedPeer] = {}
        while True:
            current = self._current()
            for change in changes(announced, current):
                yield change
            announced = current
            await asyncio.sleep(self._poll_s)

    def _current(self) -> dict[str, AnnouncedPeer]:
        """What the file says, read again when it was replaced."""
        try:
            stat = self._path.stat()
            version = (stat.st_ino, stat.st_mtime_ns, stat.st_size)
            if version != self._version:
                self._version = version
                self._peers = read_peers(self._path) or {}
        except FileNotFoundError:
            return self._peers
        except (InvalidInputError, OSError) as error:
            facts = {"path": str(self._path), "error": str(error)}
            logger.warning("peers file unusable, the last one stays", extra=facts)
        return self._peers


def changes(before: Peers, after: Peers) -> Iterator[peer_pb2.ChangeNotification]:
    """What to announce so that a client who knows `before` knows `after`; those that left come first."""
    for name in sorted(before.keys() - after.keys()):
        yield _notification(before[name], peer_pb2.PEER_DELETED)
    for name in sorted(after):
        if name not in before:
            yield _notification(after[name], peer_pb2.PEER_ADDED)
        elif after[name] != before[name]:
            yield _notification(after[name], peer_pb2.PEER_UPDATED)


def _notification(
    peer: AnnouncedPeer, kind: peer_pb2.ChangeNotificationType.ValueType
) -> peer_pb2.ChangeNotification:
    change = peer_pb2.ChangeNotification(name=peer.name, address=peer.address, type=kind)
    if peer.server_name:
        change.tls.server_name = peer.server_name
    return change
