"""etcd as the store, through aetcd: for several nodes.

What it is: a `cluster.driver.Driver` over one connection at a time; each `connect` tries the next of the
endpoints. Every request has a deadline; the watch has none, the lease's keep-alive on the same channel
notices a dead peer for it. aetcd's own watcher is not used: it hides revisions, and cannot recover from a
broken stream (it awaits itself); its stubs are.
What it is not: TLS or passwords; etcd is to listen on loopback or inside the cluster's own network.
"""

import contextlib
import logging
import re
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any

import aetcd
import grpc.aio
from aetcd import rpc
from aetcd.utils import prefix_range_end

from cluster.driver import (
    Absent,
    Batch,
    Change,
    Condition,
    Equals,
    Operation,
    Put,
    Snapshot,
    Stored,
)
from cluster.errors import BackendUnavailableError, PositionLostError
from palomar.errors import InvalidInputError

logger = logging.getLogger(__name__)

PAGE_KEYS = 1000
_ENDPOINT = re.compile(r"(?:http://)?(?P<host>\[[0-9a-fA-F:]+\]|[^:/\[\]]+):(?P<port>\d{1,5})/?")

CHANNEL_OPTIONS = {
    "grpc.enable_http_proxy": 0,
    # A new connection attempt starts afresh instead of waiting out the backoff of an earlier channel.
    "grpc.use_local_subchannel_pool": 1,
    "grpc.initial_reconnect_backoff_ms": 100,
    "grpc.max_reconnect_backoff_ms": 1000,
    "grpc.max_receive_message_length": 64 << 20,
    # etcd refuses pings more often than every 5 s.
    "grpc.keepalive_time_ms": 10_000,
    "grpc.keepalive_timeout_ms": 5_000,
}


def parse_endpoint(text: str) -> tuple[str, int]:
    """Read `127.0.0.1:2379` or `http://etcd:2379`; raise InvalidInputError."""
    match = _ENDPOINT.fullmatch(text)
    if match is None or not 0 < int(match["port"]) < 65536:
        remedy = "write host:port or http://host:port"
        if text.startswith("https://"):
            remedy = "TLS to etcd is not supported: use http:// inside a trusted network"
        raise InvalidInputError(f"{text!r}: {remedy}", "etcd-endpoints")
    return match["host"], int(match["port"])


