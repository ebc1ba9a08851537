"""Every drop reason of the C code: its number, its place in the source, and a packet that causes it."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

import pytest

from datapath.abi.mapspecs import MapSpec, MapType
from datapath.abi.policy import PolicyEntry, PolicyKey
from datapath.events import l2_addresses
from palomar.drop import DropReason
from palomar.verdict import Verdict
from tests.kit.bpfnode import (
    CALL_HANDLE_ARP,
    CALL_HANDLE_IPV4,
    TC_ACT_SHOT,
    BpfNode,
    FromTunnel,
    Outcome,
    context,
)
from tests.kit.packets import (
    ETH_VLAN,
    ICMP,
    NODE_ONE,
    NODE_TWO,
    POD_ONE,
    POD_REMOTE,
    POD_TWO,
    ROUTER_ONE,
    SCTP,
    TCP,
    UDP,
    WORLD,
    Host,
    Packet,
    arp,
    between,
    frame,
    ipv6,
)

BPF = Path(__file__).resolve().parents[2] / "bpf"
UNKNOWN_POD = Host("unknown-pod", IPv4Address("10.1.0.99"), b"\x0a\x00\x0a\x01\x00\x63")
WEB = between(POD_ONE, POD_TWO).tcp(40000, 80, "S")
IPV6 = ipv6(POD_ONE.mac, POD_ONE.gateway_mac, "fd00::1", "fd00::2")
VLAN = frame(POD_ONE.mac, POD_ONE.gateway_mac, ETH_VLAN, bytes(50))


def source_files() -> dict[int, str]:
    """File ids of bpf/lib/source_info.h."""
    rows = re.findall(r'X\((\d+), "([\w.]+)"\)', (BPF / "lib" / "source_info.h").read_text())
    return {int(number): name for number, name in rows}


def reasons_in_c() -> dict[str, int]:
    """Names without DROP_ and numbers of bpf/lib/drop_reasons.h."""
    rows = re.findall(r"\bDROP_(\w+) = (\d+),", (BPF / "lib" / "drop_reasons.h").read_text())
    return {name: int(number) for name, number in rows}


Cause = Callable[[BpfNode, FromTunnel], Outcome]


@dataclass(frozen=True)
class Case:
    """One way to be dropped."""

    title: str
    reason: DropReason
    file: str
    cause: Cause


def sends(packet: Packet, pod: Host = POD_ONE) -> Cause:
    """The pod sends it."""
    return lambda node, _: node.send(pod, packet)


def receives(packet: Packet, pod: Host = POD_ONE) -> Cause:
    """The stack sends it to the pod."""
    return lambda node, _: node.receive(pod, packet)


def from_host(packet: Packet) -> Cause:
    """The stack sends it to cilium_host."""
    return lambda node, _: node.run("host", "cil_from_host", packet)


def to_host(packet: Packet) -> Cause:
    """It comes to the host."""
    return lambda node, _: node.run("host", "cil_to_host", packet)


def from_overlay(packet: Packet) -> Cause:
    """It comes out of the tunnel device without a key."""
    return lambda node, _: node.run("overlay", "cil_from_overlay", packet)


def to_overlay(packet: Packet) -> Cause:
    """It leaves by the tunnel device without a key."""
    return lambda node, _: node.run("overlay", "cil_to_overlay", packet)


def tunnelled(packet: Packet, identity: int = POD_REMOTE.identity) -> Cause:
    """It comes out of the tunnel with an identity."""
    return lambda _, from_tunnel: from_tunnel(packet, identity)


def with_policy(key: PolicyKey | None, entry: PolicyEntry | None = None) -> Cause:
    """POD_ONE sends under a policy of one entry, or none."""

    def cause(node: BpfNode, _: FromTunnel) -> Outcome:
        node.clear_policy(POD_ONE)
        if key is not None and entry is not None:
            node.policy(POD_ONE, key, entry)
        return node.send(POD_ONE, WEB)

    return cause


def special_entry(byte_at: int, value: bytes) -> Cause:
    """POD_ONE sends under an entry with bytes that the Python side never writes."""

    def cause(node: BpfNode, _: FromTunnel) -> Outcome:
        node.clear_policy(POD_ONE)
        key = PolicyKey(0, egress=True)
        raw = bytearray(PolicyEntry(deny=False, cookie=5).pack(key))
        raw[byte_at : byte_at + len(value)] = value
        node.maps.policy(POD_ONE.endpoint_id).raw.update(key.pack(), bytes(raw))
        return node.send(POD_ONE, WEB)

    return cause


def without_call(slot: int, packet: Packet) -> Cause:
    """POD_ONE sends while a slot of its tail calls is empty."""

    def cause(node: BpfNode, _: FromTunnel) -> Outcome:
        node.calls(POD_ONE).delete(slot)
        return node.send(POD_ONE, packet)

    return cause


def without_policy_program(node: BpfNode, _: FromTunnel) -> Outcome:
    """POD_ONE sends to POD_TWO while that has no policy program."""
    node.maps.call_policy.delete(POD_TWO.endpoint_id)
    return node.send(POD_ONE, WEB)


def conntrack_full(node: BpfNode, _: FromTunnel) -> Outcome:
    """The map for UDP is a plain hash with one place, and that is taken."""
    spec = MapSpec("plt_full", MapType.HASH, 14, 64, 1)
    with node.endpoint_with_map(POD_ONE, "cilium_ct_any4_global", spec, {bytes(14): bytes(64)}) as loaded:
        fd = loaded.program_fd("cil_from_container")
        return node.run_fd(fd, between(POD_ONE, WORLD).udp(5000, 53))


def unknown_local_pod(node: BpfNode, _: FromTunnel) -> Outcome:
    """POD_ONE asks for an address of its own node that the ipcache still knows."""
    node.maps.ipcache.upsert(IPv4Network(UNKNOWN_POD.ipv4), 1003, NODE_ONE.ipv4)
    return node.send(POD_ONE, between(POD_ONE, UNKNOWN_POD).udp(1, 2))


def forged_from_stack(source: Host) -> Cause:
    """Somebody outside sends to POD_ONE with a pod's address; the stack routes it to us."""
    return receives(between(source, POD_ONE).macs(NODE_ONE.mac, POD_ONE.mac).tcp(40000, 80, "S"))


