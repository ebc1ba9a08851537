"""The stream from the flow server (a node's or a relay's) into the model, kept up for ever.

Two threads: one follows the flows, one asks for nodes and status and notices a server that has gone silent.
When the server goes away the page keeps what it has; when it returns, the newest flows are asked for again
and those already known are left out by their uuid. Certificates that changed on disk mean a new channel.
Speaks gRPC only; output goes to `ui.hub`.
"""

import logging
import random
import re
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import grpc

from palomar import certs, handshake
from palomar.clock import Clock
from palomar.errors import InvalidInputError
from palomar.tls import TlsFiles, channel_credentials, verify_name_option
from palomar_pb.observer import observer_pb2, observer_pb2_grpc
from palomar_pb.palomar.v1 import batch_pb2_grpc
from ui.hub import Hub, LinkPhase

logger = logging.getLogger(__name__)

BACKLOG_FLOWS = 2_000
"""Flows asked for on connecting, so that a fresh page is not empty. A relay's nodes each give as many as are
asked for: asked for their share alone, they do not push what is known out of the remembered uuids."""
LIVE_AFTER_NS = 3_000_000_000
"""The backlog is through by then; only later arrivals tell a node's clock."""
ASK_TIMEOUT_S = 3.0
POLL_S = 2.0
SILENT_POLLS = 3
"""Status calls in a row without an answer, and nothing by the stream either: then it counts as dead."""
FIRST_DELAY_S, LONGEST_DELAY_S = 0.5, 8.0
MAX_MESSAGE_BYTES = 64 << 20


@dataclass(frozen=True, slots=True)
class ServerTarget:
    """Whom to ask."""

    text: str
    """As the person wrote it."""
    address: str
    """As grpc wants it."""
    tls: TlsFiles | None = None
    server_name: str = ""
    """Name the certificate must carry; empty is the address's."""


