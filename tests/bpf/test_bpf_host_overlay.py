"""The node's programs: cilium_host, cilium_net and cilium_vxlan."""

import pytest

from datapath.events import EventFlag
from palomar.verdict import ObservationPoint, TraceReason, TrafficDirection
from tests.kit.bpfnode import (
    HOST_IFINDEX,
    TC_ACT_OK,
    TC_ACT_REDIRECT,
    TUNNEL_IFINDEX,
    BpfNode,
    FromTunnel,
    context,
    ct_key,
)
from tests.kit.packets import (
    NODE_TWO,
    POD_ONE,
    POD_REMOTE,
    POD_TWO,
    ROUTER_ONE,
    ROUTER_TWO,
    WORLD,
    arp,
    between,
    decode,
)

pytestmark = pytest.mark.bpf


def test_host_to_a_local_pod_gets_the_veth_s_macs(node: BpfNode) -> None:
    """The pod's own program judges it on the way in."""
    outcome = node.run("host", "cil_from_host", between(ROUTER_ONE, POD_ONE).tcp(50000, 80, "S"))
    assert outcome.action == TC_ACT_REDIRECT
    got = decode(outcome.packet)
    assert (got.source_mac, got.destination_mac) == (POD_ONE.gateway_mac, POD_ONE.mac)
    assert got.ttl == 64
    (trace,) = outcome.events
    assert trace["subtype"] == ObservationPoint.FROM_HOST


def test_host_to_a_remote_pod_goes_into_the_tunnel(node: BpfNode) -> None:
    """The first packet is traced at any level, and the flow is tracked for its counters."""
    node.maps.runtime_config.set(16, 2)
    packet = between(ROUTER_ONE, POD_REMOTE).tcp(50000, 80, "S")
    outcome = node.run("host", "cil_from_host", packet)
    assert outcome.action == TC_ACT_REDIRECT
    (trace,) = outcome.events
    assert (trace["subtype"], trace["ifindex"]) == (ObservationPoint.TO_OVERLAY, TUNNEL_IFINDEX)
    assert trace["tunnel_ipv4"] == int(NODE_TWO.ipv4)
    assert (trace["src_identity"], trace["dst_identity"]) == (1, POD_REMOTE.identity)
    assert (trace["packets"], trace["bytes"]) == (1, len(packet.bytes()))
    assert node.run("host", "cil_from_host", between(ROUTER_ONE, POD_REMOTE).tcp(50000, 80, "S")).events == []


def test_packet_that_was_traced_on_its_way_to_the_host_passes_silently(node: BpfNode) -> None:
    """The mark is taken off before the stack sees it."""
    outcome = node.run("host", "cil_to_host", between(POD_ONE, ROUTER_ONE).udp(1, 2), context(mark=0x0F00))
    assert (outcome.action, outcome.mark, outcome.events) == (TC_ACT_OK, 0, [])


def test_packet_that_comes_to_the_host_by_itself_is_traced(node: BpfNode) -> None:
    """Over the other end of the pair, say."""
    outcome = node.run("host", "cil_to_host", between(WORLD, ROUTER_ONE).udp(1, 2))
    assert outcome.action == TC_ACT_OK
    (trace,) = outcome.events
    assert trace["subtype"] == ObservationPoint.TO_HOST
    assert (trace["src_identity"], trace["dst_identity"]) == (2, 1)
    assert trace["direction"] == TrafficDirection.INGRESS


@pytest.mark.parametrize("program", ["cil_from_host", "cil_to_host"])
def test_arp_between_the_pair_passes(node: BpfNode, program: str) -> None:
    """cilium_host and cilium_net may resolve one another."""
    assert node.run("host", program, arp(ROUTER_ONE, POD_ONE.ipv4)).action == TC_ACT_OK


def test_packet_out_of_the_tunnel_reaches_the_pod_with_its_sender_s_identity(
    node: BpfNode, from_tunnel: FromTunnel
) -> None:
    """Identity and node come from the tunnel key, MACs and TTL are those of a delivery."""
    packet = between(POD_REMOTE, POD_ONE).tcp(40000, 80, "S")
    outcome = from_tunnel(packet, POD_REMOTE.identity)
    assert outcome.action == TC_ACT_REDIRECT
    got = decode(outcome.packet)
    assert (got.source_mac, got.destination_mac) == (POD_ONE.gateway_mac, POD_ONE.mac)
    assert (got.ttl, got.header_ok) == (63, True)
    from_overlay, verdict, arrival = outcome.events
    assert from_overlay["subtype"] == ObservationPoint.FROM_OVERLAY
    assert from_overlay["endpoint_id"] == 0
    assert (verdict["src_identity"], verdict["dst_identity"]) == (POD_REMOTE.identity, POD_ONE.identity)
    assert arrival["subtype"] == ObservationPoint.TO_ENDPOINT
    for event in outcome.events:
        assert event["flags"] == EventFlag.FROM_TUNNEL
        assert event["tunnel_ipv4"] == int(NODE_TWO.ipv4)


def test_identity_of_the_tunnel_counts_not_the_ipcache(node: BpfNode, from_tunnel: FromTunnel) -> None:
    """The sending node knows its pods before our ipcache does."""
    outcome = from_tunnel(between(POD_REMOTE, POD_ONE).udp(1, 2), 4242)
    assert outcome.verdicts[0]["src_identity"] == 4242


def test_packet_out_of_the_tunnel_for_the_host_is_handed_to_it(
    node: BpfNode, from_tunnel: FromTunnel
) -> None:
    """A remote pod talks with this node's router address."""
    outcome = from_tunnel(between(POD_REMOTE, ROUTER_ONE).tcp(40000, 4240, "S"), POD_REMOTE.identity)
    assert outcome.action == TC_ACT_REDIRECT
    assert decode(outcome.packet).destination_mac == ROUTER_ONE.mac
    assert outcome.mark == 0x0F00
    trace = outcome.traces[-1]
    assert (trace["subtype"], trace["ifindex"]) == (ObservationPoint.TO_HOST, HOST_IFINDEX)
    assert trace["dst_identity"] == 1
    assert trace["trace_reason"] == TraceReason.NEW


def test_answer_to_the_host_out_of_the_tunnel_is_a_reply(node: BpfNode, from_tunnel: FromTunnel) -> None:
    """The host's flow was tracked when it left."""
    node.run("host", "cil_from_host", between(ROUTER_ONE, POD_REMOTE).tcp(50000, 80, "S"))
    outcome = from_tunnel(between(POD_REMOTE, ROUTER_ONE).tcp(80, 50000, "SA"), POD_REMOTE.identity)
    trace = outcome.traces[-1]
    assert trace["trace_reason"] == TraceReason.REPLY
    assert trace["rtt_us"] > 0
    assert node.ct(ct_key(ROUTER_ONE, POD_REMOTE, 50000, 80)) is not None


def test_remote_host_may_be_named_by_policy(node: BpfNode, from_tunnel: FromTunnel) -> None:
    """The other node's own packets arrive as remote-node."""
    outcome = from_tunnel(between(ROUTER_TWO, POD_ONE).tcp(40000, 80, "S"), 6)
    assert outcome.verdicts[0]["src_identity"] == 6


def test_packet_with_a_key_may_leave_by_the_tunnel(node: BpfNode, from_tunnel: FromTunnel) -> None:
    """It was traced where it was sent from."""
    packet = between(POD_TWO, POD_REMOTE).udp(1, 2)
    outcome = from_tunnel(packet, POD_TWO.identity, "cil_to_overlay")
    assert (outcome.action, outcome.packet, outcome.events) == (TC_ACT_OK, packet.bytes(), [])
