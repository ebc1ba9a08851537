"""Learning which nodes there are: `peer.Peer/Notify` of one node, kept up, and a fixed list.

Input: announcements; output: the peer pool. While the announcing node is away what it said last stays;
when it is back, what it does not name again within `SETTLE_S` is gone.
"""

import asyncio
import logging
import random
from dataclasses import dataclass
from typing import Any

import grpc

from palomar import tasks
from palomar.errors import InvalidInputError
from palomar.tls import TlsFiles
from palomar_pb.peer import peer_pb2, peer_pb2_grpc
from relay.channel import open_channel
from relay.peers import Peer, PeerPool

logger = logging.getLogger(__name__)

RETRY_S = 1.0
SETTLE_S = 3.0


@dataclass(frozen=True, slots=True)
class PeerService:
    """Who announces the peers."""

    address: str
    """gRPC target: `unix:///path` or `host:port`."""
    server_name: str = ""
    """Name in its certificate; for TCP only."""


class Discovery:
    """Keeps the pool at what one node announces, besides peers that are fixed."""

    def __init__(
        self,
        pool: PeerPool,
        service: PeerService | None,
        fixed: tuple[Peer, ...],
        tls: TlsFiles | None,
        *,
        settle_s: float = SETTLE_S,
    ) -> None:
        """`service` None: the fixed peers are all."""
        self._pool = pool
        self._service = service
        self._fixed = {peer.name: peer for peer in fixed}
        self._tls = tls
        self._settle_s = settle_s
        self._announced: set[str] = set()
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Add the fixed peers and begin to listen."""
        for peer in self._fixed.values():
            await self._pool.upsert(peer)
        if self._service is not None:
            self._task = tasks.spawn(self._run(self._service), "relay discovery")
        elif not self._fixed:
            logger.warning("this relay knows no peers: give it --peer-service or --peer")

    async def stop(self) -> None:
        """Stop listening; the pool stays as it is."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self, service: PeerService) -> None:
        said = ""
        while True:
            try:
                channel = open_channel(service.address, service.server_name, self._tls, "the peer service")
                try:
                    await self._listen(channel, service)
                finally:
                    await channel.close()
                reason = "it ended the announcements"
            except grpc.aio.AioRpcError as error:
                reason = error.details() or error.code().name
            except InvalidInputError as error:
                reason = str(error)
            if reason != said:
                said = reason
                facts = {"address": service.address, "reason": reason}
                logger.warning("peer service not reached, known peers stay", extra=facts)
            await asyncio.sleep(RETRY_S * random.uniform(0.5, 1.5))  # noqa: S311 - jitter, no secret

    async def _listen(self, channel: grpc.aio.Channel, service: PeerService) -> None:
        heard: set[str] = set()
        stream: Any = peer_pb2_grpc.PeerStub(channel).Notify(peer_pb2.NotifyRequest(), wait_for_ready=True)
        settling: asyncio.Task[None] | None = None
        try:
            async for change in stream:
                if settling is None:
                    logger.info("peer service connected", extra={"address": service.address})
                    settling = tasks.spawn(self._settle(heard), "relay discovery settles")
                await self._apply(change, heard)
        finally:
            if settling is not None:
                settling.cancel()

    async def _settle(self, heard: set[str]) -> None:
        """After a while, forget whom this stream did not name."""
        await asyncio.sleep(self._settle_s)
        for name in sorted(self._announced - heard):
            await self._remove(name)

    async def _apply(self, change: peer_pb2.ChangeNotification, heard: set[str]) -> None:
        if change.type == peer_pb2.PEER_DELETED:
            heard.discard(change.name)
            await self._remove(change.name)
            return
        heard.add(change.name)
        if change.name not in self._fixed:
            self._announced.add(change.name)
            await self._pool.upsert(Peer(change.name, change.address, change.tls.server_name))

    async def _remove(self, name: str) -> None:
        self._announced.discard(name)
        if name not in self._fixed:
            await self._pool.remove(name)
