"""What a resumed answer repeats is left out, by node and key; what it may not have told is asked for."""

import random
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cli.seen import LOOK_BACK_NS, OVERLAP_NS, Seen, content_key, flow_key
from cli.selectors import EVERYTHING
from palomar_pb.flow import flow_pb2
from palomar_pb.observer import observer_pb2
from palomar_pb.relay import relay_pb2
from tests.cli import flowcast
from tests.cli.flowcast import numbered

SECOND = flowcast.SECOND_ZERO
NS = 10**9


def ports(responses):
    return [response.flow.l4.TCP.source_port - 1000 for response in responses]


def follower(now_ns=0, **request):
    """One that has asked for the first time."""
    seen = Seen(observer_pb2.GetFlowsRequest(follow=True, **request), flow_key, now_ns)
    seen.request()
    return seen


def again(seen, *responses):
    return ports(seen.only_new(responses))


def since_s(seen):
    return seen.request().since.ToNanoseconds() / NS - SECOND


@pytest.mark.parametrize("uuid", [True, False])
def test_only_what_was_shown_is_left_out_and_as_often_as_it_was(uuid):
    """Without uuids (a field mask) the whole response is the name."""
    seen = follower()
    one, two, three = (numbered(n, 10 * n, uuid) for n in (1, 2, 3))
    assert again(seen, one, two, two) == [1, 2, 2], "one connection repeats nothing: nothing is left out"
    seen.request()
    assert again(seen, two, three) == [3]
    assert again(seen, two, two) == [2]
    assert again(seen, one) == [], "older than what this connection was asked for"


def test_losses_are_not_counted_twice_and_node_states_always_pass():
    loss = observer_pb2.GetFlowsResponse(node_name="n")
    loss.lost_events.num_events_lost = 3
    untimed = observer_pb2.GetFlowsResponse()
    untimed.CopyFrom(loss)
    loss.time.seconds = SECOND
    state = observer_pb2.GetFlowsResponse(node_status=relay_pb2.NodeStatusEvent(node_names=["n"]))
    state.time.seconds = SECOND
    seen = Seen(observer_pb2.GetFlowsRequest(follow=True), flow_key, 0)
    for expected in ([loss, untimed, state], [untimed, state]):
        seen.request()
        assert seen.only_new([loss, untimed, state]) == expected


def test_cut_before_the_first_flow():
    """From now on means from when it was asked; a question about the past is asked again as it was."""
    again_ = follower(5 * NS).request()
    assert (again_.since.seconds, again_.number) == (5, EVERYTHING)
    assert follower(5, number=20).request() == observer_pb2.GetFlowsRequest(follow=True, number=20)


def test_what_came_before_the_first_flow_shown_is_not_asked_for():
    seen = follower()
    again(seen, numbered(1, 100), numbered(2, 101))
    assert since_s(seen) == 100
    again(seen, numbered(3, 200))
    assert since_s(seen) == 200 - OVERLAP_NS / NS


def test_a_node_whose_clock_is_behind_is_gone_on_from_where_it_was():
    """Others are ahead of it by more than the overlap; of them nothing is shown twice for that."""
    seen = follower()
    again(seen, *(numbered(n, 100 + n) for n in range(30)))
    again(seen, *(numbered(50 + n, 80 + n, node="late") for n in range(20)))
    assert since_s(seen) == 99 - OVERLAP_NS / NS
    told = [numbered(n, 100 + n) for n in range(31)] + [
        numbered(50 + n, 80 + n, node="late") for n in range(14, 22)
    ]
    assert again(seen, *told) == [30, 70, 71]


def test_a_node_that_was_quiet_for_long_does_not_bring_all_of_the_others_again():
    seen = follower()
    again(seen, numbered(1, 0, node="quiet"), numbered(2, 3_600))
    assert since_s(seen) == 3_600 - LOOK_BACK_NS / NS


def test_agent_events_are_known_by_all_they_say():
    def event(second, text):
        response = observer_pb2.GetAgentEventsResponse(node_name="n")
        response.time.seconds = SECOND + second
        response.agent_event.type = flow_pb2.AGENT_STARTED
        response.agent_event.unknown.notification = text
        return response

    seen = Seen(observer_pb2.GetAgentEventsRequest(follow=True, number=9), content_key, 0)
    assert seen.request().number == 9
    assert seen.only_new([event(1, "a"), event(1, "b")]) == [event(1, "a"), event(1, "b")]
    request = seen.request()
    assert (request.number, request.since.seconds, request.follow) == (EVERYTHING, SECOND + 1, True)
    assert seen.only_new([event(1, "a"), event(1, "b"), event(1, "c")]) == [event(1, "c")]


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32))
def test_across_any_cuts_each_flow_is_shown_once(seed):
    """Two nodes with clocks apart tell, slightly out of order, what they made since the time asked for."""
    chance = random.Random(seed)
    nodes = {"a": 0.0, "b": chance.uniform(-30, 30)}
    moments = [(0.0, "a"), (0.0, "b"), *((chance.uniform(2, 60), chance.choice("ab")) for _ in range(60))]
    made = [
        (at, numbered(number, 40 + at + nodes[node] - (chance.random() if at else 1), node=node))
        for number, (at, node) in enumerate(sorted(moments))
    ]
    cuts = sorted(chance.uniform(0, 60) for _ in range(4))
    seen = Seen(observer_pb2.GetFlowsRequest(follow=True, number=EVERYTHING), flow_key, 0)
    shown = []
    for cut in (*cuts, 60.0):
        since_ns = seen.request().since.ToNanoseconds()
        answer = [item for at, item in made if at <= cut and item.time.ToNanoseconds() >= since_ns]
        shown += ports(seen.only_new(answer))
    assert Counter(shown) == Counter(range(62))
