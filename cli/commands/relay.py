"""`palomar relay`: merges the flows of all nodes and serves them over mutual TLS."""

import argparse
from typing import Any


def add_parser(subparsers: Any) -> None:
    """Describe `palomar relay`."""
    from relay.flags import add_flags

    parser = subparsers.add_parser(
        "relay",
        help="merge the flows of all nodes over mutual TLS",
        description="Connect every node, merge their flows by time and serve them as one Hubble API.",
    )
    add_flags(parser)


def run(args: argparse.Namespace) -> int:
    """Run until interrupted."""
    from relay.config import from_args
    from relay.main import run as serve

    return serve(from_args(args))
