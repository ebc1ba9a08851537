"""`palomar identity`: the numbers that stand for label sets, through the agent's API."""

import argparse
import json
from typing import Any

from cli.context import add_output_flag, agent_api, output_of
from cli.errors import UsageError
from palomar.identity import Reserved


def add_parser(subparsers: Any) -> None:
    """Describe `palomar identity`."""
    parser = subparsers.add_parser("identity", help="security identities: list, get")
    actions = parser.add_subparsers(metavar="ACTION", dest="action", required=True)
    listing = actions.add_parser("list", aliases=["ls"], help="every identity this node knows")
    add_output_flag(listing, "table", ("table", "json"))
    get = actions.add_parser("get", help="one identity")
    get.add_argument("id", metavar="ID", help="number or reserved name")
    add_output_flag(get, "table", ("table", "json"))


def run(args: argparse.Namespace) -> int:
    """Print the identities; REFCOUNT counts the endpoints of this node."""
    from cli.format.agent import identity_list, identity_users

    output = output_of(args)
    api = agent_api(args)
    if args.action == "get":
        found = api.get(f"/identity/{identity_number(args.id)}")
        identities = [found]
    else:
        found = identities = api.get("/identity")
    if output == "json":
        print(json.dumps(found, indent=2))
    else:
        print("\n".join(identity_list(identities, identity_users(api.get("/endpoint")))))
    return 0


def identity_number(text: str) -> int:
    """Read a number or `world`, `reserved:world`; raise UsageError otherwise."""
    names = {item.label_name: int(item) for item in Reserved}
    name = text.removeprefix("reserved:")
    if name in names:
        return names[name]
    if not text.isascii() or not text.isdigit() or int(text) >= 2**32:
        raise UsageError(f"identity {text!r}: accepted is a number or one of {', '.join(names)}")
    return int(text)
