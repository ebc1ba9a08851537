"""`palomar watch peers`: the nodes as a flow server announces them, and every change."""

import argparse
from typing import Any

from cli.serverflags import add_server_flags, connect_timeout_s, target_of


def add_parser(subparsers: Any) -> None:
    """Describe `palomar watch`."""
    parser = subparsers.add_parser("watch", aliases=["w"], help="peers as a node announces them")
    kinds = parser.add_subparsers(metavar="KIND", dest="kind", required=True)
    peers = kinds.add_parser("peers", aliases=["peer"], help="peers, then every change, until interrupted")
    add_server_flags(peers)


def run(args: argparse.Namespace) -> int:
    """Print a line per announcement until the server ends or the person has seen enough."""
    from cli.server import connect
    from palomar_pb.peer import peer_pb2, peer_pb2_grpc

    with connect(target_of(args), connect_timeout_s(args)) as channel:
        for change in peer_pb2_grpc.PeerStub(channel).Notify(peer_pb2.NotifyRequest()):
            tls = f" (TLS.ServerName: {change.tls.server_name})" if change.HasField("tls") else ""
            kinds = peer_pb2.ChangeNotificationType.values()
            kind = peer_pb2.ChangeNotificationType.Name(change.type) if change.type in kinds else change.type
            print(f"{kind:<12} {change.address} ({change.name}){tls}", flush=True)
    return 0
