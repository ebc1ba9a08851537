"""Model and page view: what a page gets, what it is told is missing, and nothing twice."""

from dataclasses import replace
from typing import Any

from palomar_pb.flow import flow_pb2
from palomar_pb.observer import observer_pb2
from palomar_pb.relay import relay_pb2
from tests.ui.flowserver import Call, Party, flow_of, shop
from ui.flowdetail import decision, decision_line
from ui.hub import Link, LinkPhase
from ui.model import KEPT_FLOWS, Model
from ui.refresh import OPENED_FLOWS, OpenedFlows
from ui.state import PageState
from ui.statuslines import banner_words, empty_words, link_words
from ui.view import TABLE_ROWS, PageView

NOW_NS = 1_795_248_000_000_000_000
HOUR_NS = 3_600_000_000_000
WEB, API = Party("web", identity=4101), Party("api", identity=4102, address="10.1.0.6")
CALL = Call(WEB, API, 8080)
DENIED = Call(WEB, API, 9090, denied_by="no-metrics")


def filled(*calls: Call, each: int = 1) -> Model:
    model = Model()
    model.add_responses([flow_of(call, NOW_NS) for call in calls for _ in range(each)], NOW_NS, live=True)
    return model


def test_a_page_gets_everything_once_and_then_differences() -> None:
    """The first answer is whole, the second holds only the new flow."""
    model, view = filled(*shop()), PageView()
    first = view.update(model, PageState(), 0, NOW_NS).payload
    assert first["reset"]
    assert len(first["rows"]["add"]) == len(shop())
    second = view.update(model, PageState(), first["seq"], NOW_NS).payload
    assert not {"reset", "map", "rows"} & set(second)
    model.add_responses([flow_of(CALL, NOW_NS)], NOW_NS, live=True)
    third = view.update(model, PageState(), second["seq"], NOW_NS).payload
    assert len(third["rows"]["add"]) == 1
    assert third["base"] == second["seq"]
    assert set(third["map"]["edges"]["set"]) <= set(first["map"]["edges"]["set"]) | {
        "shop/web>shop/api:8080/TCP"
    }


def test_a_page_that_missed_an_answer_gets_everything_again() -> None:
    """It says which version it holds; another one than the last sent means: start over."""
    model, view = filled(CALL), PageView()
    first = view.update(model, PageState(), 0, NOW_NS).payload
    view.update(model, PageState(), first["seq"], NOW_NS)
    again = view.update(model, PageState(), first["seq"], NOW_NS).payload
    assert again["reset"]
    assert again["rows"]["reset"]
    assert again["map"]["cards"]["set"]


def test_flows_beyond_the_tables_room_are_counted() -> None:
    """Of 500 new flows 100 are sent and 400 are said not to be shown."""
    model, view = filled(CALL), PageView()
    seq = view.update(model, PageState(), 0, NOW_NS).payload["seq"]
    model.add_responses([flow_of(CALL, NOW_NS) for _ in range(500)], NOW_NS, live=True)
    rows = view.update(model, PageState(), seq, NOW_NS).payload["rows"]
    assert len(rows["add"]) == TABLE_ROWS
    assert rows["more"] == 400


def test_filters_reduce_map_table_and_timeline_and_say_so() -> None:
    """Only dropped: one edge, its flows, its bars, and a note on what the filter hides."""
    model = filled(CALL, DENIED, each=3)
    update = PageView().update(model, PageState(verdict="dropped"), 0, NOW_NS)
    assert list(update.payload["map"]["edges"]["set"]) == ["shop/web>shop/api:9090/TCP"]
    assert {row["v"] for row in update.payload["rows"]["add"]} == {"dropped"}
    assert (sum(update.frame.timeline.forwarded), sum(update.frame.timeline.dropped)) == (0, 3)
    assert {"t": "filters leave 1 of 2 edges"} in update.payload["notes"]


