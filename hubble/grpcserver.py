"""The flow server's gRPC side: services, reflection and health on a unix socket or on TCP with mutual TLS.

Not the process (`hubble.server`) and not the answers (`hubble.observer`, `hubble.batches`, `hubble.peer`).
"""

import grp
import logging
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import grpc
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from hubble.batches import FlowBatchesService
from hubble.observer import ObserverService
from hubble.peer import PeerService
from palomar.clock import Clock
from palomar.tls import ConnectionAge, TlsFiles, check_listener, server_credentials
from palomar_pb.observer import observer_pb2
from palomar_pb.palomar.v1 import batch_pb2
from palomar_pb.peer import peer_pb2

logger = logging.getLogger(__name__)

OBSERVER = observer_pb2.DESCRIPTOR.services_by_name["Observer"]
FLOW_BATCHES = batch_pb2.DESCRIPTOR.services_by_name["FlowBatches"]
PEER = peer_pb2.DESCRIPTOR.services_by_name["Peer"]
NODE_CONNECTION_AGE = ConnectionAge(age_s=900, grace_s=60)
"""Relays come back and resume; a revoked one is out after a quarter of an hour."""
SERVER_OPTIONS = (
    ("grpc.so_reuseport", 0),  # a second server on the same port is a mistake, not a way to share load
    ("grpc.http2.min_ping_interval_without_data_ms", 1_000),
    ("grpc.keepalive_permit_without_calls", 1),
)
SOCKET_MODE = 0o660
GRACE_S = 1.0
"""How long running calls may go on when the server stops; followers never end by themselves."""


class Listener(Protocol):
    """Where a server listens."""

    @property
    def options(self) -> Sequence[tuple[str, int]]:
        """Options of the grpc server."""
        ...

    def bind(self, server: Any) -> None:
        """Add the port to `server`. Raises InvalidInputError and RuntimeError (address in use)."""
        ...

    def close(self) -> None:
        """Remove what `bind` left in the file system."""
        ...


class UnixListener:
    """A unix socket, for those who may open it."""

    options: Sequence[tuple[str, int]] = ()

    def __init__(self, socket: Path, group: str) -> None:
        """`group` may use the socket besides root; empty for none."""
        self._socket = socket
        self._group = group

    def bind(self, server: Any) -> None:
        """Make the socket with its final mode from the start."""
        self._socket.parent.mkdir(parents=True, exist_ok=True)
        before = os.umask(0o777 & ~SOCKET_MODE)
        try:
            server.add_insecure_port(f"unix:{self._socket}")
        finally:
            os.umask(before)
        self._give_to_group()
        logger.info("flow server listens", extra={"socket": str(self._socket)})

    def _give_to_group(self) -> None:
        if not self._group:
            return
        try:
            shutil.chown(self._socket, group=grp.getgrnam(self._group).gr_gid)
        except (KeyError, PermissionError) as error:
            facts = {"group": self._group, "socket": str(self._socket), "error": str(error)}
            logger.warning("socket stays with its owner's group", extra=facts)

    def close(self) -> None:
        """Remove the socket."""
        self._socket.unlink(missing_ok=True)


class TcpListener:
    """TCP with mutual TLS, or in plain text on loopback where that was asked for loudly."""

    def __init__(
        self,
        address: str,
        tls: TlsFiles | None,
        allow_insecure: bool = False,
        age: ConnectionAge = NODE_CONNECTION_AGE,
    ) -> None:
        """`address` is `host:port`. Raises InvalidInputError for plain text that is not allowed."""
        check_listener(address, tls, allow_insecure, "listen_address")
        self._address = address
        self._tls = tls
        self.options: Sequence[tuple[str, int]] = age.options
        self.port = 0
        """The port it got, after `bind`."""

    def bind(self, server: Any) -> None:
        """Listen; every handshake looks at the certificate files as they are then."""
        if self._tls is None:
            logger.warning("SERVING PLAIN TEXT WITHOUT TLS, AS TOLD", extra={"address": self._address})
            self.port = server.add_insecure_port(self._address)
        else:
            self.port = server.add_secure_port(self._address, server_credentials(self._tls))
        facts = {"address": self._address, "port": self.port, "tls": self._tls is not None}
        logger.info("flow server listens", extra=facts)

    def close(self) -> None:
        """TCP leaves nothing behind."""


class GrpcServer:
    """Listens in one place."""

    def __init__(
        self, listener: Listener, observer: ObserverService, peers: PeerService, clock: Clock
    ) -> None:
        """Nothing is opened before `start`."""
        self._listener = listener
        self._serving = False
        self._server = grpc.aio.server(options=(*SERVER_OPTIONS, *listener.options))
        self._health = health.aio.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        _add(self._server, OBSERVER, observer)
        _add(self._server, FLOW_BATCHES, FlowBatchesService(observer, clock))
        _add(self._server, PEER, peers)
        services = (OBSERVER, FLOW_BATCHES, PEER)
        names = [service.full_name for service in services]
        reflection.enable_server_reflection(
            [*names, health.SERVICE_NAME, reflection.SERVICE_NAME], self._server
        )

    async def start(self) -> None:
        """Listen; health says NOT_SERVING until `set_serving`."""
        await self.set_serving(self._serving)
        self._listener.bind(self._server)
        await self._server.start()

    async def set_serving(self, serving: bool) -> None:
        """Tell health checkers whether flows can be asked for; before `start` as well."""
        self._serving = serving
        status = (
            health_pb2.HealthCheckResponse.SERVING if serving else health_pb2.HealthCheckResponse.NOT_SERVING
        )
        for name in (health.OVERALL_HEALTH, OBSERVER.full_name, FLOW_BATCHES.full_name):
            await self._health.set(name, status)

    async def stop(self) -> None:
        """Refuse new calls, end the running ones after a grace period."""
        await self._health.enter_graceful_shutdown()
        await self._server.stop(GRACE_S)
        self._listener.close()


def _add(server: Any, service: ServiceDescriptor, methods: object) -> None:
    """Register every method of `service`; `methods` has one of the same name for each."""
    handlers = {method.name: _handler(method, getattr(methods, method.name)) for method in service.methods}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service.full_name, handlers),))


def _handler(method: MethodDescriptor, answer: object) -> Any:
    make = (
        grpc.unary_stream_rpc_method_handler
        if method.server_streaming
        else grpc.unary_unary_rpc_method_handler
    )
    return make(
        answer,
        request_deserializer=GetMessageClass(method.input_type).FromString,
        response_serializer=_encode,
    )


def _encode(response: Message | bytes) -> bytes:
    """Flows come as bytes already."""
    return response if isinstance(response, bytes) else response.SerializeToString()
