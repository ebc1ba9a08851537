"""`palomar list nodes|namespaces`: what the flow server or relay knows."""

import argparse
import json
from typing import Any

from cli.context import add_output_flag, output_of
from cli.serverflags import add_server_flags, call_timeout_s, connect_timeout_s, target_of


def add_parser(subparsers: Any) -> None:
    """Describe `palomar list`."""
    parser = subparsers.add_parser("list", help="nodes and namespaces the flow server knows")
    kinds = parser.add_subparsers(metavar="KIND", dest="kind", required=True)
    nodes = kinds.add_parser("nodes", aliases=["node"], help="nodes with their flow counts")
    add_output_flag(nodes, "table", ("table", "wide", "json"))
    namespaces = kinds.add_parser("namespaces", aliases=["namespace"], help="namespaces seen in flows")
    add_output_flag(namespaces, "table", ("table", "wide", "json"))
    for kind in (nodes, namespaces):
        add_server_flags(kind)


def run(args: argparse.Namespace) -> int:
    """Print the table, or a list in JSON."""
    from cli.format import serverstatus
    from cli.format.protojson import JsonFormat
    from cli.server import connect
    from palomar_pb.observer import observer_pb2, observer_pb2_grpc

    output = output_of(args)
    with connect(target_of(args), connect_timeout_s(args)) as channel:
        stub = observer_pb2_grpc.ObserverStub(channel)
        timeout_s = call_timeout_s(args)
        items: Any
        if args.kind in ("nodes", "node"):
            items = stub.GetNodes(observer_pb2.GetNodesRequest(), timeout=timeout_s).nodes
            text = serverstatus.node_lines(items, wide=output == "wide")
        else:
            items = stub.GetNamespaces(observer_pb2.GetNamespacesRequest(), timeout=timeout_s).namespaces
            text = serverstatus.namespace_lines(items, wide=output == "wide")
    if output == "json":
        print(json.dumps([JsonFormat().tree(item) for item in items], indent=2, ensure_ascii=False))
    else:
        print("\n".join(text))
    return 0
