"""An OTLP receiver for the lab: a collector's front door, over gRPC and HTTP, that writes down what comes.

`python -m lab.otlp --grpc HOST:PORT --http HOST:PORT [--output FILE]`. Input: OTLP logs and metrics;
output: one JSON object per log record or metric point in FILE (bounded: one old file is kept), and totals
at `GET /counts` of the HTTP port. Not a collector: nothing is passed on. Also the receiver of the tests
(`tests/kit/otlpreceiver.py`).
"""

import argparse
import asyncio
import contextlib
import json
import signal
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import grpc
from aiohttp import web
from google.protobuf.message import DecodeError, Message
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import (
    ExportLogsServiceRequest,
    ExportLogsServiceResponse,
)
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
    ExportMetricsServiceResponse,
)
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue

from palomar.errors import InvalidInputError
from palomar.tls import server_credentials, tls_files

LOGS, METRICS = "logs", "metrics"
REQUESTS: dict[str, tuple[type[Message], type[Message]]] = {
    LOGS: (ExportLogsServiceRequest, ExportLogsServiceResponse),
    METRICS: (ExportMetricsServiceRequest, ExportMetricsServiceResponse),
}
GRPC_SERVICES = {
    LOGS: "opentelemetry.proto.collector.logs.v1.LogsService",
    METRICS: "opentelemetry.proto.collector.metrics.v1.MetricsService",
}
PROTOBUF = "application/x-protobuf"
MAX_REQUEST_BYTES = 16 << 20
MAX_OUTPUT_BYTES = 64 << 20
"""A larger output file is renamed to `<name>.old`, over the one before."""
EXIT_BAD_ARGUMENTS = 2


def plain(value: AnyValue) -> Any:
    """Return an attribute's value as Python has it."""
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [plain(item) for item in value.array_value.values]
    if kind == "kvlist_value":
        return attributes(value.kvlist_value.values)
    return None if kind is None else getattr(value, kind)


def attributes(pairs: Sequence[KeyValue]) -> dict[str, Any]:
    """Return attributes by name."""
    return {pair.key: plain(pair.value) for pair in pairs}


def log_entries(request: ExportLogsServiceRequest) -> Iterator[dict[str, Any]]:
    """Yield what each log record says."""
    for resource in request.resource_logs:
        whose = attributes(resource.resource.attributes)
        for scope in resource.scope_logs:
            for record in scope.log_records:
                yield {
                    "signal": LOGS,
                    "time_ns": record.time_unix_nano,
                    "observed_ns": record.observed_time_unix_nano,
                    "severity": record.severity_text,
                    "severity_number": record.severity_number,
                    "event": record.event_name,
                    "body": plain(record.body),
                    "attributes": attributes(record.attributes),
                    "resource": whose,
                    "scope": scope.scope.name,
                }


def metric_entries(request: ExportMetricsServiceRequest) -> Iterator[dict[str, Any]]:
    """Yield what each point of a sum or gauge says."""
    for resource in request.resource_metrics:
        whose = attributes(resource.resource.attributes)
        for scope in resource.scope_metrics:
            for metric in scope.metrics:
                points = metric.sum.data_points if metric.HasField("sum") else metric.gauge.data_points
                for point in points:
                    yield {
                        "signal": METRICS,
                        "name": metric.name,
                        "unit": metric.unit,
                        "start_ns": point.start_time_unix_nano,
                        "time_ns": point.time_unix_nano,
                        "value": point.as_int if point.WhichOneof("value") == "as_int" else point.as_double,
                        "monotonic": metric.sum.is_monotonic,
                        "attributes": attributes(point.attributes),
                        "resource": whose,
                    }


class Received:
    """What came, as totals and in a file."""

    def __init__(self, output: Path | None = None, max_bytes: int = MAX_OUTPUT_BYTES) -> None:
        """Without `output` only totals are kept."""
        self._output = output
        self._max_bytes = max_bytes
        self.requests: Counter[str] = Counter()
        self.records: Counter[str] = Counter()
        """By signal."""
        self.by_verdict: Counter[str] = Counter()
        """Of log records that are flows."""
        self.by_node: Counter[str] = Counter()
        """Likewise."""

    def take(self, signal_name: str, request: Message) -> None:
        """Write a request down and count it. Raises OSError where the file takes nothing more."""
        if isinstance(request, ExportLogsServiceRequest):
            entries = list(log_entries(request))
        elif isinstance(request, ExportMetricsServiceRequest):
            entries = list(metric_entries(request))
        else:
            entries = []
        self.keep(entries)
        self.requests[signal_name] += 1
        self.records[signal_name] += len(entries)
        for entry in entries:
            verdict = entry["attributes"].get("palomar.flow.verdict")
            if verdict is not None:
                self.by_verdict[verdict] += 1
                self.by_node[entry["resource"].get("k8s.node.name", "")] += 1

    def keep(self, entries: Sequence[dict[str, Any]]) -> None:
        """Append entries to the file, all or none; raises OSError."""
        if self._output is None or not entries:
            return
        rest = "".join(json.dumps(entry, default=str) + "\n" for entry in entries).encode()
        with self._output.open("ab", buffering=0) as file:
            begin = file.tell()
            try:
                while rest:
                    rest = rest[file.write(rest) :]
            except OSError:
                with contextlib.suppress(OSError):
                    file.truncate(begin)  # a record cut short would spoil the next
                raise
            size = file.tell()
        if size > self._max_bytes:
            self._output.replace(self._output.with_name(self._output.name + ".old"))

    def counts(self) -> dict[str, Any]:
        """Return the totals."""
        return {
            "requests": dict(self.requests),
            "logs": self.records[LOGS],
            "metric_points": self.records[METRICS],
            "by_verdict": dict(self.by_verdict),
            "by_node": dict(self.by_node),
        }


