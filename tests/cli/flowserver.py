"""A small real gRPC flow server for tests of commands: answers from a list, remembers requests.

Speaks `observer.Observer` and, when told, the batched service; over a unix socket or TLS.
"""

import contextlib
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent import futures
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health import HealthServicer

from palomar_pb.observer import observer_pb2, observer_pb2_grpc
from palomar_pb.palomar.v1 import batch_pb2, batch_pb2_grpc


class FlowServer(observer_pb2_grpc.ObserverServicer):
    """Gives every caller `responses`; a follower is held open until the call or the server ends."""

    def __init__(self, responses: Sequence[observer_pb2.GetFlowsResponse] = ()) -> None:
        self.responses = list(responses)
        self.agent_events: list[observer_pb2.GetAgentEventsResponse] = []
        self.requests: list[Any] = []
        self.ended = threading.Event()
        self.status = observer_pb2.ServerStatusResponse(num_flows=10, max_flows=100, seen_flows=17)
        self.nodes = observer_pb2.GetNodesResponse()
        self.namespaces = observer_pb2.GetNamespacesResponse()
        self.fail: tuple[grpc.StatusCode, str] | None = None

    def _hold(self, context: grpc.ServicerContext) -> None:
        context.add_callback(self.ended.set)
        self.ended.wait(30)

    def GetFlows(self, request, context):  # noqa: N802  # the wire's name
        self.requests.append(request)
        if self.fail:
            context.abort(*self.fail)
        yield from self.responses
        if request.follow:
            self._hold(context)

    def GetAgentEvents(self, request, context):  # noqa: N802  # the wire's name
        self.requests.append(request)
        yield from self.agent_events

    def ServerStatus(self, request, context):  # noqa: N802  # the wire's name
        return self.status

    def GetNodes(self, request, context):  # noqa: N802  # the wire's name
        return self.nodes

    def GetNamespaces(self, request, context):  # noqa: N802  # the wire's name
        return self.namespaces


class BatchServer(batch_pb2_grpc.FlowBatchesServicer):
    """The same flows, two responses to a message, with the node's counters."""

    def __init__(self, flows: FlowServer, observed: int = 100, lost: int = 3) -> None:
        self.flows = flows
        self.observed = observed
        self.lost = lost

    def GetFlows(self, request, context):  # noqa: N802  # the wire's name
        self.flows.requests.append(request)
        listed = self.flows.responses
        for start in range(0, len(listed), 2):
            yield batch_pb2.FlowBatch(
                responses=listed[start : start + 2], observed=self.observed, lost=self.lost
            )
        if request.follow:
            self.flows._hold(context)


@contextlib.contextmanager
def serving(
    flows: FlowServer,
    address: str,
    batches: BatchServer | None = None,
    credentials: grpc.ServerCredentials | None = None,
    health: Mapping[str, str] | None = None,
) -> Iterator[int]:
    """Serve at `address` while the block runs; yields the port (0 for a unix socket).

    `health` is a state by service; without any there are no health checks.
    """
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=4))
    observer_pb2_grpc.add_ObserverServicer_to_server(flows, server)
    if batches is not None:
        batch_pb2_grpc.add_FlowBatchesServicer_to_server(batches, server)
    if health:
        checks = HealthServicer()
        for name, state in health.items():
            checks.set(name, health_pb2.HealthCheckResponse.ServingStatus.Value(state))
        health_pb2_grpc.add_HealthServicer_to_server(checks, server)
    if credentials is None:
        port = server.add_insecure_port(address)
    else:
        port = server.add_secure_port(address, credentials)
    server.start()
    try:
        yield port
    finally:
        flows.ended.set()
        server.stop(None).wait(5)
