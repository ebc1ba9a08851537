"""The endpoint's programs: where its packets go, what the receiver gets, what is said of it."""

from ipaddress import IPv4Address, IPv4Network

import pytest

from datapath.abi.conntrack import Direction
from datapath.abi.policy import PolicyKey
from datapath.events import EventFlag
from palomar.verdict import ObservationPoint, PolicyMatchType, TraceReason, TrafficDirection, Verdict
from tests.kit.bpfnode import (
    ALLOW_ALL_COOKIE,
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
    NODE_ONE,
    NODE_TWO,
    POD_ONE,
    POD_REMOTE,
    POD_TWO,
    ROUTER_ONE,
    WORLD,
    Packet,
    between,
    decode,
)

pytestmark = pytest.mark.bpf

SYN = between(POD_ONE, POD_TWO).tcp(40000, 80, "S")


def test_packet_to_a_pod_of_this_node_arrives_as_from_its_gateway(node: BpfNode) -> None:
    """MACs are the receiver's, the TTL is one less, checksums hold, the payload is untouched."""
    packet = between(POD_ONE, POD_TWO).tcp(40000, 80, "PA", b"GET / HTTP/1.1\r\n")
    outcome = node.send(POD_ONE, packet)
    assert outcome.action == TC_ACT_REDIRECT
    got = decode(outcome.packet)
    assert (got.source_mac, got.destination_mac) == (POD_TWO.gateway_mac, POD_TWO.mac)
    assert (got.src, got.dst, got.ttl) == (POD_ONE.ipv4, POD_TWO.ipv4, 63)
    assert got.header_ok
    assert got.payload_ok
    assert got.body == packet.body


def test_new_flow_on_one_node_says_both_verdicts_and_its_arrival(node: BpfNode) -> None:
    """from-endpoint, egress verdict, ingress verdict, to-endpoint: in this order."""
    outcome = node.send(POD_ONE, SYN)
    assert [(e["type"], e["subtype"]) for e in outcome.events] == [(4, 5), (5, 0), (5, 0), (4, 0)]
    source, egress, ingress, arrival = outcome.events
    assert source["subtype"] == ObservationPoint.FROM_ENDPOINT
    assert source["trace_reason"] == TraceReason.UNKNOWN
    assert source["dst_identity"] == POD_TWO.identity
    for verdict, pod, direction in (
        (egress, POD_ONE, TrafficDirection.EGRESS),
        (ingress, POD_TWO, TrafficDirection.INGRESS),
    ):
        assert verdict["endpoint_id"] == pod.endpoint_id
        assert verdict["direction"] == direction
        assert verdict["verdict"] == Verdict.FORWARDED
        assert verdict["match_type"] == PolicyMatchType.ALL
        assert verdict["policy_cookie"] == ALLOW_ALL_COOKIE
    assert arrival["subtype"] == ObservationPoint.TO_ENDPOINT
    assert (arrival["endpoint_id"], arrival["dst_endpoint_id"]) == (POD_TWO.endpoint_id,) * 2
    assert arrival["ifindex"] == POD_TWO.ifindex
    assert arrival["trace_reason"] == TraceReason.NEW
    assert (arrival["packets"], arrival["bytes"]) == (1, len(SYN.bytes()))
    for event in outcome.events:
        assert event["version"] == 1
        assert bytes(event["saddr"][:4]) == POD_ONE.ipv4.packed
        assert bytes(event["daddr"][:4]) == POD_TWO.ipv4.packed
        assert not any(event["saddr"][4:])
        assert (event["sport"], event["dport"], event["protocol"]) == (40000, 80, 6)
        assert event["l4_flags"] == 0x02
        assert event["src_identity"] == POD_ONE.identity
        assert event["length"] == len(SYN.bytes())
    assert arrival["dst_identity"] == POD_TWO.identity


def test_reply_passes_although_no_policy_allows_its_direction(node: BpfNode) -> None:
    """The answer belongs to the flow that was allowed."""
    node.send(POD_ONE, SYN)
    node.clear_policy(POD_ONE)
    node.clear_policy(POD_TWO)
    outcome = node.send(POD_TWO, between(POD_TWO, POD_ONE).tcp(80, 40000, "SA"))
    assert outcome.action == TC_ACT_REDIRECT
    assert outcome.verdicts == []
    assert outcome.traces[-1]["trace_reason"] == TraceReason.REPLY
    assert outcome.traces[-1]["endpoint_id"] == POD_ONE.endpoint_id


