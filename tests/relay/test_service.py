"""What a relay says of a node, from what it knows of it."""

import pytest

from palomar_pb.observer import observer_pb2
from palomar_pb.relay import relay_pb2
from relay.peers import Peer, PeerState
from relay.service import describe_node

STATUS = observer_pb2.ServerStatusResponse(
    version="palomar 1", uptime_ns=9, num_flows=5, max_flows=8, seen_flows=7, flows_rate=0.5
)
PEER = Peer("default/n1", "10.0.0.1:4244", "n1.default.hubble-grpc.cilium.io")


def test_a_node_that_answers_is_described_whole() -> None:
    """Name, address and TLS from the announcement, the rest from its own status."""
    assert describe_node(PEER, PeerState.CONNECTED, STATUS) == observer_pb2.Node(
        name=PEER.name,
        version="palomar 1",
        address=PEER.address,
        state=relay_pb2.NODE_CONNECTED,
        tls=observer_pb2.TLS(enabled=True, server_name=PEER.server_name),
        uptime_ns=9,
        num_flows=5,
        max_flows=8,
        seen_flows=7,
    )


@pytest.mark.parametrize(
    ("state", "told"),
    [
        (PeerState.CONNECTED, relay_pb2.NODE_ERROR),
        (PeerState.UNKNOWN, relay_pb2.NODE_UNAVAILABLE),
        (PeerState.UNAVAILABLE, relay_pb2.NODE_UNAVAILABLE),
    ],
)
def test_a_node_without_an_answer_is_not_called_connected(
    state: PeerState, told: "relay_pb2.NodeState.ValueType"
) -> None:
    """ERROR where it was connected and yet did not answer, UNAVAILABLE where it was not (yet)."""
    assert describe_node(PEER, state, None).state == told


def test_a_node_in_plain_text_says_so() -> None:
    """TLS is told of, and told to be off."""
    node = describe_node(Peer("default/n2", "unix:/n2.sock"), PeerState.CONNECTED, STATUS)
    assert (node.HasField("tls"), node.tls.enabled, node.tls.server_name) == (True, False, "")
