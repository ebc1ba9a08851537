"""Connection tracking: which packets belong together, their counters, states and life times."""

from dataclasses import replace

import pytest

from datapath.abi.conntrack import CtFlag, CtKey, Direction
from datapath.abi.policy import PolicyKey
from palomar.drop import DropReason
from palomar.verdict import TraceReason
from tests.kit.bpfnode import TC_ACT_OK, TC_ACT_REDIRECT, TC_ACT_SHOT, BpfNode, ct_key, monotonic_s
from tests.kit.packets import ICMP, NODE_ONE, POD_ONE, POD_TWO, TCP, UDP, WORLD, Host, Packet, between

pytestmark = pytest.mark.bpf

OUT = ct_key(POD_ONE, WORLD, 40000, 80)


def to_world(flags: str, payload: bytes = b"") -> Packet:
    """From POD_ONE's side of the flow OUT."""
    return between(POD_ONE, WORLD).tcp(40000, 80, flags, payload)


def from_world(flags: str, payload: bytes = b"") -> Packet:
    """The answer, as the stack hands it to the pod."""
    return between(WORLD, POD_ONE).macs(POD_ONE.gateway_mac, POD_ONE.mac).tcp(80, 40000, flags, payload)


def exchange(node: BpfNode, *packets: Packet) -> list[int]:
    """Run packets in order through the program of their direction; the trace reason of each."""
    reasons = []
    for packet in packets:
        assert packet.ip is not None
        outgoing = packet.ip.src == POD_ONE.ipv4
        outcome = node.send(POD_ONE, packet) if outgoing else node.receive(POD_ONE, packet)
        reasons.append(int(outcome.traces[-1]["trace_reason"]))
    return reasons


def test_flow_is_new_then_established_then_answered(node: BpfNode) -> None:
    """As seen from the endpoint that opened it."""
    assert exchange(node, to_world("S"), from_world("SA"), to_world("A"), from_world("PA", b"x")) == [
        TraceReason.NEW,
        TraceReason.REPLY,
        TraceReason.ESTABLISHED,
        TraceReason.REPLY,
    ]


def test_counters_are_seen_from_the_endpoint(node: BpfNode) -> None:
    """What the opener sent is tx of its entry and rx of the receiver's."""
    forward = between(POD_ONE, POD_TWO).tcp(40000, 80, "S")
    answer = between(POD_TWO, POD_ONE).tcp(80, 40000, "SA")
    node.send(POD_ONE, forward)
    node.send(POD_TWO, answer)
    node.send(POD_ONE, between(POD_ONE, POD_TWO).tcp(40000, 80, "A"))
    opener = node.ct(ct_key(POD_ONE, POD_TWO, 40000, 80))
    receiver = node.ct(ct_key(POD_ONE, POD_TWO, 40000, 80, direction=Direction.IN))
    assert opener is not None
    assert receiver is not None
    assert (opener.tx_packets, opener.rx_packets) == (2, 1)
    assert (receiver.rx_packets, receiver.tx_packets) == (2, 1)
    assert opener.tx_bytes == 2 * len(forward.bytes())
    assert receiver.tx_bytes == len(answer.bytes())
    assert opener.source_identity == receiver.source_identity == POD_ONE.identity
    assert (opener.tx_flags_seen, opener.rx_flags_seen) == (0x12, 0x12)


def test_handshake_gives_the_round_trip_time(node: BpfNode) -> None:
    """From our SYN to the SYN-ACK, in the entry and in every later event of the flow."""
    exchange(node, to_world("S"))
    trace = node.receive(POD_ONE, from_world("SA")).traces[-1]
    entry = node.ct(OUT)
    assert entry is not None
    assert 0 < entry.rtt_us < 10_000_000
    assert trace["rtt_us"] == entry.rtt_us
    assert node.send(POD_ONE, to_world("A")).traces[-1]["rtt_us"] == entry.rtt_us


def test_repeated_syn_gives_no_sample(node: BpfNode) -> None:
    """Nobody can say which one was answered."""
    exchange(node, to_world("S"), to_world("S"), from_world("SA"))
    entry = node.ct(OUT)
    assert entry is not None
    assert entry.rtt_us == 0