class EtcdDriver:
    """A `cluster.driver.Driver` over etcd v3."""

    def __init__(self, endpoints: Sequence[str], timeout_s: float = 3.0) -> None:
        """Read `endpoints` (at least one); every request may take `timeout_s`."""
        if not endpoints:
            raise InvalidInputError("at least one endpoint is needed", "etcd-endpoints")
        self._endpoints = [parse_endpoint(text) for text in endpoints]
        self._timeout_s = timeout_s
        self._attempt = -1
        self._client: aetcd.Client | None = None

    @property
    def name(self) -> str:
        """Name for people: the endpoint in use or tried last."""
        host, port = self._endpoints[max(0, self._attempt) % len(self._endpoints)]
        return f"etcd {host}:{port}"

    async def connect(self) -> None:
        """Open a channel to the next endpoint and read one key to see that it answers."""
        await self.close()
        self._attempt += 1
        host, port = self._endpoints[self._attempt % len(self._endpoints)]
        self._client = aetcd.Client(host=host, port=port, timeout=self._timeout_s, options=CHANNEL_OPTIONS)
        with self._errors("connect"):
            await self._client.get(b"cilium/.heartbeat")

    async def close(self) -> None:
        """Close the channel."""
        client, self._client = self._client, None
        if client is not None:
            with contextlib.suppress(aetcd.ClientError, grpc.RpcError, TimeoutError):
                await client.close()

    async def grant_lease(self, ttl_s: int) -> int:
        """Ask for a lease."""
        with self._errors("grant lease"):
            return int((await self._connected().lease(ttl_s)).id)

    async def keep_alive(self, lease: int) -> bool:
        """Renew; etcd answers with a time to live of 0 for a lease that has ended."""
        with self._errors("keep lease alive"):
            reply = await self._connected().refresh_lease(lease)
            return reply is not None and bool(reply.TTL > 0)

    async def revoke_lease(self, lease: int) -> None:
        """Revoke, if it still exists."""
        with self._errors("revoke lease"):
            if await self.keep_alive(lease):
                await self._connected().revoke_lease(lease)

    async def snapshot(self, prefix: str) -> Snapshot:
        """Read page by page at the revision of the first page."""
        client = self._connected()
        values: dict[str, Stored] = {}
        start, end, revision = prefix.encode(), prefix_range_end(prefix.encode()), 0
        with self._errors("list"):
            while True:
                answer = await client.kvstub.Range(
                    rpc.RangeRequest(key=start, range_end=end, limit=PAGE_KEYS, revision=revision),
                    timeout=self._timeout_s,
                )
                revision = revision or answer.header.revision
                for kv in answer.kvs:
                    values[_text(kv.key)] = Stored(_text(kv.value), kv.lease, kv.mod_revision)
                if not answer.more:
                    return Snapshot(revision, values)
                start = answer.kvs[-1].key + b"\0"

    async def transact(self, conditions: Sequence[Condition], operations: Sequence[Operation]) -> bool:
        """One etcd transaction."""
        client = self._connected()
        with self._errors("write"):
            held, _ = await client.transaction(
                compare=[_compare(condition) for condition in conditions],
                success=[_operation(operation) for operation in operations],
                failure=[],
            )
            return bool(held)

    async def watch(self, prefix: str, since: Snapshot) -> AsyncIterator[Batch]:
        """Stream changes from the revision after `since`."""
        stub = rpc.WatchStub(self._connected().channel)
        # A member cut off from the majority would stay silent without this header.
        call = stub.Watch(metadata=(("hasleader", "true"),))
        create = rpc.WatchCreateRequest(
            key=prefix.encode(),
            range_end=prefix_range_end(prefix.encode()),
            start_revision=since.revision + 1,
        )
        try:
            with self._errors("watch"):
                await call.write(rpc.WatchRequest(create_request=create))
            while True:
                with self._errors("watch"):
                    answer = await call.read()
                if answer is grpc.aio.EOF:
                    return
                if answer.compact_revision:
                    raise PositionLostError(self.name, "watch", f"compacted up to {answer.compact_revision}")
                if answer.canceled:
                    raise PositionLostError(self.name, "watch", answer.cancel_reason or "canceled")
                if answer.events:
                    yield Batch(answer.header.revision, tuple(map(_change, answer.events)))
        finally:
            call.cancel()

    def _connected(self) -> aetcd.Client:
        if self._client is None:
            raise BackendUnavailableError(self.name, "use", "not connected")
        return self._client

    @contextlib.contextmanager
    def _errors(self, operation: str) -> Iterator[None]:
        """Turn what aetcd and gRPC raise into this package's error."""
        try:
            yield
        except grpc.aio.AioRpcError as error:
            reason = f"{error.code().name}: {error.details()}"
            raise BackendUnavailableError(self.name, operation, reason) from error
        except (aetcd.ClientError, grpc.RpcError, grpc.aio.UsageError, TimeoutError) as error:
            reason = str(error) or type(error).__name__
            raise BackendUnavailableError(self.name, operation, reason) from error


def _compare(condition: Condition) -> Any:
    if isinstance(condition, Equals):
        return aetcd.client.transactions.Value(condition.key) == condition.value
    if isinstance(condition, Absent):
        return aetcd.client.transactions.Create(condition.key) == 0
    # Holds for an empty range only: every key found would have to be created at revision 0.
    end = prefix_range_end(condition.prefix.encode())
    return aetcd.client.transactions.Create(condition.prefix, end) == 0


def _operation(operation: Operation) -> Any:
    key = operation.key.encode()
    if isinstance(operation, Put):
        return aetcd.client.transactions.Put(key, operation.value.encode(), operation.lease)
    return aetcd.client.transactions.Delete(key)


def _change(event: Any) -> Change:
    deleted = event.type == rpc.Event.DELETE
    return Change(_text(event.kv.key), None if deleted else _text(event.kv.value))


def _text(data: bytes) -> str:
    """Text of a key or value; bytes that are not UTF-8 become a value nobody can decode."""
    return data.decode("utf-8", "replace")
