"""What `palomar observe agent-events` does: what the agent of this node did, from its flow server.

The rim to `cli.format.agentevents`. A relay does not serve these.
"""

import argparse
import sys
from collections.abc import Callable, Iterator

import grpc

from cli import filterflags
from cli.context import output_of
from cli.errors import UsageError
from cli.flowrequest import agent_events_request
from cli.flowstream import answers
from cli.format import agentevents, columns
from cli.format.flows import DICT_SEPARATOR, Style
from cli.format.protojson import JsonFormat
from cli.format.timestamps import TimeFormat
from cli.observeflags import range_of
from cli.resume import Dial, Say, resume, until_interrupted
from cli.seen import Seen, content_key
from cli.server import connect
from cli.serverflags import connect_timeout_s, target_of
from palomar.clock import Clock, SystemClock
from palomar_pb.observer import observer_pb2, observer_pb2_grpc

AgentEventsRequest = observer_pb2.GetAgentEventsRequest
AgentEvent = observer_pb2.GetAgentEventsResponse


def observe_agent_events(args: argparse.Namespace) -> int:
    """Print the agent events of the range; raise UsageError for flags that mean flows."""
    if filterflags.collected(args) or args.allowlist or args.denylist:
        raise UsageError("agent events have no filters: leave the filter flags out")
    if args.input_file:
        raise UsageError("--input-file holds flows: agent events come from a server only")
    output = output_of(args)
    wanted = range_of(args)
    style = Style(time=TimeFormat(args.time_format), node_name=args.print_node_name)
    target, timeout_s = target_of(args), connect_timeout_s(args)
    request = agent_events_request(wanted)

    def say(text: str) -> None:
        if not args.silent_errors:
            print(text, file=sys.stderr, flush=True)

    if wanted.follow:
        with until_interrupted():
            events = follow_agent_events(lambda: connect(target, timeout_s), request, say)
            for text in lines(events, output, style, follow=True):
                print(text, flush=True)
    else:
        with connect(target, timeout_s) as channel:
            for text in lines(_events(channel, request), output, style, follow=False):
                print(text)
    sys.stdout.flush()
    return 0


def follow_agent_events(
    dial: Dial, request: AgentEventsRequest, say: Say, clock: Clock | None = None
) -> Iterator[AgentEvent]:
    """Yield the events of `request` (one that follows), across as many connections as it takes, none twice.

    Ends where the server has sent all up to `until`; raises as `cli.resume.resume` does.
    """
    real_clock = clock or SystemClock()
    seen: Seen[AgentEventsRequest, AgentEvent] = Seen(request, content_key, real_clock.wall_ns())

    def ask(channel: grpc.Channel, begun: Callable[[], None]) -> Iterator[AgentEvent]:
        for event in _events(channel, seen.request(), begun):
            yield from seen.only_new((event,))

    def is_over() -> bool:
        return request.HasField("until") and real_clock.wall_ns() >= request.until.ToNanoseconds()

    return resume(dial, ask, say, is_over=is_over, clock=real_clock)


def _events(
    channel: grpc.Channel, request: AgentEventsRequest, begun: Callable[[], None] = lambda: None
) -> Iterator[AgentEvent]:
    return answers(observer_pb2_grpc.ObserverStub(channel).GetAgentEvents(request), begun)


def lines(events: Iterator[AgentEvent], output: str, style: Style, follow: bool) -> Iterator[str]:
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