def test_packet_to_a_pod_of_another_node_goes_into_the_tunnel(node: BpfNode) -> None:
    """The event says to which node."""
    packet = between(POD_ONE, POD_REMOTE).udp(5000, 53, b"?")
    outcome = node.send(POD_ONE, packet)
    assert outcome.action == TC_ACT_REDIRECT
    assert outcome.packet == packet.bytes()
    trace = outcome.traces[-1]
    assert trace["subtype"] == ObservationPoint.TO_OVERLAY
    assert trace["ifindex"] == TUNNEL_IFINDEX
    assert trace["tunnel_ipv4"] == int(NODE_TWO.ipv4)
    assert trace["dst_identity"] == POD_REMOTE.identity


def test_pod_unknown_to_the_ipcache_is_found_by_its_node_s_pod_cidr(node: BpfNode) -> None:
    """The tunnel map is the fallback: identity world until the ipcache knows better."""
    stranger = between(POD_ONE, POD_REMOTE).ipv4(dst=IPv4Address("10.2.0.99")).udp(5000, 53)
    assert node.send(POD_ONE, stranger).action == TC_ACT_OK
    node.maps.tunnel.upsert(IPv4Network("10.2.0.0/24"), NODE_TWO.ipv4)
    outcome = node.send(POD_ONE, stranger)
    assert outcome.action == TC_ACT_REDIRECT
    trace = outcome.traces[-1]
    assert (trace["subtype"], trace["tunnel_ipv4"]) == (ObservationPoint.TO_OVERLAY, int(NODE_TWO.ipv4))
    assert trace["dst_identity"] == 2


def test_longest_prefix_of_the_ipcache_names_the_peer(node: BpfNode) -> None:
    """A CIDR policy's identity loses against a more specific one."""
    node.maps.ipcache.upsert(IPv4Network("198.51.100.0/24"), 16777217)
    node.maps.ipcache.upsert(IPv4Network("198.51.0.0/16"), 16777218)
    assert node.send(POD_ONE, between(POD_ONE, WORLD).udp(1, 2)).traces[-1]["dst_identity"] == 16777217


def test_packet_to_the_world_is_left_to_the_stack(node: BpfNode) -> None:
    """Routing and masquerade are the kernel's."""
    packet = between(POD_ONE, WORLD).tcp(40000, 443, "S")
    outcome = node.send(POD_ONE, packet)
    assert (outcome.action, outcome.packet) == (TC_ACT_OK, packet.bytes())
    trace = outcome.traces[-1]
    assert trace["subtype"] == ObservationPoint.TO_STACK
    assert trace["dst_identity"] == 2
    assert trace["direction"] == TrafficDirection.EGRESS


@pytest.mark.parametrize("host", [ROUTER_ONE, NODE_ONE], ids=lambda host: host.name)
def test_packet_to_this_node_is_handed_to_cilium_host(node: BpfNode, host: object) -> None:
    """With cilium_host's MAC, and a mark that says it was traced."""
    target = ROUTER_ONE if host is ROUTER_ONE else NODE_ONE
    outcome = node.send(POD_ONE, between(POD_ONE, target).tcp(40000, 4240, "S"))
    assert outcome.action == TC_ACT_REDIRECT
    assert decode(outcome.packet).destination_mac == ROUTER_ONE.mac
    assert decode(outcome.packet).ttl == 64
    assert outcome.mark == 0x0F00
    trace = outcome.traces[-1]
    assert (trace["subtype"], trace["ifindex"]) == (ObservationPoint.TO_HOST, HOST_IFINDEX)
    assert trace["dst_identity"] == 1


def test_packet_from_the_stack_is_judged_by_its_sender_s_address(node: BpfNode) -> None:
    """The host itself by cilium_lxc, the world by the ipcache."""
    node.maps.ipcache.upsert(IPv4Network("198.51.100.0/24"), 16777217)
    for sender, identity in ((ROUTER_ONE, 1), (WORLD, 16777217), (NODE_TWO, 6)):
        packet = between(sender, POD_ONE).macs(POD_ONE.gateway_mac, POD_ONE.mac).tcp(50000, 80, "S")
        outcome = node.receive(POD_ONE, packet)
        assert (outcome.action, outcome.packet) == (TC_ACT_OK, packet.bytes())
        (verdict,) = outcome.verdicts
        assert verdict["src_identity"] == identity
        assert verdict["direction"] == TrafficDirection.INGRESS
        assert outcome.traces[-1]["subtype"] == ObservationPoint.TO_ENDPOINT
        assert outcome.traces[-1]["dst_endpoint_id"] == POD_ONE.endpoint_id