def test_text_finds_addresses_pods_policies_and_ports() -> None:
    """Whatever a person copies from elsewhere finds its flow, and the edge stays on the map."""
    model = filled(CALL, DENIED)
    for text, rows in (("10.1.0.6", 2), ("WEB-1", 2), ("no-metrics", 1), ("9090", 1), ("zebra", 0)):
        update = PageView().update(model, PageState(text=text), 0, NOW_NS)
        assert len(update.payload["rows"]["add"]) == rows, text
        assert len(update.frame.stats) == rows, text


def test_a_selected_edge_shows_its_flows_and_leaves_the_map_whole() -> None:
    """Selecting narrows the table, not the map."""
    model = filled(CALL, DENIED)
    update = PageView().update(model, PageState(edge="shop/web>shop/api:9090/TCP"), 0, NOW_NS)
    assert len(update.payload["map"]["edges"]["set"]) == 2
    assert [row["p"] for row in update.payload["rows"]["add"]] == ["9090/TCP"]


def test_a_drop_outlives_any_number_of_forwarded_flows() -> None:
    """A busy cluster does not push the one refused flow out of the page."""
    model = filled(DENIED)
    for _ in range(3):
        model.add_responses([flow_of(CALL, NOW_NS) for _ in range(KEPT_FLOWS)], NOW_NS, live=True)
    rows = PageView().update(model, PageState(verdict="dropped"), 0, NOW_NS).payload["rows"]["add"]
    assert [row["v"] for row in rows] == ["dropped"]
    found = model.find_flow(rows[0]["i"])
    assert found is not None
    assert decision(found.message).rule == "ingressDeny[0]"


def test_the_same_flow_twice_counts_once() -> None:
    """After a reconnection the server sends known flows again."""
    model = Model()
    response = flow_of(CALL, NOW_NS)
    for _ in range(3):
        model.add_responses([response], NOW_NS, live=False)
    assert model.counters.flows == 1
    assert model.counters.repeated == 2


def test_replies_belong_to_the_callers_edge() -> None:
    """A reply packet is drawn from caller to callee and listed in its own direction."""
    model = Model()
    model.add_responses([flow_of(CALL, NOW_NS), flow_of(CALL, NOW_NS, reply=True)], NOW_NS, live=True)
    update = PageView().update(model, PageState(), 0, NOW_NS)
    assert len(update.frame.stats) == 1
    directions = [(row["a"], row["b"], row["r"]) for row in update.payload["rows"]["add"]]
    assert directions == [("api", "web", 1), ("web", "api", 0)]


def test_losses_and_node_states_reach_their_node() -> None:
    """What the stream says of nodes is counted; slow readers are told apart from a lossy datapath."""
    model = Model()
    lost = observer_pb2.GetFlowsResponse(node_name="default/n1")
    lost.lost_events.num_events_lost, lost.lost_events.source = 5, flow_pb2.PERF_EVENT_RING_BUFFER
    unread = observer_pb2.GetFlowsResponse(node_name="default/n1")
    unread.lost_events.num_events_lost, unread.lost_events.source = 7, flow_pb2.HUBBLE_RING_BUFFER
    status = observer_pb2.GetFlowsResponse()
    status.node_status.state_change = relay_pb2.NODE_UNAVAILABLE
    status.node_status.node_names.append("default/n1")
    status.node_status.message = "connection refused"
    model.add_responses([lost, unread, status, observer_pb2.GetFlowsResponse()], NOW_NS, live=True)
    node = model.nodes["default/n1"]
    assert (node.lost, node.unread, node.state, node.message) == (5, 7, "unavailable", "connection refused")
    assert model.counters.malformed == 1


