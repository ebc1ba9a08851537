"""A gRPC server of some services: registered by descriptor, with reflection and health, in one place.

What the flow server and the relay have in common; each lists its own services. Not here: where it listens
(`palomar.rpclistener`) and what it answers. A method may answer with a message, or with bytes that are
serialised already.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import grpc
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from palomar.rpclistener import Listener, Options

SERVER_OPTIONS: Options = (
    ("grpc.so_reuseport", 0),  # a second server on the same port is a mistake, not a way to share load
    ("grpc.http2.min_ping_interval_without_data_ms", 1_000),
    ("grpc.keepalive_permit_without_calls", 1),
)
HUBBLE_HEALTH_NAME = "hubble.server.Observer"
"""By what `hubble status` asks whether an `observer.Observer` is well; it ends where that is not known."""
GRACE_S = 1.0
"""How long running calls may go on when the server stops; followers never end by themselves."""


@dataclass(frozen=True, slots=True)
class Service:
    """A service and who answers it."""

    descriptor: ServiceDescriptor
    methods: object
    """Has a coroutine or an async generator of the same name for each method of the service."""
    in_health: bool = True
    """Health is told of this service by its name, besides the server as a whole."""
    health_aliases: Sequence[str] = ()
    """Other names by which clients ask for its health."""


class RpcServer:
    """Listens in one place."""

    def __init__(self, listener: Listener, services: Sequence[Service], options: Options = ()) -> None:
        """`options` come besides SERVER_OPTIONS and the listener's. Nothing is opened before `start`."""
        self.listener = listener
        told_of = [item for item in services if item.in_health]
        self._in_health = [
            name for item in told_of for name in (item.descriptor.full_name, *item.health_aliases)
        ]
        self._serving = False
        self._server = grpc.aio.server(options=(*SERVER_OPTIONS, *options, *listener.options))
        self._health = health.aio.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        for service in services:
            add_service(self._server, service.descriptor, service.methods)
        names = [service.descriptor.full_name for service in services]
        reflection.enable_server_reflection(
            [*names, health.SERVICE_NAME, reflection.SERVICE_NAME], self._server
        )

    @property
    def port(self) -> int:
        """The TCP port it got, after `start`; 0 for a unix socket."""
        return self.listener.port

    async def start(self) -> None:
        """Listen; health says NOT_SERVING until `set_serving`.

        Raises InvalidInputError where it cannot listen (yet); may be called again then.
        """
        await self.set_serving(self._serving)
        self.listener.bind(self._server)
        await self._server.start()

    async def set_serving(self, serving: bool) -> None:
        """Tell health checkers whether there is something to answer from; before `start` as well."""
        self._serving = serving
        status = (
            health_pb2.HealthCheckResponse.SERVING if serving else health_pb2.HealthCheckResponse.NOT_SERVING
        )
        for name in (health.OVERALL_HEALTH, *self._in_health):
            await self._health.set(name, status)

    async def stop(self) -> None:
        """Refuse new calls, end the running ones after a grace period."""
        await self._health.enter_graceful_shutdown()
        await self._server.stop(GRACE_S)
        self.listener.close()


def add_service(server: Any, service: ServiceDescriptor, methods: object) -> None:
    """Register every method of `service` on a grpc server; `methods` has one of the same name for each."""
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
