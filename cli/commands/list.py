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
    add_output_flag(namespaces, "table", ("table", "json"))
    for kind in (nodes, namespaces):
        add_server_flags(kind)


def run(args: argparse.Namespace) -> int:
    """Print the table, or JSON with one object."""
    from cli.format import serverstatus
    from cli.format.protojson import JsonFormat
    from cli.server import connect
    from palomar_pb.observer import observer_pb2, observer_pb2_grpc

    output = output_of(args)
    with connect(target_of(args), connect_timeout_s(args)) as channel:
        stub = observer_pb2_grpc.ObserverStub(channel)
        timeout_s = call_timeout_s(args)
        if args.kind in ("nodes", "node"):
            nodes = stub.GetNodes(observer_pb2.GetNodesRequest(), timeout=timeout_s)
            tree = JsonFormat().tree(nodes)
            text = serverstatus.node_lines(nodes.nodes, wide=output == "wide")
        else:
            namespaces = stub.GetNamespaces(observer_pb2.GetNamespacesRequest(), timeout=timeout_s)
            tree = JsonFormat().tree(namespaces)
            text = serverstatus.namespace_lines(namespaces.namespaces)
    print(json.dumps(tree, indent=2) if output == "json" else "\n".join(text))
    return 0