class FlowClient:
    """Keeps `hub` supplied. Start once; stop ends both threads."""

    def __init__(
        self, target: ServerTarget, hub: Hub, clock: Clock, jitter: random.Random | None = None
    ) -> None:
        """Nothing is dialled before `start`."""
        self._target = target
        self._hub = hub
        self._clock = clock
        self._jitter = jitter or random.Random()  # noqa: S311 - spreads reconnections, guards nothing
        self._stop = threading.Event()
        self._call: grpc.Call | None = None
        self._heard = threading.Event()
        """Something came by the stream since the last status call."""
        self._threads: list[threading.Thread] = []

    def start(self) -> None:
        """Begin to connect."""
        thread = threading.Thread(target=self._run, name="flow-stream", daemon=True)
        self._threads.append(thread)
        thread.start()

    def stop(self) -> None:
        """End the stream; returns when the thread has."""
        self._stop.set()
        call = self._call
        if call is not None:
            call.cancel()
        for thread in self._threads:
            thread.join(timeout=10)

    def _run(self) -> None:
        attempts = 0
        while not self._stop.is_set():
            began_ns = self._clock.monotonic_ns()
            reason = self._follow_once()
            if self._stop.is_set():
                return
            worked = self._hub.link.phase is LinkPhase.CONNECTED
            reason = reason if worked else self._explained() or reason
            lasted_s = (self._clock.monotonic_ns() - began_ns) / 1e9
            attempts = 1 if worked and lasted_s > FIRST_DELAY_S else attempts + 1
            delay_s = self._delay_s(attempts)
            self._broke(reason, attempts, delay_s, worked)
            self._stop.wait(delay_s)

    def _delay_s(self, attempts: int) -> float:
        longest = min(FIRST_DELAY_S * 2.0 ** min(attempts - 1, 10), LONGEST_DELAY_S)
        return longest * self._jitter.uniform(0.5, 1.0)

    def _broke(self, reason: str, attempts: int, delay_s: float, worked: bool) -> None:
        now_ns = self._clock.wall_ns()
        link = self._hub.link
        self._hub.set_link(
            replace(
                link,
                phase=LinkPhase.BROKEN,
                since_ns=now_ns if link.phase is not LinkPhase.BROKEN else link.since_ns,
                reason=reason,
                attempts=attempts,
                retry_at_ns=now_ns + int(delay_s * 1e9),
                reconnects=link.reconnects + worked,
            )
        )
        if worked or attempts == 1:
            facts = {"server": self._target.text, "reason": reason}
            logger.warning("flow stream lost", extra=facts)

    def _follow_once(self) -> str:
        """Connect and follow until it ends; return why it ended."""
        try:
            channel = self._channel()
        except InvalidInputError as error:
            return str(error)
        try:
            with channel:
                return self._follow(channel)
        except grpc.RpcError as error:
            return describe(error)

    def _explained(self) -> str:
        """Say whose certificate does not serve, why and until when it did; empty where it is not that."""
        target = self._target
        name = target.server_name or target.address.rpartition(":")[0].strip("[]")
        return handshake.explain(target.address, name, target.tls, certs.utc(self._clock.wall_ns()))

    def _channel(self) -> grpc.Channel:
        options: list[tuple[str, object]] = [
            ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
            # Reconnecting is ours: a new channel must not wait for another channel's backoff.
            ("grpc.use_local_subchannel_pool", 1),
        ]
        target = self._target
        if target.tls is None:
            return grpc.insecure_channel(target.address, options)
        if target.server_name:
            options.append(verify_name_option(target.server_name))
        return grpc.secure_channel(target.address, channel_credentials(target.tls), options)

    def _follow(self, channel: grpc.Channel) -> str:
        observer = observer_pb2_grpc.ObserverStub(channel)
        status = observer.ServerStatus(observer_pb2.ServerStatusRequest(), timeout=ASK_TIMEOUT_S)
        with self._hub.locked() as model:
            model.set_server(status)
        link = self._hub.link
        self._hub.set_link(
            replace(link, phase=LinkPhase.CONNECTED, since_ns=self._clock.wall_ns(), reason="", attempts=0)
        )
        logger.info("flow stream connected", extra={"server": self._target.text})
        done = threading.Event()
        asker = threading.Thread(target=self._ask, args=(observer, done), name="status-poll", daemon=True)
        asker.start()
        try:
            return self._stream(channel, observer, max(1, status.num_connected_nodes.value))
        finally:
            done.set()
            asker.join(timeout=2 * ASK_TIMEOUT_S)

    def _stream(self, channel: grpc.Channel, observer: observer_pb2_grpc.ObserverStub, nodes: int) -> str:
        connected_ns = self._clock.monotonic_ns()
        request = observer_pb2.GetFlowsRequest(number=-(-BACKLOG_FLOWS // nodes), follow=True)
        for responses, observed in self._batches(channel, observer, request):
            self._heard.set()
            now_ns = self._clock.wall_ns()
            live = self._clock.monotonic_ns() - connected_ns > LIVE_AFTER_NS
            with self._hub.locked() as model:
                model.add_responses(responses, now_ns, live)
                model.counters.observed = max(model.counters.observed, observed)
            if self._stop.is_set():
                break
        return "the server ended the stream"

    def _batches(
        self,
        channel: grpc.Channel,
        observer: observer_pb2_grpc.ObserverStub,
        request: observer_pb2.GetFlowsRequest,
    ) -> Iterator[tuple[Sequence[observer_pb2.GetFlowsResponse], int]]:
        """Follow by our batched stream, or one by one where the server does not know that."""
        try:
            call = batch_pb2_grpc.FlowBatchesStub(channel).GetFlows(request)
            self._call = call
            self._hub.set_link(replace(self._hub.link, batched=True))
            for batch in call:
                yield batch.responses, batch.observed
            return
        except grpc.RpcError as error:
            if error.code() is not grpc.StatusCode.UNIMPLEMENTED:
                raise
        self._hub.set_link(replace(self._hub.link, batched=False))
        single = observer.GetFlows(request)
        self._call = single
        for response in single:
            yield (response,), 0

    def _ask(self, observer: observer_pb2_grpc.ObserverStub, done: threading.Event) -> None:
        """Poll nodes and status; cancel the stream when the server is silent or certificates changed."""
        files = Replaced(self._target.tls)
        knows_nodes = True
        silent = 0
        while True:
            try:
                status = observer.ServerStatus(observer_pb2.ServerStatusRequest(), timeout=ASK_TIMEOUT_S)
                nodes = None
                if knows_nodes:
                    nodes = observer.GetNodes(observer_pb2.GetNodesRequest(), timeout=ASK_TIMEOUT_S)
                silent = 0
                with self._hub.locked() as model:
                    model.set_server(status)
                    if nodes is not None:
                        model.set_nodes(nodes)
            except grpc.RpcError as error:
                if error.code() is grpc.StatusCode.UNIMPLEMENTED:
                    knows_nodes = False
                elif self._heard.is_set():
                    # A relay's status waits for its slowest node: a stream that goes on is not dead for that.
                    silent = 0
                else:
                    silent += 1
            except ValueError:
                return  # grpc's word for a channel that was closed meanwhile
            self._heard.clear()
            if (silent >= SILENT_POLLS or files.look()) and self._call is not None:
                self._call.cancel()
                return
            if done.wait(POLL_S):
                return


class Replaced:
    """Certificate files that may be replaced; what cannot be used is no replacement."""

    def __init__(self, files: TlsFiles | None) -> None:
        """As they are now they are in use."""
        self._files = files
        self._seen = files.version() if files is not None else ()

    def look(self) -> bool:
        """Tell whether there are other files than at the start, all of them usable; says once why not."""
        if self._files is None or self._files.version() == self._seen:
            return False
        self._seen = self._files.version()
        try:
            self._files.read()
        except InvalidInputError as error:
            logger.warning("certificate files unusable, the connection stays", extra={"error": str(error)})
            return False
        return True


def describe(error: grpc.RpcError) -> str:
    """Say what a failed call means to a person; bounded."""
    code = error.code().name if isinstance(error, grpc.Call) else "UNKNOWN"
    details = (error.details() or "") if isinstance(error, grpc.Call) else str(error)
    known = {
        "CANCELLED": "the server fell silent or its certificates were replaced",
        "DEADLINE_EXCEEDED": "no answer in time",
        "UNIMPLEMENTED": "it is no flow server: it does not know observer.Observer",
    }
    if code in known:
        return known[code]
    # grpc says "failed to connect to all addresses; last error: UNKNOWN: ipv4:1.2.3.4:5: <the cause>".
    words = re.sub(
        r"^.*last error: (?:[A-Z_]+: )?(?:ipv[46]:\S+: |unix:\S+: )?", "", " ".join(details.split())
    )[:240]
    return f"{words or 'no details'} ({code})"
