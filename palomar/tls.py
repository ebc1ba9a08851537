"""Mutual TLS from files that may be replaced at any time: credentials of servers and clients.

Servers read certificate, key and CA anew for every handshake when the files changed
(`grpc.dynamic_ssl_server_credentials`); clients build a new channel when `TlsFiles.version` moves.
Nothing here opens a port.
"""

from dataclasses import dataclass
from pathlib import Path

import grpc

from palomar.errors import InvalidInputError

MAX_CONNECTION_AGE_OPTIONS = (
    ("grpc.max_connection_age_ms", 3_600_000),
    ("grpc.max_connection_age_grace_ms", 3_600_000),
)
"""Server options that make clients come back and show their certificate again at least hourly."""


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
                remedy = "make it with `palomar certs`"
                raise InvalidInputError(f"{path}: {error.strerror or error}: {remedy}") from error
        return parts[0], parts[1], parts[2]

    def version(self) -> tuple[int, ...]:
        """Change with the files: their modification times; 0 for one that is missing."""
        return tuple(
            path.stat().st_mtime_ns if path.exists() else 0 for path in (self.key, self.cert, self.ca)
        )


def server_credentials(files: TlsFiles) -> grpc.ServerCredentials:
    """Credentials that demand a client certificate and follow the files; raises InvalidInputError."""
    key, cert, ca = files.read()
    initial = grpc.ssl_server_certificate_configuration([(key, cert)], root_certificates=ca)
    seen = files.version()

    def current() -> object:
        nonlocal seen
        version = files.version()
        if version == seen:
            return None
        try:
            key, cert, ca = files.read()
        except InvalidInputError:
            return None  # half replaced: keep what works, look again at the next handshake
        seen = version
        return grpc.ssl_server_certificate_configuration([(key, cert)], root_certificates=ca)

    return grpc.dynamic_ssl_server_credentials(initial, current, require_client_authentication=True)


def channel_credentials(files: TlsFiles) -> grpc.ChannelCredentials:
    """Credentials of a client that shows its certificate; raises InvalidInputError."""
    key, cert, ca = files.read()
    return grpc.ssl_channel_credentials(root_certificates=ca, private_key=key, certificate_chain=cert)


def verify_name_option(server_name: str) -> tuple[str, str]:
    """Channel option that verifies the server under `server_name` instead of its address."""
    return ("grpc.ssl_target_name_override", server_name)
