"""How a request reaches the collector: OTLP over gRPC or HTTP, one request at a time, every wait bounded.

The rim. Input: encoded requests; output: how many items the collector refused, or ExportFailedError (try
again) or ExportRefusedError (do not). Which answers are which is the OTLP specification's (sections
"Failures" of OTLP/gRPC and OTLP/HTTP). Redirects are not followed and answers are read up to a limit: what
listens there may be anything.
"""

import asyncio
import logging
import ssl
from typing import Protocol

import aiohttp
import grpc
from google.protobuf import json_format
from google.protobuf.message import DecodeError, Message
from google.rpc import error_details_pb2, status_pb2  # type: ignore[import-untyped]  # ships no types
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceResponse
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceResponse

from hubble.exporter.config import OtlpConfig
from hubble.exporter.errors import ExportFailedError, ExportRefusedError
from palomar.errors import InvalidInputError

logger = logging.getLogger(__name__)

LOGS, METRICS = "logs", "metrics"
GRPC_METHODS = {
    LOGS: "/opentelemetry.proto.collector.logs.v1.LogsService/Export",
    METRICS: "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export",
}
GRPC_RETRYABLE = {
    grpc.StatusCode.CANCELLED: "cancelled",
    grpc.StatusCode.DEADLINE_EXCEEDED: "timeout",
    grpc.StatusCode.ABORTED: "aborted",
    grpc.StatusCode.OUT_OF_RANGE: "out_of_range",
    grpc.StatusCode.UNAVAILABLE: "unavailable",
    grpc.StatusCode.DATA_LOSS: "data_loss",
}
HTTP_RETRYABLE = {429: "throttled", 502: "unavailable", 503: "unavailable", 504: "timeout"}
MAX_ANSWER_BYTES = 64 << 10
MAX_RECONNECT_MS = 5000
PROTOBUF, JSON = "application/x-protobuf", "application/json"
USER_AGENT = "palomar-otlp"
_DETAILS_KEY = "grpc-status-details-bin"


class Transport(Protocol):
    """A way to the collector."""

    async def send(self, signal: str, request: bytes) -> int:
        """Deliver a request of LOGS or METRICS; return how many of its items the collector refused.

        Raises ExportFailedError, ExportRefusedError, InvalidInputError (TLS files).
        """
        ...

    async def close(self) -> None:
        """Let go of connections. Idempotent."""
        ...


def make_transport(config: OtlpConfig) -> Transport:
    """Return the transport of `config.protocol`; nothing is connected yet."""
    return GrpcTransport(config) if config.protocol == "grpc" else HttpTransport(config)


def _refused_items(signal: str, response: Message) -> int:
    partial = response.partial_success  # type: ignore[attr-defined]  # both responses have it
    return int(partial.rejected_log_records if signal == LOGS else partial.rejected_data_points)


def _empty_response(signal: str) -> Message:
    return ExportLogsServiceResponse() if signal == LOGS else ExportMetricsServiceResponse()


class TlsChanges:
    """Tells when a connection is to be made anew because its TLS files were replaced by usable ones."""

    def __init__(self, config: OtlpConfig) -> None:
        """Nothing is looked at yet."""
        self._config = config
        self._taken: tuple[int, ...] | None = None
        self._told: tuple[int, ...] = ()

    def found(self) -> bool:
        """True at first and after a change.

        Raises InvalidInputError where there is nothing usable at first; later what works stays, and the log
        says why.
        """
        version = self._config.tls_version()
        if version == self._taken:
            return False
        try:
            self._config.tls_bytes()
        except InvalidInputError as error:
            if self._taken is None:
                raise
            if version != self._told:
                self._told = version
                logger.warning(
                    "OTLP certificate files unusable, the old ones stay", extra={"error": str(error)}
                )
            return False
        self._taken = version
        return True


class GrpcTransport:
    """OTLP/gRPC."""

    def __init__(self, config: OtlpConfig) -> None:
        """Nothing is connected before the first `send`."""
        self._config = config
        self._channel: grpc.aio.Channel | None = None
        self._changes = TlsChanges(config)

    async def send(self, signal: str, request: bytes) -> int:
        """See Transport."""
        channel = await self._connected()
        response = _empty_response(signal)
        call = channel.unary_unary(GRPC_METHODS[signal], response_deserializer=type(response).FromString)
        try:
            answer = await call(request, timeout=self._config.timeout_s, metadata=self._config.headers)
        except grpc.aio.AioRpcError as error:
            raise _grpc_error(error) from error
        if not isinstance(answer, type(response)):
            raise ExportRefusedError("the answer is no OTLP response")
        return _refused_items(signal, answer)

    async def _connected(self) -> grpc.aio.Channel:
        if self._changes.found():
            await self.close()
        if self._channel is None:
            options = [
                ("grpc.max_reconnect_backoff_ms", MAX_RECONNECT_MS),
                ("grpc.max_receive_message_length", MAX_ANSWER_BYTES),
                ("grpc.primary_user_agent", USER_AGENT),
                ("grpc.enable_http_proxy", 0),
            ]
            if self._config.is_encrypted:
                ca, key, cert = self._config.tls_bytes()
                credentials = grpc.ssl_channel_credentials(ca, key, cert)
                self._channel = grpc.aio.secure_channel(self._config.target, credentials, options)
            else:
                self._channel = grpc.aio.insecure_channel(self._config.target, options)
        return self._channel

    async def close(self) -> None:
        """See Transport."""
        channel, self._channel = self._channel, None
        if channel is not None:
            await channel.close()