class OtlpReceiver:
    """Listens on a gRPC and an HTTP port."""

    def __init__(self, received: Received) -> None:
        """Nothing listens before `start`."""
        self.received = received
        self.grpc_port = 0
        self.http_port = 0
        self._server: grpc.aio.Server | None = None
        self._runner: web.AppRunner | None = None

    async def start(
        self,
        grpc_address: str,
        http_address: str,
        credentials: grpc.ServerCredentials | None = None,
    ) -> None:
        """Listen on both `host:port` addresses (port 0: any); an empty one is left out."""
        if grpc_address:
            await self._start_grpc(grpc_address, credentials)
        if http_address:
            await self._start_http(http_address)

    async def _start_grpc(self, address: str, credentials: grpc.ServerCredentials | None) -> None:
        options = [("grpc.so_reuseport", 0), ("grpc.max_receive_message_length", MAX_REQUEST_BYTES)]
        server = grpc.aio.server(options=options)
        server.add_generic_rpc_handlers([self._handlers(name) for name in REQUESTS])
        if credentials is None:
            self.grpc_port = server.add_insecure_port(address)
        else:
            self.grpc_port = server.add_secure_port(address, credentials)
        await server.start()
        self._server = server

    def _handlers(self, signal_name: str) -> grpc.GenericRpcHandler:
        request_type, response_type = REQUESTS[signal_name]

        async def export(request: Message, context: grpc.aio.ServicerContext) -> Message:
            return await self.answer_grpc(signal_name, request, context)

        method = grpc.unary_unary_rpc_method_handler(
            export,
            request_deserializer=request_type.FromString,
            response_serializer=response_type.SerializeToString,
        )
        return grpc.method_handlers_generic_handler(GRPC_SERVICES[signal_name], {"Export": method})

    async def answer_grpc(
        self, signal_name: str, request: Message, context: grpc.aio.ServicerContext
    ) -> Message:
        """Take the request; UNAVAILABLE, so that it is sent again, while it cannot be written down."""
        try:
            self.received.take(signal_name, request)
        except OSError as error:
            await context.abort(grpc.StatusCode.UNAVAILABLE, f"cannot write it down: {error}")
        return REQUESTS[signal_name][1]()

    async def _start_http(self, address: str) -> None:
        app = web.Application(client_max_size=MAX_REQUEST_BYTES)
        app.router.add_get("/counts", self._counts)
        app.router.add_post("/v1/{signal}", self.answer_http)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.5)
        await self._runner.setup()
        host, _, port = address.rpartition(":")
        await web.TCPSite(self._runner, host.strip("[]"), int(port)).start()
        self.http_port = self._runner.addresses[0][1]

    async def answer_http(self, request: web.Request) -> web.StreamResponse:
        """Take the request."""
        signal_name = request.match_info["signal"]
        if signal_name not in REQUESTS:
            return web.Response(status=404, text=f"no signal {signal_name}\n")
        if request.content_type != PROTOBUF:
            return web.Response(status=415, text=f"give {PROTOBUF}\n")
        message, answer = (make() for make in REQUESTS[signal_name])
        try:
            message.ParseFromString(await request.read())
        except DecodeError as error:
            return web.Response(status=400, text=f"{error}\n")
        try:
            self.received.take(signal_name, message)
        except OSError as error:
            return web.Response(status=503, text=f"cannot write it down: {error}\n")
        return web.Response(body=answer.SerializeToString(), content_type=PROTOBUF)

    async def _counts(self, _: web.Request) -> web.Response:
        return web.json_response(self.received.counts())

    async def stop(self) -> None:
        """Close both ports. Idempotent."""
        server, self._server = self._server, None
        runner, self._runner = self._runner, None
        if server is not None:
            await server.stop(0.2)
        if runner is not None:
            await runner.cleanup()


async def serve(args: argparse.Namespace) -> None:
    """Run until SIGTERM or SIGINT."""
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    files = tls_files(args.tls_cert, args.tls_key, args.tls_ca, "tls")
    receiver = OtlpReceiver(Received(args.output))
    await receiver.start(args.grpc, args.http, server_credentials(files) if files is not None else None)
    print(json.dumps({"grpc_port": receiver.grpc_port, "http_port": receiver.http_port}), flush=True)
    try:
        await stopped.wait()
    finally:
        await receiver.stop()


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of the process; returns its status."""
    parser = argparse.ArgumentParser(
        prog="lab.otlp", description="An OTLP receiver that writes down what comes."
    )
    parser.add_argument("--grpc", default="127.0.0.1:4317", help="host:port for OTLP/gRPC; empty for none")
    parser.add_argument("--http", default="127.0.0.1:4318", help="host:port for OTLP/HTTP and /counts")
    parser.add_argument("--output", type=Path, help="file for one JSON object per record")
    parser.add_argument("--tls-cert", default="", help="serve OTLP/gRPC with mutual TLS: certificate")
    parser.add_argument("--tls-key", default="", help="its key")
    parser.add_argument("--tls-ca", default="", help="CA of the clients")
    args = parser.parse_args(argv)
    try:
        asyncio.run(serve(args))
    except (InvalidInputError, OSError, OverflowError, RuntimeError, ValueError) as error:
        sys.stderr.write(f"lab.otlp: {error}\n")
        return EXIT_BAD_ARGUMENTS
    return 0


if __name__ == "__main__":
    sys.exit(main())
