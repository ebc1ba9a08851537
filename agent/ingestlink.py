"""What the agent tells the ingest process, and what it hears from it: the server side of the ingest socket.

JSON lines over a unix stream. Agent to ingest: who an address is, what an identity's labels are, which rule a
cookie names, interface names, default denies; a client that connects gets all of it, then `synced`, then
changes. Ingest to agent: counters every second, kept in `stats`. Nothing here is about flows themselves.

A slow client costs no memory: per connection only the keys that changed are remembered, and the newest value
of each is sent.
"""

import asyncio
import contextlib
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from palomar.clock import Clock

logger = logging.getLogger(__name__)

MAX_LINE_BYTES = 4 << 20
STALE_NS = 5 * 10**9
"""Counters older than this are said to be old: the ingest sends them every second."""

Key = tuple[str, str]
"""Kind and name of a thing told: ("bind", "10.1.0.5")."""


@dataclass(frozen=True, slots=True)
class CpuCounts:
    """What became of the events of one CPU."""

    cpu: int
    emitted: int
    stored: int
    lost: int
    failed: int
    suppressed: int


@dataclass(frozen=True, slots=True)
class IngestStats:
    """The ingest process's newest counters."""

    cpus: tuple[CpuCounts, ...] = ()
    metrics: Mapping[str, Sequence[Sequence[Any]]] = field(default_factory=dict)
    edges: int = 0
    store: Mapping[str, int] = field(default_factory=dict)
    received_ns: int = 0
    """CLOCK_MONOTONIC; 0: nothing was received yet."""

    @property
    def emitted(self) -> int:
        """Events tried on every CPU."""
        return sum(cpu.emitted for cpu in self.cpus)

    @property
    def stored(self) -> int:
        """Events stored of every CPU."""
        return sum(cpu.stored for cpu in self.cpus)

    @property
    def lost(self) -> int:
        """Events lost of every CPU."""
        return sum(cpu.lost for cpu in self.cpus)


def parse_stats(tree: Mapping[str, Any], received_ns: int) -> IngestStats:
    """Read a `stats` message; KeyError, TypeError or ValueError for anything else."""
    names = ("cpu", "emitted", "stored", "lost", "failed", "suppressed")
    return IngestStats(
        cpus=tuple(CpuCounts(*(int(row[name]) for name in names)) for row in tree["cpus"]),
        metrics={str(name): [list(row) for row in rows] for name, rows in tree.get("metrics", {}).items()},
        edges=int(tree.get("edges", 0)),
        store={str(name): int(value) for name, value in tree.get("store", {}).items() if value is not None},
        received_ns=received_ns,
    )


class _Client:
    """One connection and the keys it has not been told yet."""

    def __init__(self, known: Sequence[Key], writer: asyncio.StreamWriter) -> None:
        self.writer = writer
        self.dirty: dict[Key, None] = dict.fromkeys(known)
        self.synced = False
        self.wake = asyncio.Event()
        self.wake.set()

    def touch(self, key: Key) -> None:
        self.dirty.pop(key, None)
        self.dirty[key] = None
        self.wake.set()


