"""What a relay is told: its flags read and checked whole, with errors that name the flag and the remedy."""

import argparse
from dataclasses import dataclass

from palomar.errors import InvalidInputError
from palomar.paths import SOCKET_GROUP
from palomar.tls import TlsFiles, check_listener, tls_files
from relay.discovery import PeerService
from relay.flags import DEFAULT_LISTEN, DEFAULT_PEER_SERVICE, DEFAULT_SORT_WAIT_MS
from relay.peers import RETIRE_S, Peer


@dataclass(frozen=True, slots=True)
class RelayConfig:
    """A relay's configuration."""

    listen: str = DEFAULT_LISTEN
    """`host:port` or `unix:///path`."""
    socket_group: str = SOCKET_GROUP
    """Group that may use the unix socket; empty: its owner alone."""
    tls: TlsFiles | None = None
    """Server certificate, its key, CA of the clients."""
    client_tls: TlsFiles | None = None
    """Shown to the nodes, with the CA of the nodes; None: the same as `tls`."""
    allow_insecure: bool = False
    """Plain text on loopback, towards clients and nodes."""
    peer_service: PeerService | None = None
    peers: tuple[Peer, ...] = ()
    metrics_listen: str = ""
    """`host:port`; empty: no metrics."""
    sort_wait_ms: int = DEFAULT_SORT_WAIT_MS
    retire_s: float = RETIRE_S
    """How long streams may stay on a connection with an older certificate."""
    name: str = "relay"
    log_level: str = "info"
    log_format: str = "text"


def from_args(args: argparse.Namespace) -> RelayConfig:
    """Read the flags; raise InvalidInputError naming the first that cannot be meant."""
    tls = tls_files(args.tls_cert_file, args.tls_key_file, args.tls_ca_file, "--tls-cert-file")
    client_tls = None
    if args.tls_client_cert_file or args.tls_client_key_file or args.tls_hubble_ca_file:
        client_tls = tls_files(
            args.tls_client_cert_file or args.tls_cert_file,
            args.tls_client_key_file or args.tls_key_file,
            args.tls_hubble_ca_file or args.tls_ca_file,
            "--tls-client-cert-file",
        )
    if not args.listen.startswith("unix:"):
        check_listener(args.listen, tls, args.allow_insecure, "--listen")
    if not 1 <= args.sort_wait_ms <= 10_000:
        raise InvalidInputError("must be 1 to 10000", "--sort-wait-ms")
    peers = tuple(parse_peer(text) for text in args.peer)
    target = args.peer_service if args.peer_service is not None else ("" if peers else DEFAULT_PEER_SERVICE)
    service = PeerService(target, args.peer_service_server_name) if target else None
    if service and not target.startswith("unix:") and not service.server_name and not args.allow_insecure:
        raise InvalidInputError(
            f"{target} needs --peer-service-server-name, the name in its certificate", "--peer-service"
        )
    return RelayConfig(
        listen=args.listen,
        socket_group=args.socket_group,
        tls=tls,
        client_tls=client_tls,
        allow_insecure=args.allow_insecure,
        peer_service=service,
        peers=peers,
        metrics_listen=args.metrics_listen,
        sort_wait_ms=args.sort_wait_ms,
        name=args.name,
        log_level=args.log_level,
        log_format=args.log_format,
    )


def parse_peer(text: str) -> Peer:
    """Read `NAME=ADDRESS[,SERVER_NAME]`."""
    name, equals, rest = text.partition("=")
    address, _, server_name = rest.partition(",")
    if not (name and equals and address):
        raise InvalidInputError(f"{text!r}: write NAME=ADDRESS or NAME=ADDRESS,SERVER_NAME", "--peer")
    return Peer(name, address, server_name)
