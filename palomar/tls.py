"""Mutual TLS from files that may be replaced at any time: credentials of servers and clients.

Servers look at certificate, key and CA before every handshake and take up what changed
(`grpc.dynamic_ssl_server_credentials`, which grpc.aio servers accept as well); clients build a new channel
when `TlsFiles.version` moves. Nothing here opens a port.
"""

import logging
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path

import grpc

from palomar.certs import KeyPair, bundle_problem, pair_problem
from palomar.errors import InvalidInputError

logger = logging.getLogger(__name__)

REMEDY = "make it with `palomar certs`"


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """Where one party's certificate, private key and the CA of the others are."""

    cert: Path
    key: Path
    ca: Path

    def read(self) -> tuple[bytes, bytes, bytes]:
        """Return (key, certificate, CA) as PEM; raise InvalidInputError naming the file and the remedy."""
        parts = []
        for path in (self.key, self.cert, self.ca):
            try:
                parts.append(path.read_bytes())
            except OSError as error:
                raise InvalidInputError(f"{path}: {error.strerror or error}: {REMEDY}") from error
        key, cert, ca = parts
        problem = pair_problem(KeyPair(cert, key))
        if problem:
            raise InvalidInputError(f"{self.cert} and {self.key}: {problem}: {REMEDY}")
        problem = bundle_problem(ca)
        if problem:
            raise InvalidInputError(f"{self.ca}: {problem}: {REMEDY}")
        return key, cert, ca

    def version(self) -> tuple[int, ...]:
        """Change with the files: their modification times; 0 for one that cannot be looked at."""
        return tuple(_modified_ns(path) for path in (self.key, self.cert, self.ca))


def _modified_ns(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0


@dataclass(frozen=True, slots=True)
class ConnectionAge:
    """How long a connection lasts before its client must come back and show its certificate again."""

    age_s: float
    grace_s: float
    """How long running calls may go on after that; followers resume on the new connection."""

    @property
    def options(self) -> tuple[tuple[str, int], ...]:
        """As grpc server options."""
        return (
            ("grpc.max_connection_age_ms", int(self.age_s * 1000)),
            ("grpc.max_connection_age_grace_ms", int(self.grace_s * 1000)),
        )


def server_credentials(files: TlsFiles) -> grpc.ServerCredentials:
    """Credentials that demand a client certificate and follow the files; raises InvalidInputError.

    Files that are half replaced, or unusable, are not taken up: what works stays, and the log says why.
    """
    key, cert, ca = files.read()
    initial = grpc.ssl_server_certificate_configuration([(key, cert)], root_certificates=ca)
    taken = looked_at = files.version()

    def current() -> object:
        nonlocal taken, looked_at
        version = files.version()
        if version == taken:
            return None
        try:
            key, cert, ca = files.read()
        except InvalidInputError as error:
            if version != looked_at:
                looked_at = version
                logger.warning("certificate files unusable, the old ones stay", extra={"error": str(error)})
            return None
        taken = version
        logger.info("certificate files changed: new connections use them", extra={"file": str(files.cert)})
        return grpc.ssl_server_certificate_configuration([(key, cert)], root_certificates=ca)

    return grpc.dynamic_ssl_server_credentials(initial, current, require_client_authentication=True)


def channel_credentials(files: TlsFiles) -> grpc.ChannelCredentials:
    """Credentials of a client that shows its certificate; raises InvalidInputError."""
    key, cert, ca = files.read()
    return grpc.ssl_channel_credentials(root_certificates=ca, private_key=key, certificate_chain=cert)


def verify_name_option(server_name: str) -> tuple[str, str]:
    """Channel option that verifies the server under `server_name` instead of its address."""
    return ("grpc.ssl_target_name_override", server_name)


def tls_files(cert: str, key: str, ca: str, path: str = "") -> TlsFiles | None:
    """Put three configured file names together; None where all are empty.

    Raises InvalidInputError at `path` where only some are given.
    """
    given = {"certificate": cert, "key": key, "CA": ca}
    if not any(given.values()):
        return None
    missing = [name for name, value in given.items() if not value]
    if missing:
        raise InvalidInputError(
            f"TLS needs certificate, key and CA: no {' and no '.join(missing)} given", path
        )
    return TlsFiles(Path(cert), Path(key), Path(ca))


def check_listener(address: str, tls: TlsFiles | None, allow_insecure: bool, path: str = "") -> None:
    """Refuse to serve gRPC on TCP `address` (`host:port`) without mutual TLS.

    Plain text is possible on loopback alone, and only when `allow_insecure` says so. Raises InvalidInputError
    at `path` with the remedy.
    """
    host, colon, port = address.rpartition(":")
    if not colon or not port.isdigit() or int(port) > 65535:
        raise InvalidInputError(f"{address!r} is not HOST:PORT", path)
    if tls is not None:
        return
    if not allow_insecure:
        raise InvalidInputError(f"{address} without mutual TLS is refused: {REMEDY} and name the files", path)
    if not is_loopback(host):
        raise InvalidInputError(f"{address}: without TLS only loopback is served", path)


def is_loopback(host: str) -> bool:
    """Tell whether `host` (an address, perhaps in brackets, or `localhost`) is this machine alone."""
    if host == "localhost":
        return True
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