class IngestLink:
    """The socket and what is to be told over it."""

    def __init__(self, path: Path, clock: Clock) -> None:
        """Nothing listens before `start`; what is told before is told to the first client."""
        self.path = path
        self.stats = IngestStats()
        self.malformed = 0
        self.was_connected = asyncio.Event()
        """Set once an ingest process was there: from then on events are read."""
        self._clock = clock
        self._connected_ns = clock.monotonic_ns()
        self._facts: dict[Key, dict[str, Any]] = {}
        self._clients: set[_Client] = set()
        self._server: asyncio.Server | None = None

    # --- what is told

    def bind(
        self,
        ip: str,
        *,
        endpoint_id: int,
        identity: int,
        cluster: str,
        namespace: str,
        pod: str,
        labels: Sequence[str],
        workload: tuple[str, str] | None = None,
    ) -> None:
        """Say who an address is; `endpoint_id` is 0 for one of another node; `workload`: (name, kind)."""
        endpoint = {
            "id": endpoint_id,
            "identity": identity,
            "cluster": cluster,
            "namespace": namespace,
            "pod": pod,
            "labels": list(labels),
            "workloads": [{"name": workload[0], "kind": workload[1]}] if workload else [],
        }
        self._tell(("bind", ip), {"op": "bind", "ip": ip, "endpoint": endpoint})

    def unbind(self, ip: str) -> None:
        """Say that an address is nobody any more."""
        if self._facts.pop(("bind", ip), None) is not None:
            self._touch(("bind", ip))

    def identity(self, identity: int, labels: Sequence[str]) -> None:
        """Say what labels a numeric identity stands for."""
        self._tell(("identity", str(identity)), {"op": "identity", "id": identity, "labels": list(labels)})

    def interface(self, ifindex: int, name: str) -> None:
        """Say what a device is called."""
        self._tell(("interface", str(ifindex)), {"op": "interface", "index": ifindex, "name": name})

    def policy(self, cookie: int, policies: Sequence[Mapping[str, Any]], *, deny: bool) -> None:
        """Say which rules a cookie stands for."""
        message = {"op": "policy", "cookie": cookie, "policies": list(policies), "deny": deny}
        self._tell(("policy", str(cookie)), message)

    def forget_policy(self, cookie: int) -> None:
        """Stop telling new clients of a cookie; one that was told keeps it for the flows that carry it."""
        self._facts.pop(("policy", str(cookie)), None)

    def default_deny(self, endpoint_id: int, ingress: int, egress: int) -> None:
        """Say which cookies stand for what makes an endpoint deny what no rule allows (0: nothing does)."""
        self._tell(
            ("default_deny", str(endpoint_id)),
            {"op": "default_deny", "endpoint_id": endpoint_id, "ingress": ingress, "egress": egress},
        )

    def _tell(self, key: Key, message: dict[str, Any]) -> None:
        if self._facts.get(key) != message:
            self._facts[key] = message
            self._touch(key)

    def _touch(self, key: Key) -> None:
        for client in self._clients:
            client.touch(key)

    # --- what is heard

    @property
    def connected(self) -> bool:
        """Whether an ingest process is there."""
        return bool(self._clients)

    def stats_are_stale(self) -> bool:
        """Tell whether the counters are older than they should be; those of a fresh connection are not."""
        newest_ns = max(self.stats.received_ns, self._connected_ns)
        return self._clock.monotonic_ns() - newest_ns > STALE_NS

    # --- the socket

    async def start(self) -> None:
        """Listen; only this user may connect."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.unlink(missing_ok=True)
        self._server = await asyncio.start_unix_server(self._serve, str(self.path), limit=MAX_LINE_BYTES)
        self.path.chmod(0o600)

    async def stop(self) -> None:
        """Close the socket and every connection."""
        if self._server is not None:
            self._server.close()
            for client in self._clients:
                client.writer.close()
            await self._server.wait_closed()
            self._server = None
        self.path.unlink(missing_ok=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        client = _Client(list(self._facts), writer)
        self._clients.add(client)
        self._connected_ns = self._clock.monotonic_ns()
        self.was_connected.set()
        logger.info("ingest connected")
        try:
            async with asyncio.TaskGroup() as tasks:
                sender = tasks.create_task(self._send(client, writer), name="ingest sender")
                await self._receive(reader)
                sender.cancel()
        except* OSError as group:
            logger.info("ingest connection broke", extra={"error": str(group.exceptions[0])})
        finally:
            self._clients.discard(client)
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async def _send(self, client: _Client, writer: asyncio.StreamWriter) -> None:
        while True:
            await client.wake.wait()
            client.wake.clear()
            while client.dirty:
                key = next(iter(client.dirty))
                del client.dirty[key]
                message = self._facts.get(key)
                if message is None and key[0] == "bind":
                    message = {"op": "unbind", "ip": key[1]}
                if message is not None:
                    writer.write(_line(message))
                    await writer.drain()
            if not client.synced:
                client.synced = True
                writer.write(_line({"op": "synced"}))
                await writer.drain()

    async def _receive(self, reader: asyncio.StreamReader) -> None:
        while True:
            try:
                line = await reader.readline()
            except ValueError:  # a line beyond the limit
                self.malformed += 1
                return
            if not line:
                return
            try:
                tree = json.loads(line)
                if tree["op"] != "stats":
                    raise ValueError(tree["op"])
                self.stats = parse_stats(tree, self._clock.monotonic_ns())
            except (ValueError, KeyError, TypeError) as error:
                self.malformed += 1
                logger.warning("ingest sent nonsense", extra={"error": f"{type(error).__name__}: {error}"})


def _line(message: Mapping[str, Any]) -> bytes:
    return json.dumps(message, separators=(",", ":")).encode() + b"\n"
