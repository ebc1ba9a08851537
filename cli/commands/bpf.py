"""`palomar bpf`: the kernel's own maps, read where they are pinned; works without a running agent.

Which node's maps: `--bpf-root`, PALOMAR_BPF_ROOT, what the agent at `--run-dir` says, and only for
the default run directory /sys/fs/bpf.
"""

import argparse
import json
import os
from collections.abc import Callable, Mapping, Sequence
from ipaddress import AddressValueError, IPv4Address
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cli.commands.config import configuration
from cli.context import DEFAULT_BPF_ROOT, add_output_flag, agent_api, output_of
from cli.errors import UsageError
from cli.main import DEFAULT_RUN_DIR
from cli.parser import BoolFlag
from palomar.clock import SystemClock
from palomar.errors import PalomarError

if TYPE_CHECKING:  # bcc takes 200 ms to load; --help must not
    from datapath.maps.node import DatapathMaps

_MAPS = {
    "ipcache": ("address to identity and node", ("list", "get")),
    "ct": ("connections", ("list",)),
    "policy": ("policy entries by endpoint", ("list", "get")),
    "lxc": ("local endpoints by address", ("list",)),
    "endpoint": ("the same as lxc", ("list",)),
    "tunnel": ("pod CIDRs and the nodes behind them", ("list",)),
    "metrics": ("packets and bytes, forwarded and dropped by reason", ("list",)),
    "config": ("switches the running programs read", ("list",)),
}


def add_parser(subparsers: Any) -> None:
    """Describe `palomar bpf`."""
    parser = subparsers.add_parser(
        "bpf", help="the kernel's maps: ipcache, ct, policy, lxc, tunnel, metrics, config"
    )
    maps = parser.add_subparsers(metavar="MAP", dest="map", required=True)
    for name, (text, verbs) in _MAPS.items():
        described = maps.add_parser(name, help=text)
        actions = described.add_subparsers(metavar="ACTION", dest="action", required=True)
        for verb in verbs:
            action = actions.add_parser(verb, aliases=["ls"] if verb == "list" else [], help=text)
            _add_arguments(action, name, verb)
            add_output_flag(action, "table", ("table", "json"))
            action.add_argument(
                "--bpf-root", default="", metavar="DIR", help="where the maps are pinned, e.g. /sys/fs/bpf"
            )


def _add_arguments(action: argparse.ArgumentParser, name: str, verb: str) -> None:
    if name == "ct":
        action.add_argument("scope", nargs="?", default="global", metavar="global", help="global")
    if name == "ipcache" and verb == "get":
        action.add_argument("address", metavar="ADDRESS", help="address to look up, longest prefix wins")
    if name == "policy":
        if verb == "get":
            action.add_argument("endpoint", nargs="?", default="", metavar="ID", help="endpoint number")
            action.add_argument("--all", action=BoolFlag, default=False, help="every endpoint")
        action.add_argument("-n", "--numeric", action=BoolFlag, default=False, help="numbers, not labels")


def run(args: argparse.Namespace) -> int:
    """Print the map."""
    from datapath.maps.node import open_maps

    output = output_of(args)
    maps = open_maps(bpf_root(args))
    try:
        rows, lines = _SHOW[args.map](maps, args)
    finally:
        maps.close()
    print(json.dumps(rows, indent=2) if output == "json" else "\n".join(lines()))
    return 0


def bpf_root(args: argparse.Namespace) -> Path:
    """Decide whose maps to read; raise UsageError rather than show another node's."""
    named = args.bpf_root or os.environ.get("PALOMAR_BPF_ROOT")
    if named:
        return Path(named)
    try:
        root = configuration(agent_api(args, timeout_s=2.0).get("/config")).get("bpf-root")
    except PalomarError:
        root = None
    if root:
        return Path(str(root))
    if args.run_dir == DEFAULT_RUN_DIR:
        return DEFAULT_BPF_ROOT
    raise UsageError(f"the agent at {args.run_dir} does not answer: name its maps with --bpf-root")


Shown = tuple[Any, Callable[[], list[str]]]


def _ipcache(maps: "DatapathMaps", args: argparse.Namespace) -> Shown:
    from cli.format import bpfmaps

    if args.action == "get":
        return _ipcache_get(maps, args.address)
    rows = bpfmaps.ipcache_rows(maps.ipcache.items())
    return rows, lambda: bpfmaps.ipcache_lines(rows)


