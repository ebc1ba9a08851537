"""An OTLP receiver in this process whose behaviour a test sets: it takes, hangs, refuses or throttles.

The receiver itself is the lab's (`lab.otlp`); this adds memory of every record and bad manners.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import grpc
from aiohttp import web
from google.protobuf.message import Message

from lab.otlp import LOGS, PROTOBUF, REQUESTS, OtlpReceiver, Received

Answer = Callable[[str, Message], Any]


class Remembered(Received):
    """Keeps every record."""

    def __init__(self) -> None:
        super().__init__()
        self.entries: list[dict[str, Any]] = []

    def keep(self, entries: Sequence[dict[str, Any]]) -> None:
        self.entries += entries

    @property
    def flows(self) -> list[dict[str, Any]]:
        return [entry for entry in self.entries if entry["signal"] == LOGS]


class TestReceiver(OtlpReceiver):
    """Set `hangs`, `grpc_status`, `http_status`, `rejects` or `retry_after_s` at any time."""

    __test__ = False

    def __init__(self) -> None:
        self.memory = Remembered()
        super().__init__(self.memory)
        self.hangs = False
        self.grpc_status: grpc.StatusCode | None = None
        self.http_status = 200
        self.http_headers: dict[str, str] = {}
        self.trailers: tuple[tuple[str, bytes], ...] = ()
        self.rejects = 0
        self.refuses = ""
        """A signal that is UNIMPLEMENTED over gRPC."""
        self.seen = 0
        """Requests that came, taken or not."""
        self.metadata: dict[str, str] = {}
        self.freed = asyncio.Event()

    @property
    def flows(self) -> list[dict[str, Any]]:
        return self.memory.flows

    def _answer(self, signal_name: str) -> Message:
        answer = REQUESTS[signal_name][1]()
        if self.rejects and signal_name == LOGS:
            answer.partial_success.rejected_log_records = self.rejects
        return answer

    async def answer_grpc(
        self, signal_name: str, request: Message, context: grpc.aio.ServicerContext
    ) -> Message:
        self.seen += 1
        self.metadata = {str(key): str(value) for key, value in context.invocation_metadata() or ()}
        if self.hangs:
            await self.freed.wait()
        if self.refuses == signal_name:
            await context.abort(grpc.StatusCode.UNIMPLEMENTED, "not this signal")
        if self.grpc_status is not None:
            await context.abort(self.grpc_status, "as the test says", self.trailers)
        self.received.take(signal_name, request)
        return self._answer(signal_name)

    async def answer_http(self, request: web.Request) -> web.StreamResponse:
        self.seen += 1
        self.metadata = dict(request.headers)
        if self.hangs:
            await self.freed.wait()
        if self.http_status != 200:
            return web.Response(status=self.http_status, headers=self.http_headers)
        response = await super().answer_http(request)
        if self.rejects and response.status == 200:
            answer = self._answer(request.match_info["signal"])
            return web.Response(body=answer.SerializeToString(), content_type=PROTOBUF)
        return response

    async def stop(self) -> None:
        self.freed.set()
        await super().stop()


@asynccontextmanager
async def otlp_receiver(
    grpc_address: str = "127.0.0.1:0",
    http_address: str = "127.0.0.1:0",
    credentials: grpc.ServerCredentials | None = None,
) -> AsyncIterator[TestReceiver]:
    """A receiver on ports of its own."""
    receiver = TestReceiver()
    await receiver.start(grpc_address, http_address, credentials)
    try:
        yield receiver
    finally:
        await receiver.stop()


@asynccontextmanager
async def tcp_peer(talk: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Any]) -> AsyncIterator[int]:
    """Something that listens and is no collector: `talk` is what it does with a connection; the port."""
    tasks: set[asyncio.Task[Any]] = set()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            await talk(reader, writer)
        except (ConnectionError, asyncio.CancelledError):
            pass
        finally:
            tasks.discard(task)
            writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
