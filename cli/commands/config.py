"""`palomar config`: the configuration the agent runs with, through its API."""

import argparse
import difflib
import json
from typing import Any

from cli.context import add_output_flag, agent_api, output_of
from cli.errors import UsageError


def add_parser(subparsers: Any) -> None:
    """Describe `palomar config`."""
    parser = subparsers.add_parser("config", help="configuration of the agent")
    parser.add_argument("action", nargs="?", default="list", metavar="ACTION", help="list (default) or get")
    parser.add_argument("key", nargs="?", metavar="KEY", help="with get: a key such as pod-cidr")
    add_output_flag(parser, "table", ("table", "json"))


def run(args: argparse.Namespace) -> int:
    """Print every key, or the value of one."""
    from cli.format import columns
    from cli.format.agent import flat

    output = output_of(args)
    if args.action not in ("list", "get") or (args.action == "get") != bool(args.key):
        raise UsageError("write `palomar config` or `palomar config get KEY`")
    answer = agent_api(args).get("/config")
    pairs = dict(flat(configuration(answer)))
    if args.action == "get":
        print(_value(pairs, args.key))
    elif output == "json":
        print(json.dumps(answer, indent=2))
    else:
        print("\n".join(columns.align(sorted(pairs.items()))))
    return 0


def configuration(answer: dict[str, Any]) -> dict[str, Any]:
    """Return the key-value part of the agent's answer: its own keys where it gives them."""
    status = answer.get("status") or {}
    own = status.get("daemonConfigurationMap")
    return own if isinstance(own, dict) and own else answer


def _value(pairs: dict[str, str], key: str) -> str:
    if key in pairs:
        return pairs[key]
    near = difflib.get_close_matches(key, pairs, n=1)
    hint = f": did you mean {near[0]}?" if near else ""
    raise UsageError(f"no configuration key {key!r}{hint}")
