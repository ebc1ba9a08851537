"""The relay's gRPC side: its services and where it listens.

Not the process (`relay.main`), not the answers (`relay.service`), not what every gRPC server of ours does
(`palomar.rpc`).
"""

import logging

from palomar.paths import SOCKET_GROUP
from palomar.rpc import HUBBLE_HEALTH_NAME, RpcServer, Service
from palomar.rpclistener import listener_of
from palomar.tls import ConnectionAge, TlsFiles
from palomar_pb.observer import observer_pb2
from palomar_pb.palomar.v1 import batch_pb2
from relay.service import RelayBatches, RelayCore, RelayObserver

logger = logging.getLogger(__name__)

OBSERVER = observer_pb2.DESCRIPTOR.services_by_name["Observer"]
FLOW_BATCHES = batch_pb2.DESCRIPTOR.services_by_name["FlowBatches"]
CONNECTION_AGE = ConnectionAge(age_s=3_600, grace_s=600)
"""A client comes back at least hourly; a stream may outlive its connection's age by ten minutes."""
KEEPALIVE_OPTIONS = (
    ("grpc.keepalive_time_ms", 30_000),  # clients that are gone without a word
    ("grpc.keepalive_timeout_ms", 10_000),
)


class RelayServer(RpcServer):
    """Listens in one place."""

    def __init__(
        self,
        address: str,
        tls: TlsFiles | None,
        core: RelayCore,
        *,
        allow_insecure: bool = False,
        age: ConnectionAge = CONNECTION_AGE,
        group: str = SOCKET_GROUP,
    ) -> None:
        """`address` is `host:port`, or `unix:///path` for `group` (empty for the owner alone).

        Raises InvalidInputError for TCP without mutual TLS.
        """
        listener = listener_of(address, tls, allow_insecure, age, "listen", group)
        services = (
            Service(OBSERVER, RelayObserver(core), health_aliases=(HUBBLE_HEALTH_NAME,)),
            Service(FLOW_BATCHES, RelayBatches(core)),
        )
        super().__init__(listener, services, KEEPALIVE_OPTIONS)

    async def start(self) -> None:
        """Listen; health says NOT_SERVING until `set_serving`. Raises InvalidInputError."""
        await super().start()
        logger.info("relay listens", extra=self.listener.facts)