def test_policy_program_takes_identity_and_node_from_the_caller(node: BpfNode) -> None:
    """What from-overlay found out arrives by skb->cb."""
    packet = between(POD_REMOTE, POD_ONE).tcp(40000, 80, "S")
    node_two = int.from_bytes(NODE_TWO.ipv4.packed, "little")
    outcome = node.run("pod-one", "handle_policy", packet, context(cb=(2001, node_two)))
    assert outcome.action == TC_ACT_REDIRECT
    trace = outcome.traces[-1]
    assert trace["src_identity"] == 2001
    assert trace["tunnel_ipv4"] == int(NODE_TWO.ipv4)
    assert trace["flags"] == EventFlag.FROM_TUNNEL


def test_first_fragment_passes_with_its_ports(node: BpfNode) -> None:
    """Only later fragments have no ports."""
    packet = between(POD_ONE, POD_TWO).udp(5000, 53, bytes(64)).ipv4(more_fragments=True)
    outcome = node.send(POD_ONE, packet)
    assert outcome.action == TC_ACT_REDIRECT
    assert outcome.traces[-1]["dport"] == 53


@pytest.mark.parametrize("words", [1, 5, 10])
def test_ip_options_are_skipped_and_kept(node: BpfNode, words: int) -> None:
    """Ports are found behind options, and the header checksum covers them."""
    packet = between(POD_ONE, POD_TWO).tcp(40000, 80, "S").ipv4(options=b"\x01" * 4 * words)
    outcome = node.send(POD_ONE, packet)
    got = decode(outcome.packet)
    assert outcome.action == TC_ACT_REDIRECT
    assert (outcome.traces[-1]["sport"], outcome.traces[-1]["dport"]) == (40000, 80)
    assert got.header_ok
    assert got.ttl == 63


@pytest.mark.parametrize("ttl", [2, 3, 64, 128, 255])
@pytest.mark.parametrize("ident", [0, 0xFEFF, 0xFFFF])
def test_ttl_goes_down_with_the_right_checksum(node: BpfNode, ttl: int, ident: int) -> None:
    """Also where the checksum carries."""
    got = decode(node.send(POD_ONE, SYN.ipv4(ttl=ttl, ident=ident)).packet)
    assert got.ttl == ttl - 1
    assert got.header_ok


def test_burst_counts_as_the_packets_it_becomes(node: BpfNode) -> None:
    """A GSO buffer of 44 segments is 44 packets."""
    packet = between(POD_ONE, WORLD).tcp(40000, 80, "A", bytes(1000))
    outcome = node.send(POD_ONE, packet, context(gso_segs=44))
    assert outcome.traces[-1]["packets"] == 44
    entry = node.ct(ct_key(POD_ONE, WORLD, 40000, 80))
    assert entry is not None
    assert (entry.tx_packets, entry.tx_bytes) == (44, len(packet.bytes()))


def test_icmp_events_have_no_ports_but_type_and_code(node: BpfNode) -> None:
    """The identifier is conntrack's, not a port."""
    trace = node.send(POD_ONE, between(POD_ONE, POD_TWO).echo(77)).traces[-1]
    assert (trace["sport"], trace["dport"], trace["l4_flags"], trace["icmp_code"]) == (0, 0, 8, 0)


@pytest.mark.parametrize(
    "packet",
    [
        SYN,
        between(POD_ONE, POD_REMOTE).udp(1, 2),
        between(POD_ONE, WORLD).udp(1, 2),
        between(POD_ONE, NODE_ONE).udp(1, 2),
    ],
    ids=["local", "overlay", "stack", "host"],
)
def test_every_way_out_is_counted(node: BpfNode, packet: Packet) -> None:
    """The metrics map counts the sender's side of each once."""
    before = sum(v.packets for k, v in node.maps.metrics.items().items() if (k.reason, k.direction) == (0, 2))
    node.send(POD_ONE, packet)
    after = sum(v.packets for k, v in node.maps.metrics.items().items() if (k.reason, k.direction) == (0, 2))
    assert after == before + 1


def test_receiver_s_denial_leaves_the_sender_s_entry_only(node: BpfNode, from_tunnel: FromTunnel) -> None:
    """The drop is the receiver's, with its endpoint id."""
    node.maps.policy(POD_TWO.endpoint_id).delete(PolicyKey(0, egress=False))
    outcome = node.send(POD_ONE, SYN)
    assert outcome.drop["endpoint_id"] == POD_TWO.endpoint_id
    assert outcome.drop["direction"] == TrafficDirection.INGRESS
    assert node.ct(ct_key(POD_ONE, POD_TWO, 40000, 80)) is not None
    assert node.ct(ct_key(POD_ONE, POD_TWO, 40000, 80, direction=Direction.IN)) is None