def test_a_clock_an_hour_off_is_said_and_its_flows_are_on_the_map() -> None:
    """Behind and ahead; a backlog of old flows accuses nobody."""
    for off_ns in (-HOUR_NS, HOUR_NS):
        model = Model()
        model.add_responses([flow_of(CALL, NOW_NS + off_ns)], NOW_NS, live=True)
        assert model.nodes["default/node-1"].clock_off_ns == off_ns
        assert len(PageView().update(model, PageState(), 0, NOW_NS).frame.stats) == 1
    model = Model()
    model.add_responses([flow_of(CALL, NOW_NS - HOUR_NS)], NOW_NS, live=False)
    assert model.nodes["default/node-1"].clock_off_ns == 0


def test_a_node_that_is_no_longer_listed_is_gone() -> None:
    """GetNodes is the server's word on who is there; counts of a silent node stay as last known."""
    model = Model()
    answer = observer_pb2.GetNodesResponse()
    answer.nodes.add(name="a", state=relay_pb2.NODE_CONNECTED, seen_flows=10, max_flows=100)
    answer.nodes.add(name="b", state=relay_pb2.NODE_CONNECTED, seen_flows=20, max_flows=100)
    model.set_nodes(answer)
    second = observer_pb2.GetNodesResponse()
    second.nodes.add(name="a", state=relay_pb2.NODE_UNAVAILABLE)
    model.set_nodes(second)
    assert [(node.name, node.state, node.seen_flows) for node in model.nodes.values()] == [
        ("a", "unavailable", 10),
        ("b", "gone", 20),
    ]


def test_decisions_are_told_in_words() -> None:
    """Denied by name, denied by default, forwarded without a name, dropped by the datapath, audited."""
    by_name = decision(flow_of(DENIED, NOW_NS).flow)
    assert by_name.sentence == "Ingress was denied by this policy."
    assert [policy.name for policy in by_name.policies] == ["shop/no-metrics"]
    default = decision(flow_of(Call(WEB, API, 1, default_deny_by="lockdown"), NOW_NS).flow)
    assert "No rule allows it" in default.sentence
    assert [policy.name for policy in default.policies] == ["shop/lockdown"]
    bare = flow_pb2.Flow(verdict=flow_pb2.DROPPED, drop_reason_desc=flow_pb2.STALE_OR_UNROUTABLE_IP)
    assert decision(bare).sentence == "Dropped by the datapath: Stale or unroutable IP."
    assert "audit mode" in decision(flow_pb2.Flow(verdict=flow_pb2.AUDIT)).sentence
    assert decision(flow_pb2.Flow(verdict=flow_pb2.FORWARDED)).sentence.startswith("Forwarded.")


def test_who_decided_is_told_in_a_line_without_opening_anything() -> None:
    """The title of a refused row and of its edge names policy and rule, or the default deny's policies."""
    model = filled(CALL, DENIED, Call(WEB, API, 1, default_deny_by="lockdown"))
    update = PageView().update(model, PageState(), 0, NOW_NS)
    by_port = {row["p"]: row["d"] for row in update.payload["rows"]["add"]}
    denied = "Ingress denied by shop/no-metrics, rule ingressDeny[0]"
    default = "No rule allows it: default deny by shop/lockdown"
    assert by_port == {"8080/TCP": "", "9090/TCP": denied, "1/TCP": default}
    titles = {key: edge["f"] for key, edge in update.payload["map"]["edges"]["set"].items()}
    assert titles["shop/web>shop/api:9090/TCP"].endswith(denied)
    assert titles["shop/web>shop/api:1/TCP"].endswith(default)
    assert "denied" not in titles["shop/web>shop/api:8080/TCP"]


def test_a_line_on_the_decision_is_bounded() -> None:
    """Fifty policies: three are named, the others counted; without any there is a sentence."""
    flow = flow_of(DENIED, NOW_NS).flow
    for number in range(49):
        flow.ingress_denied_by.add(name=f"more-{number}", namespace="shop")
    assert "shop/no-metrics, shop/more-0, shop/more-1 and 47 more, rule" in decision_line(flow)
    assert "audit mode" in decision_line(flow_pb2.Flow(verdict=flow_pb2.AUDIT))
    assert decision_line(flow_pb2.Flow(verdict=flow_pb2.DROPPED)).startswith("Dropped by the datapath")


