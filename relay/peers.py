"""The nodes a relay knows: one channel each, kept connected, with the state people ask about.

Input: announcements of peers (`relay.discovery`, or a fixed list). Output: channels for the collectors
and changes of state for their streams. A channel reconnects by itself (`relay.channel`); this module watches
the outcome, names the cause, builds channels anew when certificates change and ages the old ones out.
"""

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from enum import IntEnum

import grpc

from palomar import certs, handshake, tasks
from palomar.clock import Clock
from palomar.errors import InvalidInputError
from palomar.tls import TlsFiles
from palomar_pb.observer import observer_pb2, observer_pb2_grpc
from relay.channel import open_channel
from relay.statewatch import StateWatch

State = grpc.ChannelConnectivity

logger = logging.getLogger(__name__)

PROBE_TIMEOUT_S = 3.0
REPROBE_S = 5.0
"""A connected peer is asked for its status this often, one that does not serve yet more often."""
REPROBE_SOON_S = 0.5
EXPLAIN_NS = 5_000_000_000
"""How often the cause is looked for while the transport says the same."""
SETTLE_S = 1.0
"""How long a question waits for the first connection of peers that were just announced."""
CERT_CHECK_S = 1.0
RETIRE_S = 30.0
"""How long streams may stay on a channel with an older certificate; then they resume on the new one."""


class PeerState(IntEnum):
    """State of a node, the numbers of `relay.NodeState`."""

    UNKNOWN = 0
    CONNECTED = 1
    UNAVAILABLE = 2
    GONE = 3
    ERROR = 4


@dataclass(frozen=True, slots=True)
class Peer:
    """A node's flow server as announced."""

    name: str
    """As the node names itself: `cluster/node`."""
    address: str
    """gRPC target: `host:port` or `unix:///path`."""
    server_name: str = ""
    """Name in its certificate; empty: no TLS."""


@dataclass(slots=True, eq=False)
class PeerEntry:
    """A known peer and how it stands."""

    peer: Peer
    opened: grpc.aio.Channel | None = None
    """None while there can be none: no usable certificate, or the peer offers no TLS."""
    state: PeerState = PeerState.UNKNOWN
    reason: str = ""
    """Why it is not connected."""
    said: str = ""
    """The transport's own words, and when they were last looked into."""
    explained_ns: int = 0
    known: asyncio.Event = field(default_factory=asyncio.Event)
    """Set with the first result."""
    connected: asyncio.Event = field(default_factory=asyncio.Event)
    task: asyncio.Task[None] | None = None
    status: observer_pb2.ServerStatusResponse = field(default_factory=observer_pb2.ServerStatusResponse)

    @property
    def channel(self) -> grpc.aio.Channel:
        """The channel; there is one where the peer is, or was, connected."""
        if self.opened is None:
            raise InvalidInputError(self.reason or "no channel", self.peer.name)
        return self.opened


Listener = Callable[[Peer, PeerState, str], None]


