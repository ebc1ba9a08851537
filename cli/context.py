"""What every command needs from its arguments: sockets of the node, the agent's API, the terminal.

The rim between `argparse.Namespace` and the rest; nothing is opened before it is used.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cli.errors import UsageError
from palomar.paths import NodePaths
from palomar.unixhttp import UnixHttpClient

API_BASE = "/v1"
DEFAULT_BPF_ROOT = Path("/sys/fs/bpf")


def node_paths(args: argparse.Namespace) -> NodePaths:
    """Return the node's paths as far as `--run-dir` names them."""
    run_dir = Path(args.run_dir)
    return NodePaths(run_dir=run_dir, state_dir=run_dir, bpf_root=DEFAULT_BPF_ROOT)


class AgentApi:
    """Calls of the agent's API below `/v1`; raises AgentUnreachableError and ApiError."""

    def __init__(self, client: UnixHttpClient) -> None:
        """`client` is bound to the agent's socket."""
        self._client = client

    def get(self, path: str) -> Any:
        """GET `path` (`/endpoint`, ...) and return the decoded answer."""
        return self._client.request("GET", API_BASE + path)

    def put(self, path: str, body: object) -> Any:
        """PUT `body` (text as it is, anything else as JSON)."""
        return self._client.request("PUT", API_BASE + path, body)

    def delete(self, path: str, body: object = None) -> Any:
        """DELETE `path`."""
        return self._client.request("DELETE", API_BASE + path, body)


def agent_api(args: argparse.Namespace, timeout_s: float = 30.0) -> AgentApi:
    """Return the API of the node's agent; nothing is dialled yet."""
    return AgentApi(UnixHttpClient(node_paths(args).api_socket, timeout_s))


def wants_colour(choice: str) -> bool:
    """Decide `--color`: `auto` means a terminal that has not asked for none (NO_COLOR)."""
    if choice == "auto":
        return sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    return choice == "always"


def one_of(flag: str, value: str, accepted: Sequence[str]) -> str:
    """Return `value` where it is accepted; raise UsageError naming `flag` otherwise."""
    if value not in accepted:
        raise UsageError(f"{flag} {value!r}: accepted is one of {', '.join(accepted)}")
    return value


def add_output_flag(parser: argparse.ArgumentParser, default: str, accepted: Sequence[str]) -> None:
    """Give `parser` the flag -o; check the value with `output_of`."""
    parser.add_argument(
        "-o",
        "--output",
        default=default,
        metavar="FORMAT",
        help=f"{', '.join(accepted)} (default {default})",
    )
    parser.set_defaults(accepted_outputs=tuple(accepted))


def output_of(args: argparse.Namespace) -> str:
    """Return the checked value of -o."""
    if args.output not in args.accepted_outputs:
        raise UsageError(
            f"invalid output format: {args.output} (accepted: {', '.join(args.accepted_outputs)})"
        )
    return str(args.output)
