"""`palomar observe`: flows of this node or of a relay, filtered, followed, explained.

Flags, semantics and text are the field's; refused flows additionally say which policy and which node
refused them, and the last line on standard error says how many flows were not seen. Describes the
command; `cli.flowobserve` and `cli.agenteventobserve` do the work, and only `run` loads them.
"""

import argparse
from typing import Any

from cli.context import one_of
from cli.errors import UsageError
from cli.observeflags import KINDS, add_observe_flags
from cli.server import quiet_grpc
from palomar.errors import PalomarError


def add_parser(subparsers: Any) -> None:
    """Describe `palomar observe`."""
    parser = subparsers.add_parser(
        "observe",
        usage="palomar observe [flows|agent-events] [flags]",
        help="flows as they are seen, with verdict and reason",
        description="Show flows. Without a range the newest 20; --follow keeps on as they come.",
    )
    add_observe_flags(parser)


def run(args: argparse.Namespace) -> int:
    """Show what was asked for; 1 where the server failed on the way."""
    one_of("observe", args.kind, KINDS)
    quiet_grpc()
    try:
        if args.kind == "agent-events":
            from cli.agenteventobserve import observe_agent_events

            return observe_agent_events(args)
        from cli.flowobserve import observe_flows

        return observe_flows(args)
    except UsageError:
        raise
    except PalomarError:
        if args.silent_errors:
            return 1
        raise
