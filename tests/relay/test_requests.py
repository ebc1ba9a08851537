"""What a relay refuses without asking a node."""

import pytest

from hubble.filters import compile_filters
from hubble.observingnode import ObservingNode
from palomar.errors import InvalidInputError
from palomar_pb.flow.flow_pb2 import FlowFilter
from palomar_pb.observer.observer_pb2 import GetFlowsRequest
from relay.requests import check_request


@pytest.mark.parametrize(
    ("request_", "problem"),
    [
        (GetFlowsRequest(), ""),
        (GetFlowsRequest(whitelist=[FlowFilter(source_ip=["10.0.0.0/8", "::1", "10.1.2.3/8"])]), ""),
        (GetFlowsRequest(whitelist=[FlowFilter(source_port=["0", "65535"])]), ""),
        (
            GetFlowsRequest(whitelist=[FlowFilter(), FlowFilter(destination_ip=["::1", "x"])]),
            "whitelist[1].destination_ip[1]",
        ),
        (GetFlowsRequest(blacklist=[FlowFilter(source_port=["65536"])]), "blacklist[0].source_port[0]"),
        (GetFlowsRequest(blacklist=[FlowFilter(source_port=["٣"])]), "blacklist[0].source_port[0]"),
        (GetFlowsRequest(blacklist=[FlowFilter(source_port=["9" * 5000])]), "blacklist[0].source_port[0]"),
        (GetFlowsRequest(since={"nanos": -1}), "since"),
        (GetFlowsRequest(until={"nanos": 1_000_000_000}), "until"),
    ],
)
def test_the_first_wrong_field_is_named(request_: GetFlowsRequest, problem: str) -> None:
    """Empty where nothing is wrong."""
    assert check_request(request_).partition(":")[0] == problem


@pytest.mark.parametrize(
    "wrong",
    [
        FlowFilter(source_ip=["10.0.0.300"]),
        FlowFilter(destination_ip=["10.0.0.0/40"]),
        FlowFilter(source_port=["65536"]),
        FlowFilter(destination_port=["http"]),
    ],
    ids=str,
)
def test_a_relay_says_what_a_node_would(wrong: FlowFilter) -> None:
    """A client reads the same words whomever it asks."""
    with pytest.raises(InvalidInputError) as caught:
        compile_filters([FlowFilter(), wrong], [], ObservingNode("default/one"))
    assert check_request(GetFlowsRequest(whitelist=[FlowFilter(), wrong])) == str(caught.value)