def _ipcache_get(maps: "DatapathMaps", text: str) -> Shown:
    try:
        address = IPv4Address(text)
    except AddressValueError as error:
        raise UsageError(f"{text!r} is no IPv4 address: write one such as 10.1.0.5") from error
    entry = maps.ipcache.lookup(address)
    if entry is None:
        raise UsageError(f"{address} is in no prefix of the ipcache: it is world to the datapath")
    row = {
        "address": str(address),
        "identity": entry.identity,
        "tunnelendpoint": str(entry.tunnel_endpoint or IPv4Address(0)),
    }
    return row, lambda: [f"{address} maps to identity {entry.identity} behind {row['tunnelendpoint']}"]


def _lxc(maps: "DatapathMaps", args: argparse.Namespace) -> Shown:
    from cli.format import bpfmaps

    rows = bpfmaps.lxc_rows(maps.lxc.items())
    return rows, lambda: bpfmaps.lxc_lines(rows)


def _tunnel(maps: "DatapathMaps", args: argparse.Namespace) -> Shown:
    from cli.format import bpfmaps

    rows = bpfmaps.tunnel_rows(maps.tunnel.items())
    return rows, lambda: bpfmaps.tunnel_lines(rows)


def _metrics(maps: "DatapathMaps", args: argparse.Namespace) -> Shown:
    from cli.format import bpfmaps

    rows = bpfmaps.metrics_rows(maps.metrics.items())
    return rows, lambda: bpfmaps.metrics_lines(rows)


def _config(maps: "DatapathMaps", args: argparse.Namespace) -> Shown:
    from cli.format import bpfmaps

    rows = bpfmaps.config_rows(maps.runtime_config.items())
    return rows, lambda: bpfmaps.config_lines(rows)


def _ct(maps: "DatapathMaps", args: argparse.Namespace) -> Shown:
    from cli.format import bpfmaps

    if args.scope != "global":
        raise UsageError(f"bpf ct list {args.scope!r}: accepted is global")
    now_s = SystemClock().monotonic_ns() // 1_000_000_000
    rows = bpfmaps.ct_rows(maps.ct.items(), now_s)
    return rows, lambda: bpfmaps.ct_lines(rows)


def _policy(maps: "DatapathMaps", args: argparse.Namespace) -> Shown:
    from cli.format import bpfmaps

    endpoints = _policy_endpoints(maps, args)
    rows = {number: bpfmaps.policy_rows(maps.policy(number).items()) for number in endpoints}
    labels = {} if args.numeric else _labels(args)

    def lines() -> list[str]:
        text: list[str] = []
        for number, entries in rows.items():
            if len(rows) > 1 or args.action in ("list", "ls"):
                text += ["", f"Endpoint ID: {number}"] if text else [f"Endpoint ID: {number}"]
            text += bpfmaps.policy_lines(entries, labels, args.numeric)
        return text

    tree: Any = {str(number): entries for number, entries in rows.items()}
    return tree, lines


def _policy_endpoints(maps: "DatapathMaps", args: argparse.Namespace) -> Sequence[int]:
    known = maps.policy_endpoint_ids()
    if args.action in ("list", "ls") or args.all:
        return known
    if not args.endpoint.isdigit():
        raise UsageError("bpf policy get: write an endpoint number, or --all")
    number = int(args.endpoint)
    if number not in known:
        listed = ", ".join(map(str, known)) or "none"
        raise UsageError(f"endpoint {number} has no policy map (endpoints with one: {listed})")
    return [number]


def _labels(args: argparse.Namespace) -> Mapping[int, Sequence[str]]:
    """Ask the agent what the numbers mean; without an agent numbers stay numbers."""
    try:
        identities = agent_api(args, timeout_s=2.0).get("/identity")
    except PalomarError:
        return {}
    return {int(item["id"]): item.get("labels") or [] for item in identities}


_SHOW: dict[str, Callable[["DatapathMaps", argparse.Namespace], Shown]] = {
    "ipcache": _ipcache,
    "ct": _ct,
    "policy": _policy,
    "lxc": _lxc,
    "endpoint": _lxc,
    "tunnel": _tunnel,
    "metrics": _metrics,
    "config": _config,
}
