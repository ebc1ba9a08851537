"""What the relay counts, for Prometheus. Label `peer` is bounded by the nodes, `file` by the configuration.

One registry per relay: nothing global. Served by `relay.metricsserver`; listed in `docs/relay.md`.
"""

from collections.abc import Iterable

from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest

from palomar.certwatch import Expiry
from relay.peers import PeerPool, PeerState

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class RelayMetrics:
    """The relay's counters and gauges."""

    def __init__(self) -> None:
        """All at zero."""
        self.registry = CollectorRegistry()
        self.peers = Gauge(
            "palomar_relay_peers", "Nodes by state of their connection.", ["state"], registry=self.registry
        )
        self.received = Counter(
            "palomar_relay_received_flows", "Responses received per node.", ["peer"], registry=self.registry
        )
        self.malformed = Counter(
            "palomar_relay_malformed_responses",
            "Responses left out because they were none, or too large, per node.",
            ["peer"],
            registry=self.registry,
        )
        self.sent = Counter("palomar_relay_sent_flows", "Responses sent to clients.", registry=self.registry)
        self.resumed = Counter(
            "palomar_relay_resumed_streams",
            "Streams taken up again after a break, per node.",
            ["peer"],
            registry=self.registry,
        )
        self.streams = Gauge("palomar_relay_streams", "Flow streams being served.", registry=self.registry)
        self.refused = Counter(
            "palomar_relay_refused_streams",
            "Flow streams refused because too many are served.",
            registry=self.registry,
        )
        self.clock_offset = Gauge(
            "palomar_relay_peer_clock_offset_seconds",
            "Clock of a node minus the relay's, as of its last batch.",
            ["peer"],
            registry=self.registry,
        )
        self.expiry = Gauge(
            "palomar_certificate_expiry_seconds",
            "Time until a certificate ends; negative afterwards.",
            ["file"],
            registry=self.registry,
        )

    def set_peers(self, pool: PeerPool) -> None:
        """Count the nodes by state."""
        states = [entry.state for entry in pool.entries()]
        for state in (PeerState.UNKNOWN, PeerState.CONNECTED, PeerState.UNAVAILABLE):
            self.peers.labels(state.name.lower()).set(states.count(state))

    def set_expiries(self, expiries: Iterable[Expiry]) -> None:
        """Note how long certificates are good for."""
        for expiry in expiries:
            self.expiry.labels(expiry.file).set(expiry.seconds_left)

    def forget_peer(self, name: str) -> None:
        """Drop what is said of a node that left."""
        for metric in (self.received, self.malformed, self.resumed, self.clock_offset):
            if name in {labels[0] for labels in metric._metrics}:
                metric.remove(name)

    def text(self) -> bytes:
        """Everything, as Prometheus reads it."""
        return generate_latest(self.registry)
