"""The `palomar` command line: finds the command, loads that one module, turns errors into one line.

Not the commands: each lives in `cli/commands/<name>.py`. Nothing heavy is imported here, because
every command pays for it at start.
"""

import importlib
import os
import sys
from collections.abc import Sequence

from cli.errors import UsageError
from cli.parser import CommandParser
from palomar.errors import PalomarError

COMMANDS = {
    "observe": "flows as they are seen, with verdict and reason",
    "status": "state of the agent and its flow server",
    "endpoint": "endpoints of this node: list, get, add, delete, log, health",
    "identity": "security identities: list, get",
    "policy": "network policies: get, import, delete, validate",
    "bpf": "the kernel's maps: ipcache, ct, policy, lxc, tunnel, metrics, config",
    "monitor": "datapath events line by line: drop, trace, policy-verdict",
    "config": "configuration of the agent",
    "list": "nodes and namespaces the flow server knows",
    "watch": "peers as a node announces them",
    "relay": "merge the flows of all nodes over mutual TLS",
    "ui": "the service map in a browser",
    "certs": "CA and certificates: init, issue, renew, show, rotate-ca",
    "version": "version of this command and of the agent",
}
PASSED_ON = {
    "agent": ("agent.main", "run the agent of this node"),
    "lab": ("lab.main", "a whole cluster on this machine: up, down, status, exec, env"),
}
"""Commands that read their own arguments: module with `run(argv) -> int`, and its help."""

ALIASES = {"w": "watch"}
DEFAULT_RUN_DIR = "/run/palomar"
SERVER_FLAGS = {
    "--config": True,
    "--server": True,
    "--timeout": True,
    "--request-timeout": True,
    "--tls": False,
    "--tls-allow-insecure": False,
    "--tls-ca-cert-files": True,
    "--tls-client-cert-file": True,
    "--tls-client-key-file": True,
    "--tls-server-name": True,
}
"""Flags of `cli.serverflags` and whether each takes a value: they may also stand before the command."""
VALUE_FLAGS = frozenset({"--run-dir", *(name for name, takes in SERVER_FLAGS.items() if takes)})


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; return its exit status (2: arguments that cannot be meant)."""
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        return _dispatch(words)
    except UsageError as error:
        print(f"palomar: {error}", file=sys.stderr)
        return 2
    except PalomarError as error:
        print(f"palomar: {error}", file=sys.stderr)
        return 1
    except BrokenPipeError:
        # The reader (head, less) has what it wanted; python would complain again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        return 130


def _dispatch(words: list[str]) -> int:
    words = _in_order(words)
    index = _command_index(words)
    name = words[index] if index is not None else ""
    if index is not None and name in PASSED_ON:
        module = importlib.import_module(PASSED_ON[name][0])
        return int(module.run([*words[:index], *words[index + 1 :]]))
    parser = _parser(name)
    args = parser.parse_args(words)
    if not name:
        parser.print_help()
        return 2
    return int(importlib.import_module(f"cli.commands.{name}").run(args))


def _in_order(words: list[str]) -> list[str]:
    """Write aliases out, `help COMMAND` as `COMMAND --help`, and server flags behind their command."""
    index = _command_index(words)
    if index is None:
        return words
    before, name, after = words[:index], ALIASES.get(words[index], words[index]), words[index + 1 :]
    if name == "help":
        return _in_order([*before, *after, "--help"])
    if name in PASSED_ON:
        return words
    own, moved = _split(before)
    place = next((place for place, word in enumerate(after) if word.startswith("-")), len(after))
    return [*own, name, *after[:place], *moved, *after[place:]]


def _split(before: Sequence[str]) -> tuple[list[str], list[str]]:
    """Words before the command: those of `palomar` itself, those of the command."""
    own: list[str] = []
    moved: list[str] = []
    words = iter(before)
    for word in words:
        name, equals, _ = word.partition("=")
        to = moved if name in SERVER_FLAGS else own
        to.append(word)
        if name in VALUE_FLAGS and not equals:
            to.extend(value for value in (next(words, None),) if value is not None)
    return own, moved


def _command_index(words: Sequence[str]) -> int | None:
    """Find the command: the first word that is neither a flag nor the value of one."""
    skip = False
    for index, word in enumerate(words):
        if skip:
            skip = False
        elif word in VALUE_FLAGS:
            skip = True
        elif not word.startswith("-"):
            return index
    return None


def _parser(name: str) -> CommandParser:
    parser = CommandParser(
        prog="palomar",
        description="Sees every packet's verdict and why, and enforces it.",
    )
    parser.add_argument(
        "--run-dir",
        metavar="DIR",
        default=os.environ.get("PALOMAR_RUN_DIR") or DEFAULT_RUN_DIR,
        help=f"run directory of the node's agent (env PALOMAR_RUN_DIR, default {DEFAULT_RUN_DIR})",
    )
    subparsers = parser.add_subparsers(metavar="COMMAND", title="commands", dest="command")
    for command, text in COMMANDS.items():
        if command == name:
            importlib.import_module(f"cli.commands.{command}").add_parser(subparsers)
        else:
            subparsers.add_parser(command, help=text)
    for command, (_, text) in PASSED_ON.items():
        subparsers.add_parser(command, help=text)
    return parser


if __name__ == "__main__":
    sys.exit(main())