def test_an_opened_flow_is_kept_when_the_model_forgets_it() -> None:
    """Somebody looked at it: its address works on. One nobody looked at is gone; the memory is bounded."""
    model, opened = filled(CALL), OpenedFlows()
    row = next(model.rows_after(0))
    assert opened.find(model, row.uuid) is row
    other = Call(WEB, API, 81)
    for _ in range(3):
        model.add_responses([flow_of(CALL, NOW_NS) for _ in range(KEPT_FLOWS // 2)], NOW_NS, live=True)
    model.add_responses([flow_of(other, NOW_NS) for _ in range(OPENED_FLOWS + 20)], NOW_NS, live=True)
    assert model.find_flow(row.uuid) is None
    assert opened.find(model, row.uuid) is row
    assert opened.find(model, "00000000-0000-8000-8000-ffffffffffff") is None
    for newer in list(model.rows_after(0))[:OPENED_FLOWS]:
        opened.find(model, newer.uuid)
    assert opened.find(model, row.uuid) is None


def test_hostile_flows_do_not_break_a_page() -> None:
    """Empty, unknown numbers, 1 kB names, markup, a damaged extension."""
    model = Model()
    hostile: list[Any] = [observer_pb2.GetFlowsResponse(flow=flow_pb2.Flow())]
    strange = flow_of(CALL, NOW_NS)
    strange.flow.source.workloads[0].name = "<img src=x onerror=alert(1)>" * 40
    strange.flow.verdict = 99  # type: ignore[assignment]  # a server of tomorrow
    strange.flow.trace_observation_point = 77  # type: ignore[assignment]  # a server of tomorrow
    strange.flow.extensions.value = b"\xff\xff\xff"
    strange.flow.drop_reason_desc = 250  # type: ignore[assignment]  # a server of tomorrow
    hostile.append(strange)
    model.add_responses(hostile, NOW_NS, live=True)
    update = PageView().update(model, PageState(), 0, NOW_NS)
    assert len(update.payload["rows"]["add"]) == 2
    assert all(len(row["a"]) <= 72 for row in update.payload["rows"]["add"])


def test_the_pages_words_follow_the_link() -> None:
    """Empty for different reasons reads differently; trouble names cause, remedy and what is shown."""
    state, model = PageState(), Model()
    connected = Link(LinkPhase.CONNECTED, "relay:4245", NOW_NS)
    broken = replace(
        connected, phase=LinkPhase.BROKEN, reason="refused", attempts=2, retry_at_ns=NOW_NS + 3 * 10**9
    )
    titles = [
        words.title
        for words in (
            empty_words(connected, model, state, 0, False),
            empty_words(broken, model, state, 0, False),
            empty_words(Link(LinkPhase.CONNECTING, "relay:4245", NOW_NS), model, state, 0, False),
        )
        if words
    ]
    assert titles == ["No flows yet", "No connection to the flow server", "Connecting"]
    full = filled(CALL)
    hidden = empty_words(connected, full, PageState(text="zebra"), 0, True)
    assert hidden is not None
    assert hidden.clear
    quiet = empty_words(connected, full, state, 0, False)
    assert quiet is not None
    assert quiet.title == "Quiet"
    assert empty_words(connected, full, state, 1, True) is None
    trouble = banner_words(broken, full, NOW_NS)
    assert trouble is not None
    assert "refused" in trouble.text
    assert "Trying again in 3 s (attempt 3)" in trouble.text
    assert banner_words(connected, full, NOW_NS) is None
    full.nodes["default/node-1"].state = "unavailable"
    away = banner_words(connected, full, NOW_NS)
    assert away is not None
    assert "node-1" in away.title
    assert [link_words(connected, state).tone, link_words(broken, state).tone] == ["good", "bad"]
    assert link_words(connected, PageState(paused=True)).title == "Paused"
