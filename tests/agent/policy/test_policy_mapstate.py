"""Keys, port prefixes, the look-up and differences of policy maps."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.policy.api import PortRange
from agent.policy.mapstate import (
    ALL_PORTS,
    MapEntry,
    PolicyKey,
    PortPrefix,
    diff,
    lookup,
    port_prefixes,
)
from datapath.abi import policy as kernel
from palomar.drop import DropReason
from palomar.verdict import PolicyMatchType

ALLOW, DENY = MapEntry(deny=False), MapEntry(deny=True)

ports = st.integers(0, 65535)
ranges = st.tuples(ports, ports).map(lambda pair: PortRange(6, min(pair), max(pair)))
prefixes = st.one_of(
    st.just(ALL_PORTS),
    ranges.flatmap(lambda found: st.sampled_from(port_prefixes(found))),
    st.just(PortPrefix(17)),
)


def matches(prefix: PortPrefix, protocol: int, port: int) -> bool:
    """Tell the slow way whether a packet is one of the prefix."""
    if prefix.protocol == 0:
        return True
    return prefix.protocol == protocol and format(prefix.dport, "016b").startswith(
        format(port, "016b")[: prefix.dport_prefix_bits]
    )


def test_a_range_splits_into_prefixes() -> None:
    """Aligned, ascending; a whole range is one prefix without bits."""
    assert port_prefixes(PortRange(6, 80, 80)) == (PortPrefix(6, 80, 16),)
    assert port_prefixes(PortRange(6, 64, 127)) == (PortPrefix(6, 64, 10),)
    assert port_prefixes(PortRange(6, 0, 65535)) == (PortPrefix(6, 0, 0),)
    assert port_prefixes(PortRange(1, 0, 0)) == (PortPrefix(1, 0, 16),)
    assert len(port_prefixes(PortRange(6, 1, 65534))) == 30


@given(ranges, ports)
def test_prefixes_of_a_range_hold_exactly_its_ports(found: PortRange, port: int) -> None:
    """Each port in one prefix, no other port in any."""
    holding = [prefix for prefix in port_prefixes(found) if matches(prefix, 6, port)]
    assert len(holding) == (1 if found.first <= port <= found.last else 0)


@given(prefixes, prefixes, ports)
def test_covers_means_every_packet(one: PortPrefix, other: PortPrefix, port: int) -> None:
    """A packet of the covered prefix is one of the covering; the covered one's first packet decides."""
    if one.covers(other):
        for protocol in (6, 17):
            assert not matches(other, protocol, port) or matches(one, protocol, port)
    else:
        last = other.dport | 0xFFFF >> other.dport_prefix_bits
        packets = [(protocol, found) for protocol in (6, 17, 1) for found in (other.dport, last)]
        assert any(matches(other, *packet) and not matches(one, *packet) for packet in packets)


@given(st.integers(0, 2**32 - 1), st.booleans(), prefixes)
def test_keys_are_the_datapaths(identity: int, egress: bool, prefix: PortPrefix) -> None:
    """The datapath takes every key, and knows the same precedence."""
    key = PolicyKey(identity, egress, *prefix)
    there = kernel.PolicyKey(*key)
    assert there.lpm_prefix_length == key.lpm_prefix_length
    assert kernel.PolicyKey.unpack(there.pack()) == there
    assert key.port_prefix == prefix


@pytest.mark.parametrize(
    ("entries", "reason", "match"),
    [
        ({}, DropReason.POLICY_DENIED, PolicyMatchType.NONE),
        ({PolicyKey(5, False): ALLOW}, None, PolicyMatchType.L3_ONLY),
        ({PolicyKey(5, True): ALLOW}, DropReason.POLICY_DENIED, PolicyMatchType.NONE),
        ({PolicyKey(5, False, 6): ALLOW}, None, PolicyMatchType.L3_PROTO),
        ({PolicyKey(5, False, 6, 80, 16): ALLOW}, None, PolicyMatchType.L3_L4),
        ({PolicyKey(5, False, 6, 81, 16): ALLOW}, DropReason.POLICY_DENIED, PolicyMatchType.NONE),
        ({PolicyKey(5, False, 6, 64, 10): ALLOW}, None, PolicyMatchType.L3_L4),
        ({PolicyKey(0, False, 6, 64, 10): ALLOW}, None, PolicyMatchType.L4_ONLY),
        ({PolicyKey(0, False, 6): ALLOW}, None, PolicyMatchType.PROTO_ONLY),
        ({PolicyKey(0, False): ALLOW}, None, PolicyMatchType.ALL),
        (
            {PolicyKey(5, False): DENY, PolicyKey(0, False, 6, 80, 16): ALLOW},
            DropReason.POLICY_DENY,
            PolicyMatchType.L3_ONLY,
        ),
        (
            {PolicyKey(5, False, 6, 80, 16): ALLOW, PolicyKey(0, False): DENY},
            DropReason.POLICY_DENY,
            PolicyMatchType.ALL,
        ),
        (
            {PolicyKey(5, False): ALLOW, PolicyKey(0, False, 6): ALLOW},
            None,
            PolicyMatchType.PROTO_ONLY,
        ),
        (
            {PolicyKey(5, False, 6): ALLOW, PolicyKey(0, False, 6): ALLOW},
            None,
            PolicyMatchType.L3_PROTO,
        ),
        # The longest prefix is all that a look-up sees: resolution must not leave an allow under a deny.
        (
            {PolicyKey(5, False): DENY, PolicyKey(5, False, 6): ALLOW},
            None,
            PolicyMatchType.L3_PROTO,
        ),
    ],
)
def test_the_lookup_decides_as_the_datapath_does(
    entries: dict[PolicyKey, MapEntry], reason: DropReason | None, match: PolicyMatchType
) -> None:
    """One packet, from identity 5 to TCP port 80, against small maps."""
    decision = lookup(entries, 5, egress=False, protocol=6, dport=80)
    assert decision.drop_reason == reason
    assert decision.match is match


def test_differences_lead_from_one_state_to_the_other() -> None:
    """Changed and new entries are written, missing ones deleted, equal ones left alone."""
    one = {PolicyKey(1, False): ALLOW, PolicyKey(2, False): ALLOW, PolicyKey(3, False): ALLOW}
    two = {PolicyKey(1, False): MapEntry(deny=False), PolicyKey(2, False): DENY, PolicyKey(4, False): ALLOW}
    delta = diff(one, two)
    assert delta.upserts == {PolicyKey(2, False): DENY, PolicyKey(4, False): ALLOW}
    assert delta.deletes == (PolicyKey(3, False),)
    assert delta
    assert not diff(one, one)
    assert not diff(one, dict(one))
