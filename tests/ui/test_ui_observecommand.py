"""The command that the page offers: read by the command line itself, it lets through the page's own flows."""

import argparse
from collections.abc import Sequence
from pathlib import Path

import pytest

from cli import filterflags
from cli.commands import observe
from cli.flowfilter import FilterLists, build, with_raw
from cli.flowmatch import passes
from cli.parser import CommandParser
from cli.serverflags import target_of
from palomar.tls import TlsFiles
from palomar_pb.flow import flow_pb2
from palomar_pb.observer import observer_pb2
from tests.ui.flowserver import Call, Party, flow_of, shop
from ui.client import ServerTarget
from ui.edgetable import BUCKETS
from ui.main import server_words
from ui.model import Model
from ui.observecommand import Command, observe_command
from ui.selection import row_shown
from ui.servicemap import EdgeStat, edge_stats
from ui.state import VERDICTS, PageState

NOW_NS = 1_795_248_000_000_000_000
WEB = Party("web", identity=4101)


def parsed(words: Sequence[str]) -> argparse.Namespace:
    parser = CommandParser(prog="palomar")
    parser.add_argument("--run-dir", default="/run/palomar")
    observe.add_parser(parser.add_subparsers(dest="command"))
    assert words[0] == "palomar"
    answer: argparse.Namespace = parser.parse_args(list(words[1:]))
    return answer


def lists_of(command: Command) -> FilterLists:
    args = parsed(command.words)
    return with_raw(build(filterflags.collected(args)), args.allowlist, args.denylist)


def unusual() -> list[observer_pb2.GetFlowsResponse]:
    """Endpoints that are named by label, by pod, by network, by number and by address alone."""
    labelled = flow_of(Call(WEB, Party("by-label", identity=5001, address="10.9.0.1"), 81), NOW_NS)
    del labelled.flow.destination.workloads[:]
    bare = flow_of(Call(WEB, Party("lonely", "far", 5002, "10.9.0.2"), 82), NOW_NS)
    del bare.flow.destination.workloads[:]
    del bare.flow.destination.labels[:]
    bare.flow.destination.pod_name = "lonely-7c9d8f6b5-fghij"
    network = flow_of(Call(WEB, Party("net", identity=0x01000005, address="192.0.2.7"), 443), NOW_NS)
    network.flow.destination.CopyFrom(
        flow_pb2.Endpoint(identity=0x01000005, labels=["cidr:192.0.2.0/24=", "reserved:world"])
    )
    number = flow_of(Call(WEB, Party("number", identity=6001, address="10.9.0.4"), 84), NOW_NS, reply=True)
    number.flow.source.CopyFrom(flow_pb2.Endpoint(identity=6001))
    address = flow_of(Call(WEB, Party("address", address="10.9.0.5"), 85), NOW_NS)
    address.flow.destination.Clear()
    return [labelled, bare, network, number, address]


def model() -> Model:
    made = Model()
    flows = [flow_of(call, NOW_NS) for call in shop()]
    flows += [
        flow_of(call, NOW_NS, reply=True) for call in shop() if not (call.denied_by or call.default_deny_by)
    ]
    flows += [flow_of(Call(Party("api", identity=4102), WEB, 80), NOW_NS)]
    audited = flow_of(Call(WEB, Party("cart", identity=4104), 8081), NOW_NS)
    audited.flow.verdict = flow_pb2.AUDIT
    made.add_responses([*flows, *unusual(), audited], NOW_NS, live=True)
    return made


def stats_of(filled: Model) -> list[EdgeStat]:
    return edge_stats(filled.edges.window(NOW_NS, BUCKETS))


def states(filled: Model) -> list[PageState]:
    edges = {row.edge.id for row in filled.rows_after(0)}
    workloads = {side.id for row in filled.rows_after(0) for side in (row.edge.source, row.edge.destination)}
    uuids = [row.uuid for row in filled.rows_after(0)][:3]
    return [
        *(PageState(edge=edge) for edge in sorted(edges)),
        *(PageState(workload=workload) for workload in sorted(workloads)),
        *(PageState(workload="shop/web", verdict=verdict) for verdict in VERDICTS),
        PageState(workload="lab/intruder", verdict="dropped"),
        *(PageState(edge="shop/web>shop/cart:8081/TCP", verdict=verdict) for verdict in VERDICTS),
        *(PageState(verdict=verdict) for verdict in VERDICTS),
        *(PageState(flow=uuid) for uuid in uuids),
        PageState(),
        PageState(namespaces=("shop",)),
        PageState(namespaces=("lab", "kube-system"), verdict="dropped"),
        PageState(namespaces=("@nodes",)),
    ]


