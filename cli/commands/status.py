"""`palomar status`: is this node well, and does every event add up? Exit status 1 when it is not.

Input: the agent's `GET /v1/healthz`. With `--server`, a flow server or relay is asked instead.
"""

import argparse
import json
from typing import Any

from cli.context import add_output_flag, agent_api, output_of
from cli.parser import BoolFlag
from cli.serverflags import add_server_flags, call_timeout_s, connect_timeout_s, names_server, target_of
from palomar.errors import PalomarError

OUTPUTS = ("compact", "dict", "table", "json")


def add_parser(subparsers: Any) -> None:
    """Describe `palomar status`."""
    parser = subparsers.add_parser(
        "status",
        help="state of the agent and its flow server",
        description="Report on the node's agent; with --server on a flow server or relay.",
    )
    parser.add_argument("--verbose", action=BoolFlag, default=False, help="controllers, tables, maps, CPUs")
    parser.add_argument("--brief", action=BoolFlag, default=False, help="OK, or the first problem")
    add_output_flag(parser, "compact", OUTPUTS)
    add_server_flags(parser)


def run(args: argparse.Namespace) -> int:
    """Print the report; 1 when something is not well."""
    output = output_of(args)
    if names_server(args):
        return _server_status(args, output)
    from cli.format import status as report

    status = agent_api(args).get("/healthz")
    status[report.SERVER] = _flow_server(args)
    if output == "json":
        print(json.dumps(status, indent=2))
    elif args.brief:
        print(report.brief(status))
    else:
        print("\n".join(report.lines(status, verbose=args.verbose)))
    return 1 if report.problems(status) else 0


def _flow_server(args: argparse.Namespace) -> dict[str, Any]:
    """Ask the node's flow server itself: the agent only knows that it started it."""
    from cli.server import connect
    from palomar_pb.observer import observer_pb2, observer_pb2_grpc

    try:
        with connect(target_of(args), connect_timeout_s(args)) as channel:
            stub = observer_pb2_grpc.ObserverStub(channel)
            status = stub.ServerStatus(observer_pb2.ServerStatusRequest(), timeout=call_timeout_s(args))
    except PalomarError as error:
        return {"state": "Failure", "msg": str(error)}
    return {
        "state": "Ok",
        "current-flows": status.num_flows,
        "max-flows": status.max_flows,
        "seen-flows": status.seen_flows,
        "uptime": status.uptime_ns / 1e9,
    }


def _server_status(args: argparse.Namespace, output: str) -> int:
    from cli.format import serverstatus
    from cli.format.protojson import JsonFormat
    from cli.server import connect
    from palomar_pb.observer import observer_pb2, observer_pb2_grpc

    target = target_of(args)
    with connect(target, connect_timeout_s(args)) as channel:
        stub = observer_pb2_grpc.ObserverStub(channel)
        status = stub.ServerStatus(observer_pb2.ServerStatusRequest(), timeout=call_timeout_s(args))
    if output == "json":
        print(JsonFormat().line(status))
    elif args.brief:
        print("OK")
    else:
        print("\n".join(serverstatus.lines(status, target.text, output)))
    return 0
