"""The flags that say which flow server to ask, and their environment variables.

`--server`, `--tls*`, `--timeout`, `--request-timeout`; each may come from `PALOMAR_<NAME>` or
`HUBBLE_<NAME>` where the flag is not given. Without any, the node's own socket is asked.
"""

import argparse
import os
from collections.abc import Mapping

from cli.context import node_paths
from cli.errors import UsageError
from cli.parser import BoolFlag
from cli.server import Target, TlsOptions, from_environment, parse_target
from cli.timespec import NS_PER_S, parse_duration_ns

_TRUE = ("1", "t", "true")


def add_server_flags(parser: argparse.ArgumentParser) -> None:
    """Give `parser` the group "server"."""
    group = parser.add_argument_group(
        "server", "Each may also come from PALOMAR_<NAME> or HUBBLE_<NAME>, e.g. PALOMAR_SERVER."
    )
    group.add_argument(
        "--server",
        metavar="TARGET",
        help="unix:///PATH, HOST:PORT or tls://HOST:PORT (default: the node's own hubble.sock)",
    )
    group.add_argument("--timeout", metavar="DURATION", help="time limit for connecting (5s)")
    group.add_argument("--request-timeout", metavar="DURATION", help="time limit of single calls (12s)")
    group.add_argument("--tls", action=BoolFlag, default=None, help="use TLS")
    group.add_argument("--tls-allow-insecure", action=BoolFlag, default=None, help="accept any certificate")
    group.add_argument(
        "--tls-ca-cert-files",
        metavar="FILE",
        action="append",
        help="CA certificates (PEM), comma-separated or repeated",
    )
    group.add_argument("--tls-client-cert-file", metavar="FILE", help="client certificate (mTLS)")
    group.add_argument("--tls-client-key-file", metavar="FILE", help="client key (mTLS)")
    group.add_argument("--tls-server-name", metavar="NAME", help="name to expect in the certificate")


def target_of(args: argparse.Namespace, environment: Mapping[str, str] | None = None) -> Target:
    """Return whom to ask, by flag, environment, or the node's own socket."""
    env = os.environ if environment is None else environment

    def text(name: str) -> str:
        return str(getattr(args, name) or from_environment(name.replace("_", "-"), env))

    def truth(name: str) -> bool:
        given = getattr(args, name)
        if given is not None:
            return bool(given)
        return from_environment(name.replace("_", "-"), env).lower() in _TRUE

    files = args.tls_ca_cert_files or [from_environment("tls-ca-cert-files", env)]
    tls = TlsOptions(
        enabled=truth("tls"),
        allow_insecure=truth("tls_allow_insecure"),
        ca_cert_files=tuple(part for file in files for part in file.split(",") if part),
        client_cert_file=text("tls_client_cert_file"),
        client_key_file=text("tls_client_key_file"),
        server_name=text("tls_server_name"),
    )
    server = text("server")
    if not server:
        return parse_target(f"unix://{node_paths(args).hubble_socket.absolute()}", TlsOptions())
    return parse_target(server, tls)


def connect_timeout_s(args: argparse.Namespace) -> float:
    """Return `--timeout` in seconds."""
    return _seconds(args.timeout, "timeout", "5s")


def call_timeout_s(args: argparse.Namespace) -> float:
    """Return `--request-timeout` in seconds."""
    return _seconds(args.request_timeout, "request-timeout", "12s")


def _seconds(given: str | None, name: str, default: str) -> float:
    text = given or from_environment(name, os.environ) or default
    duration = parse_duration_ns(text, f"--{name}") / NS_PER_S
    if duration <= 0:
        raise UsageError(f"--{name} {text!r}: must be longer than nothing")
    return duration
