"""The relay's flags. Apart from what they mean (`relay.config`), so that `--help` loads nothing heavy.

`docs/relay.md` lists them; a test compares.
"""

import argparse

from palomar.paths import SOCKET_GROUP

DEFAULT_LISTEN = "127.0.0.1:4245"
DEFAULT_PEER_SERVICE = "unix:///run/palomar/hubble.sock"
DEFAULT_SORT_WAIT_MS = 30
INSECURE_FLAG = "--insecure-plain-text-on-loopback"


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Give `parser` the relay's flags."""
    _add_own(parser)
    _add_nodes(parser.add_argument_group("nodes"))
    _add_certificates(parser.add_argument_group("certificates", "PEM files; `palomar certs` makes them."))


def _add_own(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--listen",
        metavar="ADDRESS",
        default=DEFAULT_LISTEN,
        help=f"HOST:PORT or unix:///PATH ({DEFAULT_LISTEN})",
    )
    parser.add_argument(
        "--socket-group",
        metavar="GROUP",
        default=SOCKET_GROUP,
        help=f"group that may use the unix socket, where it exists ({SOCKET_GROUP})",
    )
    parser.add_argument(
        "--metrics-listen", metavar="HOST:PORT", default="", help="serve /metrics there (off)"
    )
    parser.add_argument(
        "--sort-wait-ms",
        metavar="N",
        type=int,
        default=DEFAULT_SORT_WAIT_MS,
        help=f"longest wait of a flow for slower nodes, 1 to 10000 ({DEFAULT_SORT_WAIT_MS})",
    )
    parser.add_argument(
        "--name", default="relay", metavar="NAME", help="of this relay in status events (relay)"
    )
    parser.add_argument(
        "--log-level",
        metavar="LEVEL",
        type=str.lower,
        choices=("debug", "info", "warning", "error"),
        default="info",
        help="debug, info, warning, error (info)",
    )
    parser.add_argument(
        "--log-format",
        metavar="FORMAT",
        choices=("text", "json"),
        default="text",
        help="text for people, json lines for machines (text)",
    )


def _add_nodes(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--peer-service",
        metavar="TARGET",
        default=None,
        help=f"who announces the nodes: unix:///PATH or HOST:PORT ({DEFAULT_PEER_SERVICE} without --peer)",
    )
    group.add_argument(
        "--peer-service-server-name",
        metavar="NAME",
        default="",
        help="name in its certificate, for HOST:PORT",
    )
    group.add_argument(
        "--peer",
        metavar="NAME=ADDRESS[,SERVER_NAME]",
        action="append",
        default=[],
        help="a node that nobody announces; repeat for more",
    )


def _add_certificates(group: argparse._ArgumentGroup) -> None:
    for flag, text in (
        ("--tls-cert-file", "the relay's certificate"),
        ("--tls-key-file", "its key"),
        ("--tls-ca-file", "CA of the clients and the nodes"),
        ("--tls-client-cert-file", "certificate for the nodes, if another"),
        ("--tls-client-key-file", "its key"),
        ("--tls-hubble-ca-file", "CA of the nodes, if another"),
    ):
        group.add_argument(flag, metavar="FILE", default="", help=text)
    group.add_argument(
        INSECURE_FLAG,
        dest="allow_insecure",
        action="store_true",
        help="NO TLS: serve and connect in plain text, on loopback only",
    )
