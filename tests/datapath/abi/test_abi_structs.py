"""Keys and values agree with the C structs through BTF, and come back as they were packed."""

from dataclasses import fields
from ipaddress import IPv4Address, IPv4Network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datapath.abi.addresses import EndpointInfo, EndpointKey, IpcacheEntry, IpcacheKey, TunnelEntry, TunnelKey
from datapath.abi.conntrack import CtEntry, CtFlag, CtKey, Direction
from datapath.abi.counters import MetricsKey
from datapath.abi.policy import PolicyEntry, PolicyKey
from datapath.config import OBJECT_DIR
from datapath.loader import BpfObject

ONES = IPv4Address("255.255.255.255")
ZERO = IPv4Address("0.0.0.0")
MAC1, MAC0 = b"\xff" * 6, bytes(6)
U16, U32, U64 = (1 << 16) - 1, (1 << 32) - 1, (1 << 64) - 1


def ct(**values: int) -> bytes:
    """A conntrack value with only these fields set."""
    names = [field.name for field in fields(CtEntry)]
    return CtEntry(**{name: values.get(name, 0) for name in names}).pack()  # type: ignore[arg-type]  # all ints


def policy_value(**fields: int) -> bytes:
    key = PolicyKey(0, False)
    return PolicyEntry(**{"deny": False, "cookie": 0, **fields}).pack(key)  # type: ignore[arg-type]  # all ints


# (C struct, C member, bytes with all bits of only that member set, size in bytes or None for a bit field)
MEMBERS = [
    ("ipcache_key", "ip4", IpcacheKey(IPv4Network("255.255.255.255/32")).pack(), {0: 64, 7: 1}),
    ("remote_endpoint_info", "sec_label", IpcacheEntry(U32).pack(), {}),
    ("remote_endpoint_info", "tunnel_endpoint", IpcacheEntry(0, ONES).pack(), {}),
    ("remote_endpoint_info", "key", IpcacheEntry(0, None, 255).pack(), {}),
    ("endpoint_key", "ip4", EndpointKey(ONES).pack(), {16: 1}),
    ("endpoint_key", "family", EndpointKey(ZERO).pack(), None),
    ("endpoint_info", "ifindex", EndpointInfo(U32, 0, MAC0, MAC0).pack(), {}),
    ("endpoint_info", "lxc_id", EndpointInfo(0, U16, MAC0, MAC0).pack(), {}),
    ("endpoint_info", "flags", EndpointInfo(0, 0, MAC0, MAC0, flags=U32).pack(), {}),
    ("endpoint_info", "sec_id", EndpointInfo(0, 0, MAC0, MAC0, identity=U32).pack(), {}),
    ("endpoint_info", "parent_ifindex", EndpointInfo(0, 0, MAC0, MAC0, parent_ifindex=U32).pack(), {}),
    ("policy_key", "sec_label", PolicyKey(U32, False).pack(), {0: 40}),
    ("policy_key", "protocol", PolicyKey(0, False, 255).pack(), {0: 48}),
    ("policy_key", "dport", PolicyKey(0, False, 0 + 6, U16, 16).pack(), {0: 64, 9: 6}),
    ("policy_entry", "proxy_port", policy_value(proxy_port=U16), {}),
    ("policy_entry", "proxy_port_priority", policy_value(priority=255), {}),
    ("policy_entry", "cookie", policy_value(cookie=U32), {}),
    ("ipv4_ct_tuple", "daddr", CtKey(ONES, ZERO, 0, 0, 0, Direction.OUT).pack(), {}),
    ("ipv4_ct_tuple", "saddr", CtKey(ZERO, ONES, 0, 0, 0, Direction.OUT).pack(), {}),
    ("ipv4_ct_tuple", "dport", CtKey(ZERO, ZERO, U16, 0, 0, Direction.OUT).pack(), {}),
    ("ipv4_ct_tuple", "sport", CtKey(ZERO, ZERO, 0, U16, 0, Direction.OUT).pack(), {}),
    ("ipv4_ct_tuple", "nexthdr", CtKey(ZERO, ZERO, 0, 0, 255, Direction.OUT).pack(), {}),
    ("ct_entry", "rx_packets", ct(rx_packets=U64), {}),
    ("ct_entry", "rx_bytes", ct(rx_bytes=U64), {}),
    ("ct_entry", "tx_packets", ct(tx_packets=U64), {}),
    ("ct_entry", "tx_bytes", ct(tx_bytes=U64), {}),
    ("ct_entry", "lifetime", ct(lifetime_s=U32), {}),
    ("ct_entry", "flags", ct(flags=U16), {}),
    ("ct_entry", "rev_nat", ct(rev_nat=U16), {}),
    ("ct_entry", "policy_revision", ct(policy_revision=U16), {}),
    ("ct_entry", "tx_flags_seen", ct(tx_flags_seen=255), {}),
    ("ct_entry", "rx_flags_seen", ct(rx_flags_seen=255), {}),
    ("ct_entry", "src_sec_id", ct(source_identity=U32), {}),
    ("ct_entry", "last_tx_report", ct(last_tx_report_s=U32), {}),
    ("ct_entry", "last_rx_report", ct(last_rx_report_s=U32), {}),
    ("ct_entry", "rtt_us", ct(rtt_us=U32), {}),
    ("ct_entry", "policy_cookie", ct(policy_cookie=U32), {}),
    ("tunnel_key", "ip4", TunnelKey(ONES).pack(), {16: 1}),
    ("tunnel_value", "ip4", TunnelEntry(ONES).pack(), {16: 1}),
    ("tunnel_value", "key", TunnelEntry(ZERO, 255).pack(), {16: 1}),
    ("metrics_key", "reason", MetricsKey(255, 0, 0, 0).pack(), {}),
    ("metrics_key", "line", MetricsKey(0, 0, U16, 0).pack(), {}),
    ("metrics_key", "file", MetricsKey(0, 0, 0, 255).pack(), {}),
]


