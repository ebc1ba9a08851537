"""`palomar watch peers`: the nodes as a flow server announces them, and every change."""

import argparse
import sys
from typing import Any

from cli.serverflags import add_server_flags, connect_timeout_s, target_of


def add_parser(subparsers: Any) -> None:
    """Describe `palomar watch`."""
    parser = subparsers.add_parser("watch", aliases=["w"], help="peers as a node announces them")
    kinds = parser.add_subparsers(metavar="KIND", dest="kind", required=True)
    peers = kinds.add_parser("peers", aliases=["peer"], help="peers, then every change, until interrupted")
    add_server_flags(peers)


def run(args: argparse.Namespace) -> int:
    """Print a line per announcement until the person has seen enough."""
    from cli.server import connect, quiet_grpc

    quiet_grpc()
    from cli.peerwatch import line, watch_peers
    from cli.resume import until_interrupted

    target, timeout_s = target_of(args), connect_timeout_s(args)

    def say(text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    with until_interrupted():
        for change in watch_peers(lambda: connect(target, timeout_s), say):
            print(line(change), flush=True)
    return 0
