"""The relay's gRPC side: services, reflection and health on TCP with mutual TLS, or on a unix socket.

Not the process (`relay.main`) and not the answers (`relay.service`).
"""

import logging
from pathlib import Path
from typing import Any

import grpc
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from palomar.errors import InvalidInputError
from palomar.tls import ConnectionAge, TlsFiles, check_listener, server_credentials
from palomar_pb.observer import observer_pb2
from palomar_pb.palomar.v1 import batch_pb2
from relay.service import RelayBatches, RelayCore, RelayObserver

logger = logging.getLogger(__name__)

OBSERVER = observer_pb2.DESCRIPTOR.services_by_name["Observer"]
FLOW_BATCHES = batch_pb2.DESCRIPTOR.services_by_name["FlowBatches"]
CONNECTION_AGE = ConnectionAge(age_s=3_600, grace_s=600)
"""A client comes back at least hourly; a stream may outlive its connection's age by ten minutes."""
GRACE_S = 1.0
OPTIONS = (
    ("grpc.so_reuseport", 0),  # a second relay on the same port is a mistake, not a way to share load
    ("grpc.http2.min_ping_interval_without_data_ms", 1_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.keepalive_time_ms", 30_000),  # clients that are gone without a word
    ("grpc.keepalive_timeout_ms", 10_000),
)
UNIX = "unix:"


class RelayServer:
    """Listens in one place."""

    def __init__(
        self,
        address: str,
        tls: TlsFiles | None,
        core: RelayCore,
        *,
        allow_insecure: bool = False,
        age: ConnectionAge = CONNECTION_AGE,
    ) -> None:
        """`address` is `host:port` or `unix:///path`. Raises InvalidInputError for TCP without mutual TLS."""
        if not address.startswith(UNIX):
            check_listener(address, tls, allow_insecure, "listen")
        self._address = address
        self._tls = tls
        self._server = grpc.aio.server(options=(*OPTIONS, *age.options))
        self._health = health.aio.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        _add(self._server, OBSERVER, RelayObserver(core))
        _add(self._server, FLOW_BATCHES, RelayBatches(core))
        names = (OBSERVER.full_name, FLOW_BATCHES.full_name, health.SERVICE_NAME, reflection.SERVICE_NAME)
        reflection.enable_server_reflection(names, self._server)
        self.port = 0
        """The port it got, after `start`."""

    async def start(self) -> None:
        """Listen; health says NOT_SERVING until `set_serving`. Raises InvalidInputError."""
        await self.set_serving(False)
        try:
            self.port = self._bind()
        except RuntimeError as error:
            raise InvalidInputError(f"cannot listen on {self._address}: is it in use?", "listen") from error
        await self._server.start()
        facts = {"address": self._address, "port": self.port, "tls": self._tls is not None}
        logger.info("relay listens", extra=facts)

    def _bind(self) -> int:
        if self._address.startswith(UNIX):
            path = Path(self._address.removeprefix(UNIX).removeprefix("//"))
            path.parent.mkdir(parents=True, exist_ok=True)
            return int(self._server.add_insecure_port(f"{UNIX}{path}"))
        if self._tls is None:
            logger.warning("SERVING PLAIN TEXT WITHOUT TLS, AS TOLD", extra={"address": self._address})
            return int(self._server.add_insecure_port(self._address))
        return int(self._server.add_secure_port(self._address, server_credentials(self._tls)))

    async def set_serving(self, serving: bool) -> None:
        """Tell health checkers whether there is a node to ask."""
        status = (
            health_pb2.HealthCheckResponse.SERVING if serving else health_pb2.HealthCheckResponse.NOT_SERVING
        )
        for name in (health.OVERALL_HEALTH, OBSERVER.full_name, FLOW_BATCHES.full_name):
            await self._health.set(name, status)

    async def stop(self) -> None:
        """Refuse new calls and end the running ones after a grace period."""
        await self._health.enter_graceful_shutdown()
        await self._server.stop(GRACE_S)


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
    """Flows are bytes already."""
    return response if isinstance(response, bytes) else response.SerializeToString()
