"""`palomar ui`: the service map in a browser, from a relay's flows or a node's.

Serves on loopback only. Reads the same `--server` and TLS flags as `palomar observe`; a server over TCP
that is not on this machine needs mutual TLS.
"""

import argparse
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cli.errors import UsageError
from cli.serverflags import add_server_flags, target_of

if TYPE_CHECKING:  # dash and grpc take a second to load; --help must not
    from cli.target import Target
    from palomar.tls import TlsFiles

DEFAULT_LISTEN = "127.0.0.1:8080"


def add_parser(subparsers: Any) -> None:
    """Describe `palomar ui`."""
    parser = subparsers.add_parser(
        "ui",
        help="the service map in a browser",
        description="Serve the live service map, flow table and node states on a loopback address.",
    )
    parser.add_argument(
        "--listen",
        default=DEFAULT_LISTEN,
        metavar="ADDRESS:PORT",
        help=f"loopback address to serve on (default {DEFAULT_LISTEN}; port 0 takes a free one)",
    )
    add_server_flags(parser)


def run(args: argparse.Namespace) -> int:
    """Serve until SIGTERM or Ctrl-C."""
    from ui.client import ServerTarget
    from ui.listen import parse_listen
    from ui.main import UiConfig, serve

    listen = parse_listen(args.listen)
    target = target_of(args)
    server_name = target.tls.server_name if target.tls is not None else ""
    return serve(UiConfig(ServerTarget(target.text, target.address, tls_files(target), server_name), listen))


def tls_files(target: "Target") -> "TlsFiles | None":
    """Return the files of mutual TLS; None for a unix socket or plain text on loopback.

    Raises UsageError where the flags would leave the connection open to others.
    """
    from palomar.tls import TlsFiles

    tls = target.tls
    if tls is None:
        if target.socket_path is None and not _on_loopback(target.address):
            raise UsageError(
                f"--server {target.text} is another machine and no TLS flag is given: give "
                "--tls-ca-cert-files, --tls-client-cert-file and --tls-client-key-file "
                "(make them with `palomar certs`)"
            )
        return None
    if tls.allow_insecure:
        raise UsageError("--tls-allow-insecure: a page that shows a server must know which one it is")
    if len(tls.ca_cert_files) != 1 or not tls.client_cert_file or not tls.client_key_file:
        raise UsageError(
            "TLS needs one --tls-ca-cert-files, --tls-client-cert-file and --tls-client-key-file "
            "(make them with `palomar certs`)"
        )
    return TlsFiles(
        cert=Path(tls.client_cert_file), key=Path(tls.client_key_file), ca=Path(tls.ca_cert_files[0])
    )


def _on_loopback(address: str) -> bool:
    host = address.rpartition(":")[0].removeprefix("[").removesuffix("]")
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