@pytest.fixture(scope="module")
def lxc() -> BpfObject:
    """The endpoint's object, opened for its BTF only."""
    path = OBJECT_DIR / "bpf_lxc.o"
    assert path.exists(), "run `make bpf` first"
    return BpfObject(path)


@pytest.mark.parametrize(("struct", "member", "raw", "fixed"), MEMBERS)
def test_members_lie_where_the_c_struct_has_them(
    lxc: BpfObject, struct: str, member: str, raw: bytes, fixed: dict[int, int] | None
) -> None:
    """Setting one field changes exactly that C member's bytes (`fixed`: bytes that are never zero)."""
    assert len(raw) == lxc.struct_size(struct)
    offset_bits, size = lxc.struct_layout(struct)[member]
    offset = offset_bits // 8
    if fixed is None:
        assert raw[offset] == 1
        return
    for position, value in fixed.items():
        assert raw[position] == value
    changed = {i for i, byte in enumerate(raw) if byte and i not in fixed}
    assert changed == set(range(offset, offset + size))


@pytest.mark.parametrize("offset", [16, 24])
def test_macs_lie_in_the_low_six_bytes(lxc: BpfObject, offset: int) -> None:
    """A MAC is six bytes in memory order in a u64."""
    layout = lxc.struct_layout("endpoint_info")
    assert layout["mac"] == (16 * 8, 8)
    assert layout["node_mac"] == (24 * 8, 8)
    macs = {16: MAC0, 24: MAC0} | {offset: MAC1}
    raw = EndpointInfo(0, 0, macs[16], macs[24]).pack()
    assert {i for i, byte in enumerate(raw) if byte} == set(range(offset, offset + 6))


addresses = st.integers(0, U32).map(IPv4Address)
networks = st.builds(
    lambda address, bits: IPv4Network((address, bits), strict=False), addresses, st.integers(0, 32)
)


@st.composite
def policy_keys(draw: st.DrawFn) -> PolicyKey:
    protocol = draw(st.integers(0, 255))
    bits = draw(st.integers(0, 16)) if protocol else 0
    dport = draw(st.integers(0, U16)) & (0xFFFF << (16 - bits)) & 0xFFFF
    return PolicyKey(draw(st.integers(0, U32)), draw(st.booleans()), protocol, dport, bits)


@given(networks, policy_keys(), st.booleans(), st.integers(0, U32), st.integers(0, U16))
def test_round_trip(net: IPv4Network, key: PolicyKey, deny: bool, cookie: int, port: int) -> None:
    """What is packed is read back the same."""
    assert IpcacheKey.unpack(IpcacheKey(net).pack()) == IpcacheKey(net)
    assert PolicyKey.unpack(key.pack()) == key
    entry = PolicyEntry(deny, cookie, port)
    assert PolicyEntry.unpack(entry.pack(key)) == entry
    tuple_ = CtKey(net.network_address, net.broadcast_address, port, port ^ 0xFF, 6, Direction.IN)
    assert CtKey.unpack(tuple_.pack()) == tuple_
    value = CtEntry(1, 2, 3, 4, cookie, CtFlag.TX_CLOSING, 0, port, 1, 2, cookie, 5, 6, 7, cookie)
    assert CtEntry.unpack(value.pack()) == value
    tunnel = TunnelEntry(net.network_address, 1)
    assert TunnelEntry.unpack(tunnel.pack()) == tunnel
