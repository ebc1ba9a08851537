"""Every exit of every program is a forward with a trace or a drop with a reason, whatever the packet."""

from ipaddress import IPv4Address, IPv4Network

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.kit.bpfnode import TC_ACT_OK, TC_ACT_REDIRECT, TC_ACT_SHOT, BpfNode, Outcome
from tests.kit.packets import (
    ETH_ARP,
    ETH_IPV4,
    NODE_ONE,
    POD_ONE,
    POD_REMOTE,
    POD_TWO,
    ROUTER_ONE,
    WORLD,
    Packet,
    arp,
    between,
)

pytestmark = pytest.mark.bpf

CAST = [POD_ONE, POD_TWO, POD_REMOTE, NODE_ONE, ROUTER_ONE, WORLD]
ENTRIES = [
    ("pod-one", "cil_from_container"),
    ("pod-one", "cil_to_container"),
    ("pod-one", "handle_policy"),
    ("host", "cil_from_host"),
    ("host", "cil_to_host"),
    ("overlay", "cil_from_overlay"),
]
FUZZ = settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@st.composite
def packets(draw: st.DrawFn) -> Packet:
    """Packets between any two of the cast, of any protocol, some of them strange."""
    source, destination = draw(st.sampled_from(CAST)), draw(st.sampled_from(CAST))
    packet = between(source, destination).ipv4(
        ttl=draw(st.sampled_from([0, 1, 2, 64])),
        options=b"\x01" * 4 * draw(st.integers(0, 10)),
        more_fragments=draw(st.booleans()),
        fragment_offset=draw(st.sampled_from([0, 0, 0, 8])),
    )
    sport, dport = draw(st.integers(0, 65535)), draw(st.integers(0, 65535))
    kind = draw(st.sampled_from(["tcp", "udp", "echo", "icmp", "error", "raw", "arp"]))
    if kind == "tcp":
        return packet.tcp(sport, dport, "".join(sorted(draw(st.sets(st.sampled_from("FSRPAUEC"))))))
    if kind == "udp":
        return packet.udp(sport, dport, draw(st.binary(max_size=40)))
    if kind == "echo":
        return packet.echo(sport, reply=draw(st.booleans()))
    if kind == "icmp":
        return packet.icmp(draw(st.integers(0, 255)), draw(st.integers(0, 255)))
    if kind == "error":
        return packet.icmp_error(
            3, 1, between(destination, source).udp(dport, sport), draw(st.integers(0, 8))
        )
    if kind == "arp":
        return arp(source, destination.ipv4, draw(st.integers(1, 2)))
    return packet.raw(draw(st.integers(0, 255)), draw(st.binary(max_size=40)))


def check_exit(outcome: Outcome, before: bytes) -> None:
    """A drop has one drop event, the last; what goes on has a to-* trace, if it is IPv4."""
    drops = [event for event in outcome.events if event["type"] == 1]
    if outcome.action == TC_ACT_SHOT:
        assert len(drops) == 1
        assert outcome.events[-1]["type"] == 1
        assert outcome.events[-1]["line"] > 0
        return
    assert outcome.action in (TC_ACT_OK, TC_ACT_REDIRECT)
    assert drops == []
    (ether_type,) = {int.from_bytes(before[12:14], "big")}
    if ether_type == ETH_ARP:
        assert outcome.events == []
        return
    assert ether_type == ETH_IPV4
    assert outcome.traces


@pytest.mark.parametrize(("owner", "program"), ENTRIES, ids=str)
def test_any_packet_leaves_by_a_known_exit(node: BpfNode, owner: str, program: str) -> None:
    """Well-formed ones, from the right sender and from wrong ones."""

    @FUZZ
    @given(packet=packets())
    def run(packet: Packet) -> None:
        check_exit(node.run(owner, program, packet), packet.bytes())

    run()


@pytest.mark.parametrize(("owner", "program"), ENTRIES, ids=str)
def test_any_damage_leaves_by_a_known_exit(node: BpfNode, owner: str, program: str) -> None:
    """Bytes flipped behind the Ethernet header, frames cut short."""

    @FUZZ
    @given(
        packet=packets(),
        flips=st.lists(st.tuples(st.integers(14, 80), st.integers(1, 255)), max_size=6),
        cut=st.integers(34, 120),
    )
    def run(packet: Packet, flips: list[tuple[int, int]], cut: int) -> None:
        raw = bytearray(packet.bytes())
        for at, bits in flips:
            if at < len(raw):
                raw[at] ^= bits
        check_exit(node.run(owner, program, bytes(raw[:cut])), bytes(raw))

    run()


@FUZZ
@given(
    prefixes=st.dictionaries(
        st.tuples(st.integers(0, 0xFFFF), st.integers(8, 32)), st.integers(16777217, 16777999), max_size=12
    ),
    low=st.integers(0, 0xFFFF),
)
def test_ipcache_names_the_longest_prefix(
    node: BpfNode, prefixes: dict[tuple[int, int], int], low: int
) -> None:
    """Against an obvious search; 0 entries are the world."""
    networks: dict[IPv4Network, int] = {}
    for (address, bits), identity in prefixes.items():
        networks[IPv4Network((0xC6330000 | address, bits), strict=False)] = identity
    target = IPv4Address(0xC6330000 | low)
    for network, identity in networks.items():
        node.maps.ipcache.upsert(network, identity)
    try:
        outcome = node.send(POD_ONE, between(POD_ONE, WORLD).ipv4(dst=target).udp(1, 2))
    finally:
        for network in networks:
            node.maps.ipcache.delete(network)
    covering = [network for network in networks if target in network]
    expected = networks[max(covering, key=lambda network: network.prefixlen)] if covering else 2
    assert outcome.traces[-1]["dst_identity"] == expected
