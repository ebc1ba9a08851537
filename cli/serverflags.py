"""The flags that say which flow server to ask, their environment variables and their file.

`--server`, `--tls*`, `--timeout`, `--request-timeout`; where the flag is not given, each may come from
`PALOMAR_<NAME>` or `HUBBLE_<NAME>`, else from the configuration file (`cli.configfile`). Without any, the
node's own socket is asked. A run directory says which node is meant, so one that is not the default
ranks above the `server` of a file that nobody named.
"""

import argparse
import os
from collections.abc import Mapping

from cli import configfile
from cli.configfile import ConfigFile
from cli.context import node_paths
from cli.errors import UsageError
from cli.main import DEFAULT_RUN_DIR
from cli.parser import BoolFlag
from cli.target import Target, TlsOptions, from_environment, parse_target
from cli.timespec import NS_PER_S, parse_duration_ns

_TRUE = ("1", "t", "true")


def add_server_flags(parser: argparse.ArgumentParser) -> None:
    """Give `parser` the group "server"."""
    group = parser.add_argument_group(
        "server",
        "Each may also come from PALOMAR_<NAME> or HUBBLE_<NAME>, e.g. PALOMAR_SERVER, or from the file.",
    )
    group.add_argument(
        "--config",
        metavar="FILE",
        help="YAML with these flags as keys (env PALOMAR_CLI_CONFIG, default ~/.config/palomar/config.yaml)",
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


def names_server(args: argparse.Namespace, environment: Mapping[str, str] | None = None) -> bool:
    """Tell whether flag, environment or file name a server; False: the node's own socket is asked."""
    env = os.environ if environment is None else environment
    return bool(_server(args, env, configfile.load(args.config, env)))


def target_of(args: argparse.Namespace, environment: Mapping[str, str] | None = None) -> Target:
    """Return whom to ask, by flag, environment, file, or the node's own socket."""
    env = os.environ if environment is None else environment
    file = configfile.load(args.config, env)
    server = _server(args, env, file)
    if not server:
        return parse_target(f"unix://{node_paths(args).hubble_socket.absolute()}", TlsOptions())
    # What the file says about TLS is about servers over a network, and --tls=false ends it.
    plain = args.tls is False or server.startswith(("/", "unix:"))
    return parse_target(server, _tls_options(args, env, {} if plain else file.values))


def _server(args: argparse.Namespace, env: Mapping[str, str], file: ConfigFile) -> str:
    given = str(args.server or from_environment("server", env))
    if given or (args.run_dir != DEFAULT_RUN_DIR and not file.named):
        return given
    return file.values.get("server", "")


def _tls_options(args: argparse.Namespace, env: Mapping[str, str], values: Mapping[str, str]) -> TlsOptions:
    def text(name: str) -> str:
        return str(
            getattr(args, name.replace("-", "_")) or from_environment(name, env) or values.get(name, "")
        )

    def truth(name: str) -> bool:
        given = getattr(args, name.replace("-", "_"))
        if given is not None:
            return bool(given)
        return (from_environment(name, env) or values.get(name, "")).lower() in _TRUE

    files = args.tls_ca_cert_files or [text("tls-ca-cert-files")]
    return TlsOptions(
        enabled=truth("tls"),
        allow_insecure=truth("tls-allow-insecure"),
        ca_cert_files=tuple(part for file in files for part in file.split(",") if part),
        client_cert_file=text("tls-client-cert-file"),
        client_key_file=text("tls-client-key-file"),
        server_name=text("tls-server-name"),
    )


def connect_timeout_s(args: argparse.Namespace, environment: Mapping[str, str] | None = None) -> float:
    """Return `--timeout` in seconds."""
    return _seconds(args, "timeout", "5s", environment)


def call_timeout_s(args: argparse.Namespace, environment: Mapping[str, str] | None = None) -> float:
    """Return `--request-timeout` in seconds."""
    return _seconds(args, "request-timeout", "12s", environment)


def _seconds(
    args: argparse.Namespace, name: str, default: str, environment: Mapping[str, str] | None
) -> float:
    env = os.environ if environment is None else environment
    given = getattr(args, name.replace("-", "_")) or from_environment(name, env)
    text = given or configfile.load(args.config, env).values.get(name) or default
    duration = parse_duration_ns(text, f"--{name}") / NS_PER_S
    if duration <= 0:
        raise UsageError(f"--{name} {text!r}: must be longer than nothing")
    return duration
