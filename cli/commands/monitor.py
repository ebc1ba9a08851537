"""`palomar monitor`: every datapath event of this node as it happens, one line each.

Not `observe`: no names, no filters by pod; what the kernel said, nearest to the wire. Input: the
flow server's stream, so aggregation in the kernel applies (`monitor-aggregation`).
"""

import argparse
import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from cli.errors import UsageError
from cli.parser import BoolFlag
from cli.serverflags import add_server_flags, connect_timeout_s, target_of

if TYPE_CHECKING:  # protobuf and grpc are loaded in run, never for --help
    from cli.flowstream import Batch
    from palomar_pb.flow import flow_pb2
    from palomar_pb.observer import observer_pb2

TYPES = {"drop": 1, "trace": 4, "policy-verdict": 5}


def add_parser(subparsers: Any) -> None:
    """Describe `palomar monitor`."""
    parser = subparsers.add_parser(
        "monitor",
        help="datapath events line by line: drop, trace, policy-verdict",
        description="Print datapath events until Ctrl-C.",
    )
    parser.add_argument(
        "-t", "--type", action="append", default=[], metavar="TYPE", help="drop, trace, policy-verdict"
    )
    for name, text in (("from", "sent by"), ("to", "sent to"), ("related-to", "sent by or to")):
        parser.add_argument(
            f"--{name}", action="append", default=[], metavar="ID", help=f"only what is {text} this endpoint"
        )
    parser.add_argument("-v", "--verbose", action=BoolFlag, default=False, help="more lines per event")
    parser.add_argument("-j", "--json", action=BoolFlag, default=False, help="one JSON object per line")
    add_server_flags(parser)


def run(args: argparse.Namespace) -> int:
    """Print events until interrupted; the last line on standard error counts the losses."""
    from cli.server import connect, quiet_grpc

    quiet_grpc()
    from cli.flowstream import Tally
    from cli.livestream import live
    from cli.resume import until_interrupted
    from palomar_pb.observer import observer_pb2

    wanted = [TYPES[name] for name in _types(args.type)]
    only = EndpointChoice(
        frozenset(_ids(args.__dict__["from"], "--from")),
        frozenset(_ids(args.to, "--to")),
        frozenset(_ids(args.related_to, "--related-to")),
    )
    request = observer_pb2.GetFlowsRequest(follow=True)
    for number in wanted:
        request.whitelist.add().event_type.add(type=number)
    target, timeout_s, tally = target_of(args), connect_timeout_s(args), Tally()

    def say(text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    with until_interrupted():
        _print(live(lambda: connect(target, timeout_s), request, say, tally), tally, only, args)
    print(tally.summary(), file=sys.stderr)
    return 0


def _types(given: Iterable[str]) -> list[str]:
    names = [name for text in given for name in text.split(",")]
    for name in names:
        if name not in TYPES:
            raise UsageError(f"--type {name!r}: accepted is one of {', '.join(TYPES)}")
    return names or list(TYPES)


def _ids(given: Sequence[str], flag: str) -> Iterator[int]:
    for text in given:
        if not text.isascii() or not text.isdigit() or not 0 < int(text) < 65536:
            raise UsageError(f"{flag} {text!r}: accepted is an endpoint ID from 1 to 65535")
        yield int(text)


class EndpointChoice:
    """The endpoints whose events are wanted; no ID at all means every endpoint."""

    def __init__(self, senders: frozenset[int], receivers: frozenset[int], either: frozenset[int]) -> None:
        """Take the IDs of --from, --to and --related-to."""
        self._senders = senders
        self._receivers = receivers
        self._either = either

    def wants(self, flow: "flow_pb2.Flow") -> bool:
        """Tell whether `flow` is sent by, to, or by or to one of them."""
        if not (self._senders or self._receivers or self._either):
            return True
        return (
            flow.source.ID in self._senders
            or flow.destination.ID in self._receivers
            or bool({flow.source.ID, flow.destination.ID} & self._either)
        )


def _print(batches: "Iterator[Batch]", tally: Any, only: EndpointChoice, args: argparse.Namespace) -> None:
    for batch in batches:
        tally.add(batch)
        for response in batch.responses:
            for line in lines(response, only, args.verbose, args.json):
                sys.stdout.write(line + "\n")
        sys.stdout.flush()


def lines(
    response: "observer_pb2.GetFlowsResponse", only: EndpointChoice, verbose: bool, as_json: bool
) -> Iterator[str]:
    """Yield the lines of one response; none for what is not wanted."""
    from cli.format import monitor

    if response.HasField("lost_events"):
        lost = response.lost_events
        if as_json:
            yield json.dumps({"type": "lost", "cpu": lost.cpu.value, "events": lost.num_events_lost})
        else:
            yield f"CPU {lost.cpu.value:02d}: Lost {lost.num_events_lost} events"
        return
    flow = response.flow
    if not response.HasField("flow") or not only.wants(flow):
        return
    if as_json:
        yield json.dumps(monitor.tree(flow))
        return
    text = monitor.line(flow)
    if text and verbose:
        yield monitor.SEPARATOR
        yield text
        yield from monitor.details(flow)
    elif text:
        yield text
