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

HEALTH_SERVICES = ("hubble.server.Observer", "")
"""What a Hubble server answers health checks by, and any server as a whole."""
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
    from cli.errors import CallError
    from cli.format import serverstatus
    from cli.format.protojson import JsonFormat
    from cli.server import connect
    from palomar_pb.observer import observer_pb2, observer_pb2_grpc

    target, timeout_s = target_of(args), call_timeout_s(args)
    with connect(target, connect_timeout_s(args)) as channel:
        trouble = _trouble(channel, timeout_s)
        if output == "compact" and not args.brief:
            print(f"Healthcheck (via {target.text}): {f'Unavailable: {trouble}' if trouble else 'Ok'}")
        if trouble:
            raise CallError(target.text, trouble, "not healthy")
        stub = observer_pb2_grpc.ObserverStub(channel)
        status = stub.ServerStatus(observer_pb2.ServerStatusRequest(), timeout=timeout_s)
    if output == "json":
        print(JsonFormat().line(status))
    elif args.brief:
        print("OK")
    else:
        print("\n".join(serverstatus.lines(status, output)))
    return 0


def _trouble(channel: Any, timeout_s: float) -> str:
    """Return what a health check says, empty for SERVING; a server without health checks has none."""
    import grpc
    from grpc_health.v1 import health_pb2, health_pb2_grpc

    for service in HEALTH_SERVICES:
        try:
            request = health_pb2.HealthCheckRequest(service=service)
            state = health_pb2_grpc.HealthStub(channel).Check(request, timeout=timeout_s).status
        except grpc.RpcError as error:
            if error.code() is grpc.StatusCode.NOT_FOUND:
                continue
            if error.code() is grpc.StatusCode.UNIMPLEMENTED:
                break
            raise
        serving = state == health_pb2.HealthCheckResponse.SERVING
        return "" if serving else str(health_pb2.HealthCheckResponse.ServingStatus.Name(state))
    return ""
