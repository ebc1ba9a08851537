"""What `palomar observe agent-events` does: what the agent of this node did, from its flow server.

The rim to `cli.format.agentevents`. A relay does not serve these.
"""

import argparse
import sys
from collections.abc import Iterator

import grpc

from cli import filterflags
from cli.context import output_of
from cli.errors import UsageError
from cli.flowrequest import agent_events_request
from cli.format import agentevents, columns
from cli.format.flows import DICT_SEPARATOR, Style
from cli.format.protojson import JsonFormat
from cli.format.timestamps import TimeFormat
from cli.observeflags import range_of
from cli.server import connect
from cli.serverflags import connect_timeout_s, target_of
from palomar_pb.observer import observer_pb2, observer_pb2_grpc


def observe_agent_events(args: argparse.Namespace) -> int:
    """Print the agent events of the range; raise UsageError for flags that mean flows."""
    if filterflags.collected(args) or args.allowlist or args.denylist:
        raise UsageError("agent events have no filters: leave the filter flags out")
    if args.input_file:
        raise UsageError("--input-file holds flows: agent events come from a server only")
    output = output_of(args)
    wanted = range_of(args)
    style = Style(time=TimeFormat(args.time_format), node_name=args.print_node_name)
    target = target_of(args)
    with connect(target, connect_timeout_s(args)) as channel:
        try:
            for text in lines(_events(channel, agent_events_request(wanted)), output, style, wanted.follow):
                print(text, flush=wanted.follow)
        except KeyboardInterrupt:
            if not wanted.follow:
                raise
    sys.stdout.flush()
    return 0


def _events(
    channel: grpc.Channel, request: observer_pb2.GetAgentEventsRequest
) -> Iterator[observer_pb2.GetAgentEventsResponse]:
    call = observer_pb2_grpc.ObserverStub(channel).GetAgentEvents(request)
    try:
        yield from call
    finally:
        call.cancel()


def lines(
    events: Iterator[observer_pb2.GetAgentEventsResponse], output: str, style: Style, follow: bool
) -> Iterator[str]:
    """Turn events into the lines of `--output`; a table waits for the end unless followed."""
    if output in ("json", "jsonpb"):
        json_format = JsonFormat()
        yield from (json_format.line(event) for event in events)
    elif output == "dict":
        for index, event in enumerate(events):
            if index:
                yield DICT_SEPARATOR
            yield agentevents.as_dict(event, style)
    elif output in ("table", "tab") and not follow:
        rows = [agentevents.header(style), *(agentevents.cells(event, style) for event in events)]
        yield from columns.align(rows)
    else:
        yield from (agentevents.compact(event, style) for event in events)
