"""Where the flows come from: `--server` and the TLS flags, read and checked.

`unix:///run/palomar/hubble.sock` (or a bare path) is the node's own flow server, `host:port` a relay
in plain text, `tls://host:port` or any TLS flag a relay over TLS; a client certificate and key make
it mutual. Pure; `cli.server` opens the channel.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from cli.errors import UsageError

DEFAULT_PORT = 4245
ENV_PREFIXES = ("PALOMAR_", "HUBBLE_")


@dataclass(frozen=True, slots=True)
class TlsOptions:
    """The TLS flags; everything empty means plain text unless the target says `tls://`."""

    enabled: bool = False
    allow_insecure: bool = False
    ca_cert_files: tuple[str, ...] = ()
    client_cert_file: str = ""
    client_key_file: str = ""
    server_name: str = ""

    @property
    def wanted(self) -> bool:
        """Tell whether any flag asks for TLS."""
        return self != TlsOptions()


@dataclass(frozen=True, slots=True)
class Target:
    """One place to ask, ready to dial."""

    text: str
    """As the person wrote it."""
    address: str
    """As grpc wants it: `unix:/path` or `host:port`."""
    tls: TlsOptions | None = None

    @property
    def socket_path(self) -> Path | None:
        """The unix socket; None for TCP."""
        scheme, _, path = self.address.partition(":")
        return Path(path) if scheme == "unix" else None


def parse_target(text: str, tls: TlsOptions) -> Target:
    """Read `--server`; raise UsageError where it or the TLS flags make no sense."""
    path = _unix_path(text)
    if path is not None:
        if tls.wanted:
            raise UsageError(f"--server {text} is a unix socket: TLS flags belong to host:port")
        if not path.startswith("/"):
            raise UsageError(f"--server {text!r}: write unix:// and an absolute path")
        return Target(text, f"unix:{path}")
    scheme, separator, rest = text.partition("://")
    if separator and scheme not in ("tls", "tcp"):
        raise UsageError(f"--server {text!r}: accepted is unix:///PATH, HOST:PORT or tls://HOST:PORT")
    address = _with_port(rest if separator else text, text)
    if not (tls.wanted or scheme == "tls"):
        return Target(text, address)
    if bool(tls.client_cert_file) != bool(tls.client_key_file):
        raise UsageError("--tls-client-cert-file and --tls-client-key-file go together")
    return Target(text, address, tls)


def _unix_path(text: str) -> str | None:
    if text.startswith("/"):
        return text
    if text.startswith("unix:"):
        return text.removeprefix("unix:").removeprefix("//")
    return None


def _with_port(address: str, text: str) -> str:
    host, colon, port = address.rpartition(":")
    if not colon or address.endswith("]"):
        host, port = address, str(DEFAULT_PORT)
    if host.count(":") and not host.startswith("["):
        raise UsageError(f"--server {text!r}: write an IPv6 address in brackets, [::1]:{DEFAULT_PORT}")
    if not host or not port.isdigit() or not 0 < int(port) < 65536:
        raise UsageError(f"--server {text!r}: accepted is unix:///PATH, HOST:PORT or tls://HOST:PORT")
    return f"{host}:{port}"


def from_environment(name: str, environment: Mapping[str, str]) -> str:
    """Return `PALOMAR_<NAME>`, else `HUBBLE_<NAME>`, else nothing; `name` as the flag is written."""
    for prefix in ENV_PREFIXES:
        value = environment.get(prefix + name.upper().replace("-", "_"))
        if value:
            return value
    return ""
