"""The relay's flags. Apart from what they mean (`relay.config`), so that `--help` loads nothing heavy."""

import argparse

DEFAULT_LISTEN = "127.0.0.1:4245"
DEFAULT_PEER_SERVICE = "unix:///run/palomar/hubble.sock"
DEFAULT_SORT_WAIT_MS = 30
INSECURE_FLAG = "--insecure-plain-text-on-loopback"


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Give `parser` the relay's flags."""
    parser.add_argument(
        "--listen",
        metavar="ADDRESS",
        default=DEFAULT_LISTEN,
        help=f"HOST:PORT or unix:///PATH ({DEFAULT_LISTEN})",
    )
    parser.add_argument(
        "--peer-service",
        metavar="TARGET",
        default=None,
        help=f"who announces the nodes: unix:///PATH or HOST:PORT ({DEFAULT_PEER_SERVICE} without --peer)",
    )
    parser.add_argument(
        "--peer-service-server-name",
        metavar="NAME",
        default="",
        help="name in its certificate, for HOST:PORT",
    )
    parser.add_argument(
        "--peer",
        metavar="NAME=ADDRESS[,SERVER_NAME]",
        action="append",
        default=[],
        help="a node that nobody announces; repeat for more",
    )
    parser.add_argument("--tls-cert-file", metavar="FILE", default="", help="the relay's certificate")
    parser.add_argument("--tls-key-file", metavar="FILE", default="", help="its key")
    parser.add_argument("--tls-ca-file", metavar="FILE", default="", help="CA of the clients and the nodes")
    parser.add_argument(
        "--tls-client-cert-file", metavar="FILE", default="", help="certificate for the nodes, if another"
    )
    parser.add_argument("--tls-client-key-file", metavar="FILE", default="", help="its key")
    parser.add_argument(
        "--tls-hubble-ca-file", metavar="FILE", default="", help="CA of the nodes, if another"
    )
    parser.add_argument(
        INSECURE_FLAG,
        dest="allow_insecure",
        action="store_true",
        help="NO TLS: serve and connect in plain text, on loopback only",
    )
    parser.add_argument(
        "--metrics-listen", metavar="HOST:PORT", default="", help="serve /metrics there (off)"
    )
    parser.add_argument(
        "--sort-wait-ms",
        metavar="N",
        type=int,
        default=DEFAULT_SORT_WAIT_MS,
        help=f"longest wait of a flow for slower nodes ({DEFAULT_SORT_WAIT_MS})",
    )
    parser.add_argument(
        "--name", default="relay", metavar="NAME", help="the relay's in status events (relay)"
    )
    parser.add_argument("--log-level", default="INFO", metavar="LEVEL", help="DEBUG, INFO, WARNING, ERROR")
    parser.add_argument("--log-format", default="text", metavar="FORMAT", help="text or json")
