"""`palomar version`: of this command, and of the agent where one answers."""

import argparse
import json
from typing import Any

from cli.context import add_output_flag, agent_api, output_of
from palomar.errors import PalomarError


def add_parser(subparsers: Any) -> None:
    """Describe `palomar version`."""
    parser = subparsers.add_parser("version", help="version of this command and of the agent")
    add_output_flag(parser, "table", ("table", "json"))


def run(args: argparse.Namespace) -> int:
    """Print both versions; an agent that does not answer is said so, not an error."""
    from cli.format.agent import at
    from palomar.version import installed_version

    output = output_of(args)
    client = installed_version()
    try:
        status = agent_api(args, timeout_s=2.0).get("/healthz")
        daemon = str(at(status, "palomar", "version") or "unknown")
    except PalomarError:
        daemon = "not running"
    if output == "json":
        print(json.dumps({"client": client, "daemon": daemon}))
    else:
        print(f"Client: {client}\nDaemon: {daemon}")
    return 0
