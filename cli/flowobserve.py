"""What `palomar observe` does: flags to a request, a stream of batches to a printer, a final account.

The rim: dials the server or reads the file, writes to standard output, counts on standard error.
"""

import argparse
import sys
from collections.abc import Callable, Iterator

import grpc
from google.protobuf.empty_pb2 import Empty

from cli import filterflags, flowfilter
from cli.context import one_of, output_of, wants_colour
from cli.flowfile import read_batches
from cli.flowfilter import FilterLists
from cli.flowrequest import fields_of, flows_request
from cli.flowresume import follow
from cli.flowstream import Batch, Tally, stream
from cli.format.flows import PolicyNames, Style
from cli.format.palette import COLOURED, PLAIN
from cli.format.protojson import JsonFormat
from cli.format.timestamps import TimeFormat
from cli.observeflags import TEXT_OUTPUTS, range_of
from cli.printer import Printer, printer
from cli.resume import terminated_as_interrupted, until_interrupted
from cli.selectors import Range
from cli.server import connect
from cli.serverflags import call_timeout_s, connect_timeout_s, target_of
from palomar_pb.observer import observer_pb2, observer_pb2_grpc
from palomar_pb.relay import relay_pb2

_TROUBLE = (relay_pb2.NodeState.NODE_UNAVAILABLE, relay_pb2.NodeState.NODE_ERROR)
_POLICY_NAMES = {None: PolicyNames.REFUSED, True: PolicyNames.ALWAYS, False: PolicyNames.NEVER}


def observe_flows(args: argparse.Namespace) -> int:
    """Print the flows that the flags of `observe` ask for."""
    output = output_of(args)
    style = style_of(args, output)
    wanted = range_of(args)
    lists = _filters(args)
    if args.print_raw_filters:
        sys.stdout.write(raw_filters(lists))
        return 0
    sink = printer(output, style, sys.stdout, wanted.follow and not args.input_file)
    tally = Tally()
    try:
        if args.input_file:
            _print(read_batches(args.input_file, wanted, lists), sink, tally, status=None)
        else:
            _observe_server(args, output, wanted, lists, sink, tally)
    finally:
        if not args.silent_errors and (tally.lost or (tally.asked and output in TEXT_OUTPUTS)):
            print(tally.summary(), file=sys.stderr)
    return 0


def style_of(args: argparse.Namespace, output: str) -> Style:
    """Return how lines look; raise UsageError for a layout or colour that is none."""
    colour = wants_colour(one_of("--color", args.color, ("auto", "always", "never")))
    return Style(
        time=TimeFormat(args.time_format),
        palette=COLOURED if colour else PLAIN,
        translate=args.ip_translation and not args.numeric,
        node_name=args.print_node_name,
        policy_names=_POLICY_NAMES[args.print_policy_names],
        counters=output == "wide",
    )


def _filters(args: argparse.Namespace) -> FilterLists:
    built = flowfilter.build(filterflags.collected(args))
    return flowfilter.with_raw(built, args.allowlist, args.denylist)


def raw_filters(lists: FilterLists) -> str:
    """Return what `--print-raw-filters` shows: both lists, a filter per line."""
    json_format = JsonFormat()
    lines = []
    for name, filters in (("allowlist", lists.allow), ("denylist", lists.deny)):
        if filters:
            lines.append(f"{name}:")
            lines.extend(f"    - '{json_format.line(item)}'" for item in filters)
    return "".join(f"{line}\n" for line in lines)


def _observe_server(
    args: argparse.Namespace, output: str, wanted: Range, lists: FilterLists, sink: Printer, tally: Tally
) -> None:
    target = target_of(args)
    remote = target.socket_path is None
    fields = fields_of(args.field_mask, output, remote, args.use_default_field_masks)
    if wanted.follow and fields and not args.field_mask:
        fields = (*fields, "uuid")  # a resumed answer is told from what was shown by it
    request = flows_request(wanted, lists, fields)
    if output == "jsonpb":
        request.extensions.Pack(Empty())  # lines that every reader of the public API can read
    timeout_s = connect_timeout_s(args)
    status = None if args.silent_errors else node_status if output in TEXT_OUTPUTS else node_trouble

    def say(text: str) -> None:
        if not args.silent_errors:
            print(text, file=sys.stderr, flush=True)

    if wanted.follow:
        with until_interrupted():
            _print(follow(lambda: connect(target, timeout_s), request, say), sink, tally, status)
        return
    with connect(target, timeout_s) as channel:
        with terminated_as_interrupted():
            _print(stream(channel, request), sink, tally, status)
        if wanted.reaches_back:
            tally.gone = _gone(channel, call_timeout_s(args))


def _print(
    batches: Iterator[Batch],
    sink: Printer,
    tally: Tally,
    status: Callable[[observer_pb2.GetFlowsResponse], str] | None,
) -> None:
    try:
        for batch in batches:
            tally.add(batch)
            for response in batch.responses:
                if not response.HasField("node_status"):
                    sink.write(response)
                elif status is not None and (line := status(response)):
                    print(line, file=sys.stderr)
            sink.flush()
        tally.asked = True
    except KeyboardInterrupt:
        tally.asked = True
        raise
    finally:
        sink.close()


def node_status(response: observer_pb2.GetFlowsResponse) -> str:
    """Return a relay's word on its nodes as one line."""
    status = response.node_status
    known = relay_pb2.NodeState.values()
    state = relay_pb2.NodeState.Name(status.state_change) if status.state_change in known else "UNKNOWN"
    text = f"{state}: {', '.join(status.node_names)}"
    return f"{text}: {status.message}" if status.message else text


def node_trouble(response: observer_pb2.GetFlowsResponse) -> str:
    """Return a relay's word on nodes whose flows are missing as a line of JSON; empty for any other."""
    return JsonFormat().line(response) if response.node_status.state_change in _TROUBLE else ""


def _gone(channel: grpc.Channel, timeout_s: float) -> int:
    """Return how many flows the server had and has no more."""
    stub = observer_pb2_grpc.ObserverStub(channel)
    status = stub.ServerStatus(observer_pb2.ServerStatusRequest(), timeout=timeout_s)
    return max(0, int(status.seen_flows) - int(status.num_flows))