LIFE_OF_TCP = [
    (["S"], [], 60, CtFlag(0)),
    (["S", "A"], ["SA"], 8000, CtFlag.SEEN_NON_SYN),
    (["S", "A", "FA"], ["SA"], 8000, CtFlag.SEEN_NON_SYN | CtFlag.TX_CLOSING),
    (["S", "A"], ["SA", "FA"], 8000, CtFlag.SEEN_NON_SYN | CtFlag.RX_CLOSING),
    (
        ["S", "A", "FA"],
        ["SA", "FA"],
        10,
        CtFlag.SEEN_NON_SYN | CtFlag.RX_CLOSING | CtFlag.TX_CLOSING,
    ),
    (["S"], ["RA"], 10, CtFlag.SEEN_NON_SYN | CtFlag.RX_CLOSING | CtFlag.TX_CLOSING),
    (["A"], [], 8000, CtFlag.SEEN_NON_SYN),
]


@pytest.mark.parametrize(("sent", "received", "lifetime_s", "flags"), LIFE_OF_TCP)
def test_tcp_state_decides_how_long_the_entry_lives(
    node: BpfNode, sent: list[str], received: list[str], lifetime_s: int, flags: CtFlag
) -> None:
    """A handshake that is not finished 60 s, a closed connection 10 s, all else 8000 s."""
    exchange(node, *(to_world(f) for f in sent), *(from_world(f) for f in received))
    entry = node.ct(OUT)
    assert entry is not None
    assert entry.flags == flags
    assert abs(entry.lifetime_s - monotonic_s() - lifetime_s) <= 1


@pytest.mark.parametrize("protocol", [UDP, ICMP])
def test_other_protocols_live_a_minute(node: BpfNode, protocol: int) -> None:
    """Each packet renews it."""
    packet = between(POD_ONE, WORLD)
    node.send(POD_ONE, packet.udp(5000, 53) if protocol == UDP else packet.echo(5000))
    entry = node.ct(ct_key(POD_ONE, WORLD, 5000, 53 if protocol == UDP else 0, protocol))
    assert entry is not None
    assert abs(entry.lifetime_s - monotonic_s() - 60) <= 1


def test_expired_entry_counts_as_absent(node: BpfNode) -> None:
    """Its next packet is judged as a new flow."""
    exchange(node, to_world("S"), from_world("SA"))
    node.age(OUT, monotonic_s() - 10)
    outcome = node.send(POD_ONE, to_world("A"))
    assert outcome.traces[-1]["trace_reason"] == TraceReason.NEW
    assert len(outcome.verdicts) == 1
    entry = node.ct(OUT)
    assert entry is not None
    assert (entry.tx_packets, entry.rx_packets) == (1, 0)


def test_answer_to_an_expired_entry_is_none(node: BpfNode) -> None:
    """It needs a policy of its own."""
    exchange(node, to_world("S"))
    node.age(OUT, monotonic_s() - 10)
    outcome = node.receive(POD_ONE, from_world("SA"))
    assert outcome.traces[-1]["trace_reason"] == TraceReason.NEW
    assert len(outcome.verdicts) == 1


def test_same_ports_after_a_close_are_a_new_flow(node: BpfNode) -> None:
    """A SYN on a closing entry is judged by policy again."""
    exchange(node, to_world("S"), from_world("SA"), to_world("FA"), from_world("FA"))
    outcome = node.send(POD_ONE, to_world("S"))
    assert len(outcome.verdicts) == 1
    entry = node.ct(OUT)
    assert entry is not None
    assert (entry.tx_packets, entry.rx_packets, entry.flags) == (1, 0, CtFlag(0))


def test_opening_syn_never_passes_as_a_reply(node: BpfNode) -> None:
    """A peer we talk with may not open towards us from the port we talk with."""
    exchange(node, to_world("S"), from_world("SA"), to_world("A"))
    node.maps.policy(POD_ONE.endpoint_id).delete(PolicyKey(0, egress=False))
    assert node.receive(POD_ONE, from_world("A")).action == TC_ACT_OK
    outcome = node.receive(POD_ONE, from_world("S"))
    assert outcome.action == TC_ACT_SHOT
    assert outcome.drop["drop_reason"] == DropReason.POLICY_DENIED