def _grpc_error(error: grpc.aio.AioRpcError) -> Exception:
    code = error.code()
    message = f"{code.name}: {error.details()}"
    kind = GRPC_RETRYABLE.get(code)
    retry_after_s = _retry_info_s(error)
    if kind is None and code is grpc.StatusCode.RESOURCE_EXHAUSTED and retry_after_s is not None:
        kind = "throttled"
    if kind is None:
        return ExportRefusedError(message)
    return ExportFailedError(kind, message, retry_after_s or 0.0)


def _retry_info_s(error: grpc.aio.AioRpcError) -> float | None:
    """How long the server wants us to wait (google.rpc.RetryInfo); None when it does not say."""
    for key, value in error.trailing_metadata() or ():
        if key != _DETAILS_KEY or not isinstance(value, bytes):
            continue
        try:
            for detail in status_pb2.Status.FromString(value).details:
                info = error_details_pb2.RetryInfo()
                if detail.Unpack(info):
                    return max(0.0, float(info.retry_delay.ToNanoseconds()) / 1e9)
        except DecodeError:
            return None
    return None


class HttpTransport:
    """OTLP/HTTP with protobuf bodies."""

    def __init__(self, config: OtlpConfig) -> None:
        """Nothing is connected before the first `send`."""
        self._config = config
        self._session: aiohttp.ClientSession | None = None
        self._changes = TlsChanges(config)

    async def send(self, signal: str, request: bytes) -> int:
        """See Transport."""
        session = await self._connected()
        try:
            async with (
                asyncio.timeout(self._config.timeout_s),
                session.post(
                    self._config.url(signal),
                    data=request,
                    headers={
                        "Content-Type": PROTOBUF,
                        "User-Agent": USER_AGENT,
                        **dict(self._config.headers),
                    },
                    allow_redirects=False,
                ) as response,
            ):
                return self._judge(signal, response, await _bounded_body(response))
        except TimeoutError as error:
            raise ExportFailedError("timeout", f"no answer within {self._config.timeout_s} s") from error
        except aiohttp.ClientConnectionError as error:
            raise ExportFailedError("unavailable", str(error) or type(error).__name__) from error
        except (aiohttp.ClientError, ValueError) as error:
            # Something answers that does not speak HTTP as we know it.
            raise ExportRefusedError(f"no HTTP answer: {error}") from error

    def _judge(self, signal: str, response: aiohttp.ClientResponse, body: bytes) -> int:
        kind = HTTP_RETRYABLE.get(response.status)
        if kind is not None:
            wish_s = _retry_after_s(response.headers.get("Retry-After", ""))
            raise ExportFailedError(kind, f"status {response.status}", wish_s)
        if response.status != 200:
            raise ExportRefusedError(f"status {response.status}: {body[:200]!r}")
        answer = _empty_response(signal)
        try:
            if response.content_type == JSON:
                json_format.Parse(body, answer, ignore_unknown_fields=True)
            elif response.content_type == PROTOBUF or not body:
                answer.ParseFromString(body)
            else:
                raise ExportRefusedError(f"no collector: it answers {response.content_type}")
        except (DecodeError, json_format.ParseError) as error:
            raise ExportRefusedError(f"no collector: its answer is no OTLP response: {error}") from error
        return _refused_items(signal, answer)

    async def _connected(self) -> aiohttp.ClientSession:
        if self._changes.found():
            await self.close()
        if self._session is None:
            connector = aiohttp.TCPConnector(limit=1, ssl=self._tls_context())
            self._session = aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar())
        return self._session

    def _tls_context(self) -> ssl.SSLContext | bool:
        config = self._config
        if not config.is_encrypted:
            return True
        try:
            context = ssl.create_default_context(cafile=config.ca_file or None)
            if config.cert_file:
                context.load_cert_chain(config.cert_file, config.key_file)
        except OSError as error:  # replaced since it was looked at
            raise InvalidInputError(f"TLS files not usable: {error}", "otlp.ca_file") from error
        return context

    async def close(self) -> None:
        """See Transport."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()


async def _bounded_body(response: aiohttp.ClientResponse) -> bytes:
    body = b""
    async for chunk in response.content.iter_any():
        body += chunk
        if len(body) > MAX_ANSWER_BYTES:
            raise ExportRefusedError(f"no collector: it answers with more than {MAX_ANSWER_BYTES} bytes")
    return body


def _retry_after_s(text: str) -> float:
    """Seconds of a Retry-After header that says a number; a date is no wish (RFC 9110, 10.2.3)."""
    return float(text) if text.strip().isdecimal() else 0.0