D = DropReason
CASES = [
    Case(
        "sender MAC is another's",
        D.INVALID_SOURCE_MAC,
        "bpf_lxc.c",
        sends(WEB.macs(source=POD_TWO.mac)),
    ),
    Case(
        "a forged MAC is named before a fragment",
        D.INVALID_SOURCE_MAC,
        "bpf_lxc.c",
        sends(WEB.ipv4(fragment_offset=100).macs(source=POD_TWO.mac)),
    ),
    Case(
        "ARP with another's MAC in it",
        D.INVALID_SOURCE_MAC,
        "arp.h",
        sends(arp(POD_ONE, ROUTER_ONE.ipv4, sender_mac=POD_TWO.mac)),
    ),
    Case(
        "ARP in a frame with another's MAC",
        D.INVALID_SOURCE_MAC,
        "arp.h",
        sends(arp(POD_ONE, ROUTER_ONE.ipv4).macs(source=POD_TWO.mac)),
    ),
    Case(
        "sender address is another's",
        D.INVALID_SOURCE_IP,
        "bpf_lxc.c",
        sends(WEB.ipv4(src=POD_TWO.ipv4)),
    ),
    Case(
        "ARP with another's address",
        D.INVALID_SOURCE_IP,
        "arp.h",
        sends(arp(POD_ONE, ROUTER_ONE.ipv4, sender_ipv4=POD_TWO.ipv4)),
    ),
    Case("a local pod's address from outside", D.INVALID_SOURCE_IP, "eps.h", forged_from_stack(POD_TWO)),
    Case("a remote pod's address from outside", D.INVALID_SOURCE_IP, "eps.h", forged_from_stack(POD_REMOTE)),
    Case(
        "a pod's address from outside towards the tunnel",
        D.INVALID_SOURCE_IP,
        "eps.h",
        from_host(between(POD_TWO, POD_REMOTE).tcp(40000, 80, "S")),
    ),
    Case("no policy entry", D.POLICY_DENIED, "policy.h", with_policy(None)),
    Case(
        "policy allows another port",
        D.POLICY_DENIED,
        "policy.h",
        with_policy(PolicyKey(0, True, TCP, 443, 16), PolicyEntry(deny=False, cookie=5)),
    ),
    Case(
        "policy allows the other direction",
        D.POLICY_DENIED,
        "policy.h",
        with_policy(PolicyKey(0, False), PolicyEntry(deny=False, cookie=5)),
    ),
    Case(
        "policy denies the identity",
        D.POLICY_DENY,
        "policy.h",
        with_policy(PolicyKey(POD_TWO.identity, True), PolicyEntry(deny=True, cookie=5)),
    ),
    Case(
        "policy denies everybody",
        D.POLICY_DENY,
        "policy.h",
        with_policy(PolicyKey(0, True), PolicyEntry(deny=True, cookie=5)),
    ),
    Case(
        "policy wants a proxy",
        D.PROXY_REDIRECTION_NOT_SUPPORTED_FOR_PROTOCOL,
        "policy.h",
        special_entry(0, b"\x10\x00"),
    ),
    Case("policy wants authentication", D.AUTH_REQUIRED, "policy.h", special_entry(3, b"\x01")),
    # A header cut short takes the same line; the kernel's test run refuses to make such a packet.
    Case("IPv4 says version 5", D.INVALID_PACKET_DROPPED, "ipv4.h", sends(WEB.ipv4(version=5))),
    Case("IPv4 header of 16 bytes", D.INVALID_PACKET_DROPPED, "ipv4.h", sends(WEB.ipv4(ihl=4))),
    Case(
        "ARP for another kind of network",
        D.INVALID_PACKET_DROPPED,
        "arp.h",
        sends(arp(POD_ONE, ROUTER_ONE.ipv4, hardware=6)),
    ),
    Case(
        "ARP cut short",
        D.INVALID_PACKET_DROPPED,
        "arp.h",
        sends(arp(POD_ONE, ROUTER_ONE.ipv4).truncate(30)),
    ),
    Case(
        "TCP header cut short",
        D.CT_TRUNCATED_OR_INVALID_HEADER,
        "ipv4.h",
        sends(WEB.truncate(14 + 20 + 16)),
    ),
    Case(
        "options reach beyond the packet",
        D.CT_TRUNCATED_OR_INVALID_HEADER,
        "ipv4.h",
        sends(WEB.ipv4(ihl=15)),
    ),
    Case(
        "TCP header of 16 bytes",
        D.CT_TRUNCATED_OR_INVALID_HEADER,
        "ipv4.h",
        sends(between(POD_ONE, POD_TWO).tcp(1, 2, "S", data_offset=4)),
    ),
    Case(
        "UDP header cut short",
        D.CT_TRUNCATED_OR_INVALID_HEADER,
        "ipv4.h",
        sends(between(POD_ONE, POD_TWO).udp(1, 2).truncate(14 + 20 + 6)),
    ),
    Case(
        "ICMP header cut short",
        D.CT_TRUNCATED_OR_INVALID_HEADER,
        "ipv4.h",
        sends(between(POD_ONE, POD_TWO).echo(1).truncate(14 + 20 + 4)),
    ),
    Case(
        "SCTP",
        D.CT_UNKNOWN_L4_PROTOCOL,
        "ipv4.h",
        sends(between(POD_ONE, POD_TWO).raw(SCTP, bytes(12))),
    ),
    Case("IPv6 from a pod", D.UNSUPPORTED_L3_PROTOCOL, "bpf_lxc.c", sends(IPV6)),
    Case("IPv6 to a pod", D.UNSUPPORTED_L3_PROTOCOL, "bpf_lxc.c", receives(IPV6)),
    Case("IPv6 from the host", D.UNSUPPORTED_L3_PROTOCOL, "bpf_host.c", from_host(IPV6)),
    Case("IPv6 to the host", D.UNSUPPORTED_L3_PROTOCOL, "bpf_host.c", to_host(IPV6)),
    Case("IPv6 from the tunnel", D.UNSUPPORTED_L3_PROTOCOL, "bpf_overlay.c", from_overlay(IPV6)),
    Case("VLAN from a pod", D.UNSUPPORTED_L2_PROTOCOL, "bpf_lxc.c", sends(VLAN)),
    Case("VLAN to a pod", D.UNSUPPORTED_L2_PROTOCOL, "bpf_lxc.c", receives(VLAN)),
    Case("VLAN from the host", D.UNSUPPORTED_L2_PROTOCOL, "bpf_host.c", from_host(VLAN)),
    Case("VLAN to the host", D.UNSUPPORTED_L2_PROTOCOL, "bpf_host.c", to_host(VLAN)),
    Case("VLAN from the tunnel", D.UNSUPPORTED_L2_PROTOCOL, "bpf_overlay.c", from_overlay(VLAN)),
    Case("no IPv4 stage", D.MISSED_TAIL_CALL, "bpf_lxc.c", without_call(CALL_HANDLE_IPV4, WEB)),
    Case(
        "no ARP stage",
        D.MISSED_TAIL_CALL,
        "bpf_lxc.c",
        without_call(CALL_HANDLE_ARP, arp(POD_ONE, ROUTER_ONE.ipv4)),
    ),
    Case(
        "out of the tunnel without a key",
        D.ERROR_RETRIEVING_TUNNEL_KEY,
        "encap.h",
        from_overlay(between(POD_REMOTE, POD_ONE).tcp(1, 2, "S")),
    ),
    Case(
        "into the tunnel without a key",
        D.ERROR_RETRIEVING_TUNNEL_KEY,
        "bpf_overlay.c",
        to_overlay(between(POD_ONE, POD_REMOTE).tcp(1, 2, "S")),
    ),
    Case(
        "tunnel says unknown",
        D.INVALID_IDENTITY,
        "encap.h",
        tunnelled(between(POD_REMOTE, POD_ONE).udp(1, 2), 0),
    ),
    Case(
        "tunnel says host",
        D.INVALID_IDENTITY,
        "encap.h",
        tunnelled(between(POD_REMOTE, POD_ONE).udp(1, 2), 1),
    ),
    Case(
        "a pod asks for an address of this node that nobody has",
        D.STALE_OR_UNROUTABLE_IP,
        "bpf_lxc.c",
        unknown_local_pod,
    ),
    Case(
        "the host asks for a pod that nobody has",
        D.STALE_OR_UNROUTABLE_IP,
        "bpf_host.c",
        from_host(between(ROUTER_ONE, UNKNOWN_POD).udp(1, 2)),
    ),
    Case(
        "the tunnel brings a packet for a pod that is gone",
        D.STALE_OR_UNROUTABLE_IP,
        "bpf_overlay.c",
        tunnelled(between(POD_REMOTE, UNKNOWN_POD).udp(1, 2)),
    ),
    Case("conntrack takes no entry", D.CT_MAP_INSERTION_FAILED, "conntrack.h", conntrack_full),
    Case(
        "a later fragment",
        D.IP_FRAGMENTATION_NOT_SUPPORTED,
        "ipv4.h",
        sends(between(POD_ONE, POD_TWO).raw(UDP, bytes(64)).ipv4(fragment_offset=10)),
    ),
    Case(
        "a later fragment out of the tunnel",
        D.IP_FRAGMENTATION_NOT_SUPPORTED,
        "ipv4.h",
        tunnelled(between(POD_REMOTE, POD_ONE).raw(ICMP, bytes(64)).ipv4(fragment_offset=10)),
    ),
    Case("TTL 1 to a local pod", D.TTL_EXCEEDED, "ipv4.h", sends(WEB.ipv4(ttl=1))),
    Case("TTL 0 to a local pod", D.TTL_EXCEEDED, "ipv4.h", sends(WEB.ipv4(ttl=0))),
    Case("the pod has no policy program", D.DROP_EP_NOT_READY, "l3.h", without_policy_program),
]