def test_server_on_a_high_port_is_answered_too(node: BpfNode) -> None:
    """The guess by port numbers is only about which look-up comes first."""
    client = between(POD_ONE, WORLD).tcp(80, 40000, "S")
    answer = between(WORLD, POD_ONE).macs(POD_ONE.gateway_mac, POD_ONE.mac).tcp(40000, 80, "SA")
    same = between(POD_ONE, WORLD).udp(123, 123)
    same_answer = between(WORLD, POD_ONE).macs(POD_ONE.gateway_mac, POD_ONE.mac).udp(123, 123)
    assert exchange(node, client, answer, same, same_answer) == [
        TraceReason.NEW,
        TraceReason.REPLY,
        TraceReason.NEW,
        TraceReason.REPLY,
    ]


def test_echo_is_tracked_by_its_identifier(node: BpfNode) -> None:
    """Only a request opens; only the reply with its identifier answers."""
    towards = between(POD_ONE, WORLD)
    back = between(WORLD, POD_ONE).macs(POD_ONE.gateway_mac, POD_ONE.mac)
    assert exchange(node, towards.echo(7), towards.echo(7, 2)) == [TraceReason.NEW, TraceReason.ESTABLISHED]
    node.maps.policy(POD_ONE.endpoint_id).delete(PolicyKey(0, egress=False))
    assert exchange(node, back.echo(7, reply=True)) == [TraceReason.REPLY]
    assert node.receive(POD_ONE, back.echo(8, reply=True)).action == TC_ACT_SHOT
    assert node.receive(POD_ONE, back.echo(7)).action == TC_ACT_SHOT


def test_unasked_echo_reply_opens_nothing(node: BpfNode) -> None:
    """Allowed by policy it passes, but leaves no entry that a request could use."""
    node.send(POD_ONE, between(POD_ONE, WORLD).echo(9, reply=True))
    assert list(node.maps.ct.items()) == []


def error_from(sender: Host, quoted: Packet, kind: int = 3, code: int = 1) -> Packet:
    """An ICMP error to POD_ONE."""
    back = between(sender, POD_ONE).macs(POD_ONE.gateway_mac, POD_ONE.mac)
    return back.icmp_error(kind, code, quoted)


@pytest.mark.parametrize(("kind", "code"), [(3, 1), (3, 4), (11, 0), (12, 0)])
@pytest.mark.parametrize(
    "quoted",
    [
        between(POD_ONE, WORLD).tcp(40000, 80, "S"),
        between(POD_ONE, WORLD).udp(40000, 53),
        between(POD_ONE, WORLD).echo(40000),
        between(POD_ONE, WORLD).udp(40000, 53).ipv4(options=b"\x01" * 8),
    ],
    ids=["tcp", "udp", "echo", "options"],
)
def test_error_about_a_flow_of_ours_is_related(node: BpfNode, quoted: Packet, kind: int, code: int) -> None:
    """Whoever on the way sent it; it passes a policy that allows nothing in."""
    node.send(POD_ONE, quoted)
    node.maps.policy(POD_ONE.endpoint_id).delete(PolicyKey(0, egress=False))
    outcome = node.receive(POD_ONE, error_from(NODE_ONE, quoted, kind, code))
    assert outcome.action == TC_ACT_OK
    assert outcome.verdicts == []
    assert outcome.traces[-1]["trace_reason"] == TraceReason.RELATED


def test_error_about_an_answer_of_ours_is_related(node: BpfNode) -> None:
    """The flow may have been opened by the other side."""
    opening = between(WORLD, POD_ONE).macs(POD_ONE.gateway_mac, POD_ONE.mac).udp(5000, 53)
    exchange(node, opening)
    node.maps.policy(POD_ONE.endpoint_id).delete(PolicyKey(0, egress=False))
    answer = between(POD_ONE, WORLD).udp(53, 5000)
    assert exchange(node, error_from(NODE_ONE, answer)) == [TraceReason.RELATED]


