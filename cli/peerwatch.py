"""The nodes as a flow server announces them, for `watch peers`: all at first, then changes alone.

A server announces every node it knows to whoever asks, so that after a reconnection most of it is known:
only what differs from what was shown is told, and as gone what is not named again within `SETTLE_S`.
"""

import queue
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import grpc

from cli.resume import Dial, Say, resume
from palomar.clock import Clock, SystemClock
from palomar_pb.peer import peer_pb2, peer_pb2_grpc

SETTLE_S = 3.0
"""How long after the first announcement of a new connection the others may take."""
NS_PER_S = 1_000_000_000


def watch_peers(
    dial: Dial,
    say: Say,
    *,
    settle_s: float = SETTLE_S,
    clock: Clock | None = None,
    sleep: Callable[[float], None] = time.sleep,
) -> Iterator[peer_pb2.ChangeNotification]:
    """Yield announcements that change what is known; never ends. Raises as `cli.resume.resume` does."""
    real_clock = clock or SystemClock()
    known = KnownPeers()

    def ask(channel: grpc.Channel, begun: Callable[[], None]) -> Iterator[peer_pb2.ChangeNotification]:
        settle_at_ns: int | None = None
        known.begin()
        with _Announcements(channel) as announcements:
            while True:
                left_s = (
                    None if settle_at_ns is None else (settle_at_ns - real_clock.monotonic_ns()) / NS_PER_S
                )
                try:
                    change = announcements.get(left_s)
                except TimeoutError:
                    settle_at_ns = None
                    yield from known.settle()
                    continue
                if change is None:
                    return
                begun()
                if known.unsettled and settle_at_ns is None:
                    settle_at_ns = real_clock.monotonic_ns() + int(settle_s * NS_PER_S)
                yield from known.take(change)

    return resume(dial, ask, say, clock=real_clock, sleep=sleep)


class KnownPeers:
    """What has been shown, compared with what a server says. Pure."""

    def __init__(self) -> None:
        """Nobody is known."""
        self._shown: dict[str, peer_pb2.ChangeNotification] = {}
        self._unnamed: set[str] = set()

    def begin(self) -> None:
        """A new connection begins, which will name again who is still there."""
        self._unnamed = set(self._shown)

    @property
    def unsettled(self) -> bool:
        """Tell whether somebody who was shown has not been named on this connection."""
        return bool(self._unnamed)

    def take(self, change: peer_pb2.ChangeNotification) -> Iterator[peer_pb2.ChangeNotification]:
        """Yield `change` as far as it is news, as what it is to one who has seen what was shown."""
        self._unnamed.discard(change.name)
        before = self._shown.get(change.name)
        facts = peer_pb2.ChangeNotification()
        facts.CopyFrom(change)
        facts.ClearField("type")
        if change.type == peer_pb2.PEER_DELETED:
            self._shown.pop(change.name, None)
            if before is not None:
                yield change
        elif change.type not in (peer_pb2.PEER_ADDED, peer_pb2.PEER_UPDATED):
            yield change
        elif facts != before:
            self._shown[change.name] = facts
            yield _as(peer_pb2.PEER_ADDED if before is None else peer_pb2.PEER_UPDATED, facts)

    def settle(self) -> Iterator[peer_pb2.ChangeNotification]:
        """Yield as deleted whom this connection has not named."""
        for name in sorted(self._unnamed):
            yield _as(peer_pb2.PEER_DELETED, self._shown.pop(name))
        self._unnamed = set()


def _as(
    kind: peer_pb2.ChangeNotificationType.ValueType, facts: peer_pb2.ChangeNotification
) -> peer_pb2.ChangeNotification:
    change = peer_pb2.ChangeNotification(type=kind)
    change.MergeFrom(facts)
    return change


def line(change: peer_pb2.ChangeNotification) -> str:
    """Return one announcement as text."""
    tls = f" (TLS.ServerName: {change.tls.server_name})" if change.HasField("tls") else ""
    kinds = peer_pb2.ChangeNotificationType.values()
    kind = peer_pb2.ChangeNotificationType.Name(change.type) if change.type in kinds else change.type
    return f"{kind:<12} {change.address} {change.name}{tls}"


class _Announcements:
    """The stream of one connection, read in a thread because waiting for it must have an end."""

    def __init__(self, channel: grpc.Channel) -> None:
        self._call: Any = peer_pb2_grpc.PeerStub(channel).Notify(peer_pb2.NotifyRequest())
        self._queue: queue.Queue[peer_pb2.ChangeNotification | grpc.RpcError | None] = queue.Queue()
        self._thread = threading.Thread(target=self._read, name="peers", daemon=True)

    def __enter__(self) -> "_Announcements":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._call.cancel()
        self._thread.join()

    def _read(self) -> None:
        try:
            for change in self._call:
                self._queue.put(change)
        except grpc.RpcError as error:
            self._queue.put(error)
        else:
            self._queue.put(None)

    def get(self, timeout_s: float | None) -> peer_pb2.ChangeNotification | None:
        """Return the next announcement, None at the end; raises TimeoutError and grpc.RpcError."""
        try:
            item = self._queue.get(timeout=None if timeout_s is None else max(0.0, timeout_s))
        except queue.Empty as error:
            raise TimeoutError from error
        if isinstance(item, grpc.RpcError):
            raise item
        return item