class PeerPool:
    """Every peer's channel and state."""

    def __init__(
        self,
        clock: Clock,
        tls: TlsFiles | None,
        *,
        allow_insecure: bool = False,
        retire_s: float = RETIRE_S,
    ) -> None:
        """Without `tls` only unix sockets can be connected, and TCP where `allow_insecure` says so."""
        self._clock = clock
        self._tls = tls
        self._allow_insecure = allow_insecure
        self._retire_s = retire_s
        self._peers: dict[str, PeerEntry] = {}
        self._listeners: list[Listener] = []
        self._rotation: asyncio.Task[None] | None = None
        self._retiring: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Begin to follow the certificate files."""
        if self._tls is not None:
            self._rotation = tasks.spawn(self._follow_certificates(self._tls), "relay certificates")

    async def stop(self) -> None:
        """Close every channel."""
        if self._rotation is not None:
            self._rotation.cancel()
        for name in list(self._peers):
            await self.remove(name)
        for task in list(self._retiring):
            task.cancel()
        await asyncio.gather(*self._retiring, return_exceptions=True)

    @property
    def retiring(self) -> int:
        """How many channels with an older certificate are still open."""
        return len(self._retiring)

    def listen(self, listener: Listener) -> Callable[[], None]:
        """Call `listener` at every change of state; the returned function ends that."""
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    def entries(self) -> list[PeerEntry]:
        """Every known peer, by name."""
        return [self._peers[name] for name in sorted(self._peers)]

    def get(self, name: str) -> PeerEntry | None:
        """Return the peer `name`; None where it is not known."""
        return self._peers.get(name)

    async def settled(self) -> None:
        """Wait until it is known of every peer whether it can be reached, but not for long."""
        waiting = [entry.known.wait() for entry in self._peers.values() if not entry.known.is_set()]
        if not waiting:
            return
        with suppress(TimeoutError):
            await asyncio.wait_for(asyncio.gather(*waiting), SETTLE_S)

    async def upsert(self, peer: Peer) -> None:
        """Add `peer`, or replace its channel where address or server name changed."""
        entry = self._peers.get(peer.name)
        if entry is not None and entry.peer == peer:
            return
        if entry is None:
            entry = self._peers[peer.name] = PeerEntry(peer)
        entry.peer = peer
        self._open(entry)

    def _open(self, entry: PeerEntry) -> None:
        """Give a peer its channel; where there can be none yet, say why and leave it to the next look."""
        try:
            channel = self._connect(entry.peer)
        except InvalidInputError as error:
            if entry.opened is not None:  # to an address that is no longer its own
                self._retire(entry)
            self._changed(entry, PeerState.UNAVAILABLE, str(error))
        else:
            self._use(entry, channel)

    async def remove(self, name: str) -> None:
        """Forget a peer: its node is gone."""
        entry = self._peers.pop(name, None)
        if entry is None:
            return
        if entry.task is not None:
            entry.task.cancel()
        self._changed(entry, PeerState.GONE, "the node left")
        if entry.opened is not None:
            await entry.opened.close()

    def _connect(self, peer: Peer) -> grpc.aio.Channel:
        plain = not peer.server_name and not peer.address.startswith("unix:")
        if plain and not self._allow_insecure:
            raise InvalidInputError(f"peer {peer.name} at {peer.address} offers no TLS: refused")
        return open_channel(peer.address, peer.server_name, self._tls, f"peer {peer.name}")

    async def _watch(self, entry: PeerEntry, channel: grpc.aio.Channel) -> None:
        """Follow the channel's connectivity and probe it at every change, and now and then.

        Ends when the channel is closed beneath it: another has taken its place, or the peer left.
        """
        watch = StateWatch(channel)
        try:
            while (state := channel.get_state(try_to_connect=True)) is not State.SHUTDOWN:
                if state in (State.READY, State.TRANSIENT_FAILURE):
                    await self._probe(entry, channel)
                well = entry.state is PeerState.CONNECTED
                await watch.wait(state, REPROBE_S if well else REPROBE_SOON_S)
        finally:
            watch.close()

    async def _probe(self, entry: PeerEntry, channel: grpc.aio.Channel) -> None:
        stub = observer_pb2_grpc.ObserverStub(channel)
        try:
            status = await stub.ServerStatus(observer_pb2.ServerStatusRequest(), timeout=PROBE_TIMEOUT_S)
        except grpc.aio.AioRpcError as error:
            said = error.details() or error.code().name
            if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
                said = f"connected, but no answer within {PROBE_TIMEOUT_S:g} s"
            await self._explain(entry, said)
            return
        # Where an answer cannot be read, grpc.aio logs that and returns an end marker.
        if not isinstance(status, observer_pb2.ServerStatusResponse):
            self._changed(entry, PeerState.UNAVAILABLE, "its status cannot be read: is it a flow server?")
            return
        entry.status, entry.said = status, ""
        self._changed(entry, PeerState.CONNECTED, "")

    async def _explain(self, entry: PeerEntry, said: str) -> None:
        """Look for what is behind the transport's words, but not all the time."""
        if said == entry.said and self._clock.monotonic_ns() - entry.explained_ns < EXPLAIN_NS:
            return
        entry.said, entry.explained_ns = said, self._clock.monotonic_ns()
        now = certs.utc(self._clock.wall_ns())
        peer = entry.peer
        found = await asyncio.to_thread(handshake.explain, peer.address, peer.server_name, self._tls, now)
        self._changed(entry, PeerState.UNAVAILABLE, found or said)

    def _changed(self, entry: PeerEntry, state: PeerState, reason: str) -> None:
        if entry.state is state and entry.reason == reason:
            return
        entry.state, entry.reason = state, reason
        entry.known.set()
        if state is PeerState.CONNECTED:
            entry.connected.set()
        else:
            entry.connected.clear()
        facts = {
            "peer": entry.peer.name,
            "address": entry.peer.address,
            "state": state.name,
            "reason": reason,
        }
        if state in (PeerState.CONNECTED, PeerState.GONE):
            logger.info("peer changed", extra=facts)
        else:
            logger.warning("peer changed", extra=facts)
        for listener in list(self._listeners):
            listener(entry.peer, state, reason)

    async def _follow_certificates(self, tls: TlsFiles) -> None:
        """Give every peer a channel with the new certificate, and one to those that could have none."""
        version, told = _version(tls), ""
        while True:
            await asyncio.sleep(CERT_CHECK_S)
            for entry in self.entries():
                if entry.opened is None:
                    self._open(entry)
            now = _version(tls)
            if now == version:
                continue
            entries = [entry for entry in self.entries() if entry.peer.server_name]
            try:
                channels = [self._connect(entry.peer) for entry in entries]
            except InvalidInputError as error:  # half replaced, or unusable: look again
                if str(error) != told:
                    told = str(error)
                    logger.warning("certificate files unusable, the old ones stay", extra={"error": told})
                continue
            for entry, channel in zip(entries, channels, strict=True):
                self._use(entry, channel)
            version, told = now, ""
            logger.info("certificate files changed: new connections use them", extra={"file": str(tls.cert)})

    def _use(self, entry: PeerEntry, channel: grpc.aio.Channel) -> None:
        """Put `channel` in the place of the old one, whose streams may go on for a while."""
        self._retire(entry)
        entry.opened = channel
        entry.reason = ""
        entry.task = tasks.spawn(self._watch(entry, channel), f"relay peer {entry.peer.name}")

    def _retire(self, entry: PeerEntry) -> None:
        """Leave the channel of a peer, if it has one, and close it after a while."""
        if entry.task is not None:
            entry.task.cancel()
        channel, entry.opened = entry.opened, None
        if channel is not None:
            retiring = tasks.spawn(self._close_later(channel), f"relay old channel {entry.peer.name}")
            self._retiring.add(retiring)
            retiring.add_done_callback(self._retiring.discard)

    async def _close_later(self, channel: grpc.aio.Channel) -> None:
        try:
            await asyncio.sleep(self._retire_s)
        finally:
            await channel.close()


def _version(tls: TlsFiles) -> tuple[int, ...]:
    """State of the files; empty while that cannot even be looked at."""
    try:
        return tls.version()
    except OSError:
        return ()