def test_error_of_the_pod_about_a_flow_to_it_is_related(node: BpfNode) -> None:
    """Port unreachable: the pod tells its peer."""
    opening = between(POD_ONE, POD_TWO).udp(5000, 53)
    node.send(POD_ONE, opening)
    node.clear_policy(POD_ONE)
    node.clear_policy(POD_TWO)
    outcome = node.send(POD_TWO, between(POD_TWO, POD_ONE).icmp_error(3, 3, opening))
    assert outcome.action == TC_ACT_REDIRECT
    assert outcome.traces[-1]["trace_reason"] == TraceReason.RELATED


UNRELATED = [
    ("a flow that does not exist", lambda: between(POD_ONE, WORLD).udp(40001, 53)),
    ("a packet that was not ours", lambda: between(POD_TWO, WORLD).udp(40000, 53)),
    ("a packet of another protocol", lambda: between(POD_ONE, WORLD).tcp(40000, 53)),
    ("a later fragment", lambda: between(POD_ONE, WORLD).udp(40000, 53).ipv4(fragment_offset=8)),
    ("no IPv4", lambda: between(POD_ONE, WORLD).udp(40000, 53).ipv4(version=6)),
    ("an ICMP error", lambda: between(POD_ONE, WORLD).icmp(3, 1)),
    ("SCTP", lambda: between(POD_ONE, WORLD).raw(132, bytes(12))),
]


@pytest.mark.parametrize(
    ("title", "quoted"), UNRELATED, ids=lambda value: value if isinstance(value, str) else ""
)
def test_error_about_anything_else_is_judged_by_policy(node: BpfNode, title: str, quoted: object) -> None:
    """Quoting at random does not open the door."""
    node.send(POD_ONE, between(POD_ONE, WORLD).udp(40000, 53))
    node.maps.policy(POD_ONE.endpoint_id).delete(PolicyKey(0, egress=False))
    assert callable(quoted)
    outcome = node.receive(POD_ONE, error_from(WORLD, quoted()))
    assert outcome.action == TC_ACT_SHOT
    assert outcome.drop["drop_reason"] == DropReason.POLICY_DENIED


@pytest.mark.parametrize("quoted_bytes", [0, 4, 7])
def test_error_with_too_little_of_the_quoted_packet_is_judged_by_policy(
    node: BpfNode, quoted_bytes: int
) -> None:
    """RFC 792 promises eight bytes."""
    quoted = between(POD_ONE, WORLD).udp(40000, 53)
    node.send(POD_ONE, quoted)
    back = between(WORLD, POD_ONE).macs(POD_ONE.gateway_mac, POD_ONE.mac)
    assert len(node.receive(POD_ONE, back.icmp_error(3, 3, quoted, quoted_bytes)).verdicts) == 1


def test_map_full_of_flows_forgets_old_ones(node: BpfNode) -> None:
    """LRU: a flood opens no hole and closes no door."""
    size = 4096
    entry = None
    for port in range(1024, 1024 + 64):
        node.send(POD_ONE, between(POD_ONE, WORLD).udp(port, 53))
    template = node.ct(ct_key(POD_ONE, WORLD, 1024, 53, UDP))
    assert template is not None
    raw = node.maps.raw("cilium_ct_any4_global")
    for number in range(size + 64):
        key = CtKey(WORLD.ipv4, POD_TWO.ipv4, 53, number, UDP, Direction.OUT)
        raw.update(key.pack(), replace(template, tx_packets=1).pack())
    outcome = node.send(POD_ONE, between(POD_ONE, WORLD).udp(60000, 53))
    assert outcome.action == TC_ACT_OK
    entry = node.ct(ct_key(POD_ONE, WORLD, 60000, 53, UDP))
    assert entry is not None
    assert sum(1 for _ in node.maps.ct.items()) <= size


def test_tcp_and_the_rest_have_maps_of_their_own(node: BpfNode) -> None:
    """The same numbers in TCP and UDP are two flows."""
    exchange(node, to_world("S"), between(POD_ONE, WORLD).udp(40000, 80))
    keys = {key.protocol for key, _ in node.maps.ct.items()}
    assert keys == {TCP, UDP}