@pytest.mark.bpf
@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.reason.name}-{case.title}")
def test_packet_is_dropped_for_its_reason(case: Case, node: BpfNode, from_tunnel: FromTunnel) -> None:
    """The packet goes no further, the event names reason, file and line, and the metrics count it."""
    before = node.dropped(case.reason)
    outcome = case.cause(node, from_tunnel)
    assert outcome.action == TC_ACT_SHOT
    event = outcome.drop
    assert event["subtype"] == event["drop_reason"] == case.reason
    assert event["verdict"] == Verdict.DROPPED
    assert outcome.events[-1]["seq"] == event["seq"], "the drop is the last thing said of a packet"
    assert node.dropped(case.reason) == before + 1

    assert source_files()[int(event["file"])] == case.file
    (path,) = BPF.rglob(case.file)
    assert "DROP(" in path.read_text().splitlines()[int(event["line"]) - 1]


@pytest.mark.bpf
def test_drop_event_carries_both_macs(node: BpfNode) -> None:
    """Who sent a forged packet is seen by its MACs."""
    outcome = node.send(POD_ONE, WEB.macs(source=POD_TWO.mac))
    assert l2_addresses(outcome.drop) == (POD_TWO.mac, POD_ONE.gateway_mac)


def test_every_reason_of_the_c_code_is_caused_here() -> None:
    """A new reason needs a case above."""
    assert {case.reason for case in CASES} == set(reasons_in_c().values())


def test_numbers_are_the_vocabulary_s() -> None:
    """C and palomar/drop.py say the same number for the same name."""
    assert reasons_in_c() == {name: DropReason[name].value for name in reasons_in_c()}


def test_every_reason_that_is_defined_is_used() -> None:
    """No reason lies about, no place drops for one that is not defined."""
    text = "".join(path.read_text() for path in [*BPF.glob("*.c"), *BPF.glob("lib/*.h")])
    for name in reasons_in_c():
        assert len(re.findall(rf"\bDROP_{name}\b", text)) > 1, name


def test_every_file_that_drops_or_counts_has_a_number() -> None:
    """A file that is missing in source_info.h would be 0 in events."""
    using = {
        path.name
        for path in [*BPF.glob("*.c"), *BPF.glob("lib/*.h")]
        if re.search(r"\b(DROP|METRICS_FORWARDED)\(\w", re.sub(r"#define.*", "", path.read_text()))
    }
    assert using - {"drop.h", "metrics.h"} <= set(source_files().values())


def test_the_cast_is_what_the_cases_think() -> None:
    """POD_REMOTE is behind NODE_TWO; a context is accepted as struct __sk_buff."""
    assert POD_REMOTE.node == NODE_TWO.ipv4
    assert len(context()) == 192