def test_the_command_asks_for_the_flows_that_the_page_shows() -> None:
    """Every edge, workload, namespace and verdict of a varied cast, read by the command line's own parser."""
    filled = model()
    rows, stats = list(filled.rows_after(0)), stats_of(filled)
    for state in states(filled):
        command = observe_command(state, stats)
        lists = lists_of(command)
        shown = {
            row.uuid for row in rows if (row.uuid == state.flow if state.flow else row_shown(row, state))
        }
        asked = {row.uuid for row in rows if passes(row.message, lists)}
        assert shown or state.verdict, state
        assert asked == shown, (state, command)


def test_a_dropped_edge_makes_a_command_that_people_can_read() -> None:
    """No replies, no second filter: flags alone."""
    filled = model()
    command = observe_command(PageState(edge="lab/intruder>shop/api:8080/TCP"), stats_of(filled))
    assert " ".join(command.words) == (
        "palomar observe --last 100 --from-namespace lab --from-workload intruder "
        "--to-namespace shop --to-workload api --protocol tcp --to-port 8080"
    )
    assert command.notes == ()


@pytest.mark.parametrize(
    ("state", "note"),
    [
        (PageState(text="zebra"), "The search text has no flag"),
        (PageState(namespaces=("@outside", "shop")), "cannot be named together"),
        (PageState(workload="shop/web", namespaces=("lab",)), "The namespace filter is left out"),
        (PageState(edge="@nodes/host>shop/web:0/ICMPv4"), "this protocol has no ports"),
        (PageState(edge="shop/web>@outside/192.0.2.0/24:443/TCP"), "Narrower networks"),
        (PageState(edge="shop/web>far/lonely:82/TCP"), "Every pod whose name begins with lonely"),
    ],
)
def test_what_the_command_cannot_say_is_said(state: PageState, note: str) -> None:
    """A filter without a flag makes the command show more, and the panel tells."""
    command = observe_command(state, stats_of(model()))
    assert lists_of(command) is not None
    assert any(note in line for line in command.notes)


def test_there_is_no_command_for_what_is_not_there() -> None:
    """An edge or workload without a flow, a flow without a uuid, a name of a kilobyte."""
    stats = stats_of(model())
    for state in (PageState(edge="a>b"), PageState(workload="a/b")):
        assert observe_command(state, stats).words == ()
    nameless = Model()
    response = flow_of(shop()[0], NOW_NS)
    response.flow.uuid = ""
    nameless.add_responses([response], NOW_NS, live=True)
    row = next(nameless.rows_after(0))
    assert observe_command(PageState(flow=row.uuid), ()).words == ()
    long = Model()
    long.add_responses([flow_of(Call(Party("n" * 1000), WEB, 80), NOW_NS)], NOW_NS, live=True)
    (stat,) = stats_of(long)
    assert observe_command(PageState(edge=stat.key.id), [stat]).words == ()


def test_the_command_leads_to_the_same_server_with_the_same_certificates() -> None:
    """What `palomar ui` was told, in the words of the command line."""
    tls = TlsFiles(Path("/c/ui.pem"), Path("/c/ui.key"), Path("/c/ca.pem"))
    words = server_words(ServerTarget("relay:4245", "relay:4245", tls, "instance.hubble-relay.cilium.io"))
    target = target_of(parsed(observe_command(PageState(), (), words).words), {})
    assert target.text == "relay:4245"
    assert target.tls is not None
    assert target.tls.ca_cert_files == ("/c/ca.pem",)
    assert (target.tls.client_cert_file, target.tls.client_key_file) == ("/c/ui.pem", "/c/ui.key")
    assert target.tls.server_name == "instance.hubble-relay.cilium.io"
    plain = server_words(ServerTarget("unix:///run/palomar/hubble.sock", "unix:/run/palomar/hubble.sock"))
    assert plain == ("--server", "unix:///run/palomar/hubble.sock")
