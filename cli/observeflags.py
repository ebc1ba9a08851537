"""The flags of `palomar observe` besides its filters: range, format, server, the rest.

Only declarations; what they mean is `cli.selectors`, `cli.format` and `cli.commands.observe`.
"""

import argparse

from cli import filterflags, selectors
from cli.context import add_output_flag
from cli.parser import BoolFlag
from cli.selectors import Range, Selectors
from cli.serverflags import add_server_flags
from palomar.clock import SystemClock

OUTPUTS = ("compact", "wide", "dict", "json", "jsonpb", "table", "tab")
TEXT_OUTPUTS = ("compact", "wide", "dict", "table", "tab")
KINDS = ("flows", "agent-events")


def range_of(args: argparse.Namespace) -> Range:
    """Return the range the flags ask for; a file is read whole unless they say otherwise."""
    ranged = args.first or args.last or args.since or args.until
    everything = args.all or bool(args.input_file and not ranged)
    given = Selectors(args.first, args.last, everything, args.since, args.until, args.follow)
    return selectors.resolve(given, SystemClock().wall_ns())


def add_observe_flags(parser: argparse.ArgumentParser) -> None:
    """Give `parser` everything `observe` understands."""
    parser.add_argument("kind", nargs="?", default="flows", metavar="KIND", help="flows or agent-events")
    _add_selectors(parser)
    _add_format(parser)
    other = parser.add_argument_group("other")
    other.add_argument(
        "--input-file", metavar="FILE", help="read JSON lines in place of a server, - is standard input"
    )
    other.add_argument(
        "--print-raw-filters", action=BoolFlag, default=False, help="show the filters and exit"
    )
    other.add_argument(
        "--field-mask", action="append", default=[], metavar="FIELDS", help="fields to ask for (json)"
    )
    other.add_argument(
        "--use-default-field-masks",
        action=BoolFlag,
        default=True,
        help="ask a relay only for what text shows (default true)",
    )
    other.add_argument(
        "-s", "--silent-errors", action=BoolFlag, default=False, help="hide errors and the summary"
    )
    raw = parser.add_argument_group("raw filters")
    raw.add_argument("--allowlist", action="append", default=[], metavar="JSON", help="FlowFilter, OR-ed")
    raw.add_argument("--denylist", action="append", default=[], metavar="JSON", help="FlowFilter to exclude")
    add_server_flags(parser)
    filterflags.add_filter_flags(parser)


def _add_selectors(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("range")
    group.add_argument("--first", type=selectors.count, metavar="N", help="the oldest N")
    group.add_argument("--last", type=selectors.count, metavar="N", help="the newest N (20 without a range)")
    group.add_argument("--all", action=BoolFlag, default=False, help="all there are")
    group.add_argument("--since", metavar="TIME", help="from then on: 5m, 1h30m, 2026-11-21T08:00:00Z")
    group.add_argument("--until", metavar="TIME", help="up to then, written like --since")
    group.add_argument("-f", "--follow", action=BoolFlag, default=False, help="keep on as flows come")


def _add_format(parser: argparse.ArgumentParser) -> None:
    add_output_flag(parser, "compact", OUTPUTS)
    group = parser.add_argument_group("format")
    group.add_argument(
        "--print-node-name", action=BoolFlag, default=False, help="add the node that saw the flow"
    )
    group.add_argument(
        "--print-policy-names",
        action=BoolFlag,
        default=None,
        help="name policies: true on every policy verdict, false never (default: on refused flows)",
    )
    group.add_argument("--numeric", action=BoolFlag, default=False, help="addresses, never names")
    group.add_argument(
        "--ip-translation", action=BoolFlag, default=True, help="names for addresses (default true)"
    )
    group.add_argument(
        "--time-format", default="StampMilli", metavar="LAYOUT", help="StampMilli, RFC3339Nano, ..."
    )
    group.add_argument("--color", default="auto", metavar="WHEN", help="auto, always, never")
