"""`palomar endpoint`: the endpoints of this node, through the agent's API.

An ID is a number, or `container-name:web-1`, `pod-name:demo/web-1`, `ipv4:10.1.0.5`.
"""

import argparse
import json
from typing import Any
from urllib.parse import quote

from cli.context import AgentApi, add_output_flag, agent_api, output_of
from cli.errors import UsageError
from cli.parser import BoolFlag

_PREFIXES = ("container-name:", "container-id:", "pod-name:", "cni-attachment-id:", "ipv4:", "ipv6:")


def add_parser(subparsers: Any) -> None:
    """Describe `palomar endpoint`."""
    parser = subparsers.add_parser(
        "endpoint", help="endpoints of this node: list, get, add, delete, log, health"
    )
    actions = parser.add_subparsers(metavar="ACTION", dest="action", required=True)
    listing = actions.add_parser("list", aliases=["ls"], help="all endpoints")
    listing.add_argument("--no-headers", action=BoolFlag, default=False, help="leave the headers out")
    add_output_flag(listing, "table", ("table", "json"))
    for name, text in (
        ("get", "everything about one endpoint, as JSON"),
        ("log", "state changes of one endpoint"),
        ("health", "health of one endpoint"),
        ("delete", "disconnect one endpoint"),
    ):
        action = actions.add_parser(name, help=text)
        action.add_argument("id", metavar="ID", help="number, container-name:X, pod-name:NS/X or ipv4:ADDR")
        if name != "delete":
            add_output_flag(action, "json" if name == "get" else "table", ("table", "json"))
    _describe_add(actions)


def _describe_add(actions: Any) -> None:
    add = actions.add_parser(
        "add", help="connect a network namespace as an endpoint", usage="palomar endpoint add NAME [flags]"
    )
    add.add_argument("name", metavar="NAME", help="container name, unique on this node")
    add.add_argument("--netns", required=True, metavar="PATH", help="namespace, e.g. /run/netns/web-1")
    add.add_argument("-l", "--label", action="append", default=[], metavar="LABEL", help="[source:]key=value")
    add.add_argument("--pod", default="", metavar="[NS/]POD", help="pod it belongs to (default: NAME)")
    add.add_argument("--ipv4", default="", metavar="ADDR", help="address to ask for (default: the next free)")
    add.add_argument("--workload", default="", metavar="[KIND/]NAME", help="workload, e.g. Deployment/web")
    add.add_argument("--interface", default="", metavar="NAME", help="name inside the namespace (eth0)")
    add_output_flag(add, "table", ("table", "json"))


def run(args: argparse.Namespace) -> int:
    """Do the action and print its answer."""
    api = agent_api(args)
    if args.action in ("list", "ls"):
        return _list(api, args)
    if args.action == "add":
        return _add(api, args)
    path = f"/endpoint/{quote(endpoint_id(args.id), safe=':')}"
    if args.action == "delete":
        api.delete(path)
        print(f"Endpoint {args.id} disconnected")
        return 0
    return _show(api, args, path)


def endpoint_id(text: str) -> str:
    """Check an endpoint's ID; raise UsageError that says how to write one."""
    numeric = text.isascii() and text.isdigit() and 0 < int(text) < 65536
    prefixed = any(text.startswith(prefix) and len(text) > len(prefix) for prefix in _PREFIXES)
    if not numeric and not prefixed:
        raise UsageError(
            f"endpoint ID {text!r}: accepted is a number from 1 to 65535, container-name:NAME,"
            " pod-name:NS/POD or ipv4:ADDRESS"
        )
    return text


def _list(api: AgentApi, args: argparse.Namespace) -> int:
    from cli.format.agent import endpoint_list

    output = output_of(args)
    endpoints = api.get("/endpoint")
    if output == "json":
        print(json.dumps(endpoints, indent=2))
    else:
        print("\n".join(endpoint_list(endpoints, headers=not args.no_headers)))
    return 0


def _show(api: AgentApi, args: argparse.Namespace, path: str) -> int:
    from cli.format import agent

    output = output_of(args)
    suffix = {"get": "", "log": "/log", "health": "/healthz"}[args.action]
    answer = api.get(path + suffix)
    if output == "json":
        print(json.dumps([answer] if args.action == "get" else answer, indent=2))
    elif args.action == "get":
        print("\n".join(agent.endpoint_list([answer])))
    elif args.action == "log":
        print("\n".join(agent.endpoint_log(answer)))
    else:
        print("\n".join(agent.endpoint_health(answer)))
    return 0


def change_request(args: argparse.Namespace) -> dict[str, Any]:
    """Build the body of `PUT /endpoint/{id}` from the flags of `endpoint add`."""
    namespace, slash, pod = (args.pod or args.name).rpartition("/")
    body: dict[str, Any] = {
        "container-name": args.name,
        "k8s-pod-name": pod,
        "k8s-namespace": namespace if slash else "default",
        "labels": list(args.label),
        "netns": args.netns,
    }
    if args.interface:
        body["container-interface-name"] = args.interface
    if args.ipv4:
        body["addressing"] = {"ipv4": args.ipv4}
    if args.workload:
        kind, _, name = args.workload.rpartition("/")
        body["workload"] = {"name": name, "kind": kind}
    return body


def _add(api: AgentApi, args: argparse.Namespace) -> int:
    from cli.format.agent import at, endpoint_list

    output = output_of(args)
    if not args.netns.startswith("/"):
        raise UsageError(f"--netns {args.netns!r}: write the whole path, e.g. /run/netns/{args.netns}")
    body = change_request(args)
    endpoint = api.put(f"/endpoint/{quote(endpoint_id(f'container-name:{args.name}'), safe=':')}", body)
    if output == "json":
        print(json.dumps(endpoint, indent=2))
    elif at(endpoint, "status"):
        print("\n".join(endpoint_list([endpoint])))
    else:
        print(f"Endpoint {endpoint.get('id')} created")
    return 0
