"""`palomar certs`: the CA and the certificates of agents, relay, UI and clients."""

import argparse
import json
import os
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cli.context import add_output_flag, output_of
from cli.parser import BoolFlag
from cli.timespec import NS_PER_S, parse_duration_ns

if TYPE_CHECKING:  # cryptography takes 30 ms to load; --help must not
    from datetime import datetime

    from palomar.certdir import CertDirectory, CertFile
    from palomar.certrotation import RotationState

DEFAULT_DIRECTORY = "/etc/palomar/certs"
ROLES = ("agent", "relay", "ui", "client")
STEPS = ("start", "issue", "finish")


def add_parser(subparsers: Any) -> None:
    """Describe `palomar certs`."""
    parser = subparsers.add_parser(
        "certs",
        help="CA and certificates: init, issue, renew, show, rotate-ca",
        description="Make, renew and list the certificates of mutual TLS. Running servers take them up.",
    )
    actions = parser.add_subparsers(metavar="ACTION", dest="action", required=True)
    init = actions.add_parser("init", help="make the CA, once")
    issue = actions.add_parser("issue", help="make a certificate")
    issue.add_argument("name", metavar="NAME", help="node, relay, page or person")
    issue.add_argument("--role", required=True, choices=ROLES, help="what it is for")
    issue.add_argument("--cluster", default="default", metavar="NAME", help="cluster of an agent (default)")
    issue.add_argument("--days", type=float, default=30.0, metavar="N", help="lifetime (30)")
    issue.add_argument("--lifetime", metavar="DURATION", help="lifetime below a day, e.g. 1h30m")
    issue.add_argument(
        "--san", action="append", default=[], metavar="NAME", help="further server name or address"
    )
    renew = actions.add_parser("renew", help="renew what is due: two thirds of its life are over")
    renew.add_argument("--all", action=BoolFlag, default=False, help="whether due or not")
    show = actions.add_parser("show", help="list them; status 1 when one does not serve")
    add_output_flag(show, "table", ("table", "json"))
    rotate = actions.add_parser(
        "rotate-ca",
        help="replace the CA itself, in three steps while everything runs",
        description="Replace the CA itself while everything runs. Without STEP: say which is next. After "
        "each step copy what changed to everybody who has a copy.",
    )
    rotate.add_argument(
        "step",
        metavar="STEP",
        nargs="?",
        choices=STEPS,
        help="start: trust a second CA; issue: it signs everything anew; finish: trust the old one no more",
    )
    for action in (init, issue, renew, show, rotate):
        action.add_argument(
            "--dir",
            metavar="DIR",
            default=os.environ.get("PALOMAR_CERT_DIR") or DEFAULT_DIRECTORY,
            help=f"where they are (env PALOMAR_CERT_DIR, default {DEFAULT_DIRECTORY})",
        )


def run(args: argparse.Namespace) -> int:
    """Do the action; 1 when one does not serve (`show`), or cannot be replaced (`renew`, `rotate-ca`)."""
    from palomar import certs
    from palomar.certdir import CertDirectory
    from palomar.clock import SystemClock

    directory = CertDirectory(Path(args.dir))
    now = certs.utc(SystemClock().wall_ns())
    if args.action == "show":
        return _show(directory.entries(now), args)
    if args.action == "rotate-ca":
        return _rotate(directory, args.step, now)
    if args.action == "init":
        made = directory.init(now)
        print(f"{directory.ca_file}: {'made' if made else 'there already, kept'}")
        return 0
    if args.action == "issue":
        files = directory.issue(
            certs.Role(args.role),
            args.name,
            now,
            lifetime=_lifetime(args),
            names=tuple(args.san),
            cluster=args.cluster,
        )
        print(f"{files.cert}\n{files.key}")
        return 0
    renewed = directory.renew(now, everything=args.all)
    if not renewed:
        print("nothing is due")
    return _tell_replaced(renewed)


def _tell_replaced(files: "list[CertFile]") -> int:
    from palomar.certs import iso

    for found in files:
        until = iso(found.info.not_after) if found.info else ""
        text = f"NOT renewed: {found.problem}" if found.problem else f"renewed until {until}"
        print(f"{found.path}: {text}")
    return 1 if any(found.problem for found in files) else 0


def _rotate(directory: "CertDirectory", step: str | None, now: "datetime") -> int:
    from palomar.certrotation import CaRotation

    rotation = CaRotation(directory)
    status = 0
    if step == "start":
        rotation.start(now)
        print(f"{directory.ca_file}: holds a second CA; {rotation.state(now).signer} still signs")
    elif step == "issue":
        status = _tell_replaced(rotation.issue(now))
    elif step == "finish":
        rotation.finish(now)
        print(f"{directory.ca_file}: holds one CA again")
    _tell_next(rotation.state(now), directory)
    return status


def _tell_next(state: "RotationState", directory: "CertDirectory") -> None:
    """Say where the rotation stands and what is to be done before the next step."""
    print(f"signs: {state.signer}" + "".join(f"\ntrusted too: {other}" for other in state.others))
    if state.next_step.value == "start":
        print("no rotation is under way; begin with `palomar certs rotate-ca start`")
        return
    if state.next_step.value == "issue":
        print(f"1. give everybody {directory.ca_file}\n2. when all have it: `palomar certs rotate-ca issue`")
        return
    for path in state.pending:
        print(f"not of the new CA: {path}")
    print(
        "1. give everybody their new certificate and key\n"
        "2. when all have theirs: `palomar certs rotate-ca finish`, then give everybody ca.crt once more"
    )


def _lifetime(args: argparse.Namespace) -> timedelta:
    if args.lifetime:
        return timedelta(seconds=parse_duration_ns(args.lifetime, "--lifetime") / NS_PER_S)
    return timedelta(days=args.days)


def _show(entries: "list[CertFile]", args: argparse.Namespace) -> int:
    from palomar.certs import iso

    rows = [
        {
            "file": found.path.name,
            "subject": found.info.subject if found.info else "",
            "names": list(found.info.names) if found.info else [],
            "not_after": iso(found.info.not_after) if found.info else "",
            "due": found.due,
            "problem": found.problem,
        }
        for found in entries
    ]
    if output_of(args) == "json":
        print(json.dumps(rows, indent=2))
    else:
        from cli.format.columns import align

        heads = ("FILE", "SUBJECT", "NAMES", "NOT AFTER", "DUE", "PROBLEM")
        print("\n".join(align([heads, *(_cells(row) for row in rows)])))
    return 1 if any(found.problem for found in entries) else 0


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    due = "yes" if row["due"] else "no"
    return (row["file"], row["subject"], ",".join(row["names"]), row["not_after"], due, row["problem"])
