"""The flow server's gRPC side: its services and where it listens.

Not the process (`hubble.server`), not the answers (`hubble.observer`, `hubble.batches`, `hubble.peer`), not
what every gRPC server of ours does (`palomar.rpc`).
"""

import logging

from hubble.batches import FlowBatchesService
from hubble.observer import ObserverService
from hubble.peer import PeerService
from palomar import rpclistener
from palomar.clock import Clock
from palomar.rpc import HUBBLE_HEALTH_NAME, RpcServer, Service
from palomar.rpclistener import Listener, UnixListener
from palomar.tls import ConnectionAge, TlsFiles
from palomar_pb.observer import observer_pb2
from palomar_pb.palomar.v1 import batch_pb2
from palomar_pb.peer import peer_pb2

__all__ = ["GrpcServer", "Listener", "TcpListener", "UnixListener"]

logger = logging.getLogger(__name__)

OBSERVER = observer_pb2.DESCRIPTOR.services_by_name["Observer"]
FLOW_BATCHES = batch_pb2.DESCRIPTOR.services_by_name["FlowBatches"]
PEER = peer_pb2.DESCRIPTOR.services_by_name["Peer"]
NODE_CONNECTION_AGE = ConnectionAge(age_s=900, grace_s=60)
"""Relays come back and resume; a revoked one is out after a quarter of an hour."""


class TcpListener(rpclistener.TcpListener):
    """For relays, whose connections grow NODE_CONNECTION_AGE old."""

    def __init__(self, address: str, tls: TlsFiles | None, allow_insecure: bool = False) -> None:
        """`address` is `host:port`. Raises InvalidInputError for plain text that is not allowed."""
        super().__init__(address, tls, allow_insecure, NODE_CONNECTION_AGE, "listen_address")


class GrpcServer(RpcServer):
    """Observer, batches and peers in one place; the announcing of peers does not wait for a flow store."""

    def __init__(
        self, listener: Listener, observer: ObserverService, peers: PeerService, clock: Clock
    ) -> None:
        """Nothing is opened before `start`."""
        services = (
            Service(OBSERVER, observer, health_aliases=(HUBBLE_HEALTH_NAME,)),
            Service(FLOW_BATCHES, FlowBatchesService(observer, clock)),
            Service(PEER, peers, in_health=False),
        )
        super().__init__(listener, services)

    async def start(self) -> None:
        """Listen; health says NOT_SERVING until `set_serving`. Raises InvalidInputError."""
        await super().start()
        logger.info("flow server listens", extra=self.listener.facts)
