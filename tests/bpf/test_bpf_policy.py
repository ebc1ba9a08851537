"""Policy in the kernel: which entry decides, what is said of it, and what happens when it changes."""

from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from datapath.abi.policy import PolicyEntry, PolicyKey
from palomar.drop import DropReason
from palomar.verdict import PolicyMatchType, TraceReason, Verdict
from tests.kit.bpfnode import TC_ACT_OK, TC_ACT_REDIRECT, TC_ACT_SHOT, BpfNode, ct_key
from tests.kit.packets import ICMP, POD_ONE, POD_REMOTE, POD_TWO, TCP, UDP, WORLD, Packet, between

pytestmark = pytest.mark.bpf

M = PolicyMatchType
PEER = POD_REMOTE.identity
SYN = between(POD_ONE, POD_REMOTE).tcp(40000, 80, "S")


def allow(cookie: int, priority: int = 0) -> PolicyEntry:
    """An entry that lets in."""
    return PolicyEntry(deny=False, cookie=cookie, priority=priority)


def deny(cookie: int) -> PolicyEntry:
    """An entry that does not."""
    return PolicyEntry(deny=True, cookie=cookie)


def egress(identity: int, protocol: int = 0, port: int = 0, bits: int | None = None) -> PolicyKey:
    """A key of the egress direction; a port is exact unless `bits` says otherwise."""
    return PolicyKey(identity, True, protocol, port, bits if bits is not None else (16 if port else 0))


Entries = dict[PolicyKey, PolicyEntry]

MATCHES: list[tuple[str, Entries, PolicyMatchType, int]] = [
    ("identity", {egress(PEER): allow(1)}, M.L3_ONLY, 1),
    ("identity and protocol", {egress(PEER, TCP): allow(1)}, M.L3_PROTO, 1),
    ("identity and port", {egress(PEER, TCP, 80): allow(1)}, M.L3_L4, 1),
    ("identity and port range", {egress(PEER, TCP, 64, 10): allow(1)}, M.L3_L4, 1),
    ("any", {egress(0): allow(1)}, M.ALL, 1),
    ("any and protocol", {egress(0, TCP): allow(1)}, M.PROTO_ONLY, 1),
    ("any and port", {egress(0, TCP, 80): allow(1)}, M.L4_ONLY, 1),
    ("longer of two of the identity", {egress(PEER): allow(1), egress(PEER, TCP, 80): allow(2)}, M.L3_L4, 2),
    (
        "longer of any beats the identity",
        {egress(PEER): allow(1), egress(0, TCP, 80): allow(2)},
        M.L4_ONLY,
        2,
    ),
    ("identity wins a draw", {egress(PEER, TCP, 80): allow(1), egress(0, TCP, 80): allow(2)}, M.L3_L4, 1),
    ("identity wins against shorter", {egress(PEER, TCP): allow(1), egress(0): allow(2)}, M.L3_PROTO, 1),
    ("priority of any beats length", {egress(PEER, TCP, 80): allow(1), egress(0): allow(2, 7)}, M.ALL, 2),
    (
        "priority of the identity beats length",
        {egress(PEER): allow(1, 7), egress(0, TCP, 80): allow(2)},
        M.L3_ONLY,
        1,
    ),
]


@pytest.mark.parametrize(
    ("title", "entries", "match", "cookie"), MATCHES, ids=lambda v: v if isinstance(v, str) else ""
)
def test_deciding_entry_is_named(
    node: BpfNode, title: str, entries: Entries, match: PolicyMatchType, cookie: int
) -> None:
    """The verdict says how specific the entry was and carries its cookie; later events carry it too."""
    node.clear_policy(POD_ONE)
    for key, entry in entries.items():
        node.policy(POD_ONE, key, entry)
    outcome = node.send(POD_ONE, SYN)
    assert outcome.action == TC_ACT_REDIRECT
    (verdict,) = outcome.verdicts
    assert (verdict["match_type"], verdict["policy_cookie"]) == (match, cookie)
    assert outcome.traces[-1]["policy_cookie"] == cookie


DENIALS: list[tuple[str, Entries, DropReason, PolicyMatchType, int]] = [
    ("nothing", {}, DropReason.POLICY_DENIED, M.NONE, 0),
    ("another identity", {egress(9): allow(1)}, DropReason.POLICY_DENIED, M.NONE, 0),
    ("another protocol", {egress(0, UDP, 80): allow(1)}, DropReason.POLICY_DENIED, M.NONE, 0),
    (
        "deny of the identity",
        {egress(PEER): deny(1), egress(0, TCP, 80): allow(2)},
        DropReason.POLICY_DENY,
        M.L3_ONLY,
        1,
    ),
    ("deny of any", {egress(0): deny(1), egress(PEER, TCP, 80): allow(2)}, DropReason.POLICY_DENY, M.ALL, 1),
    (
        "deny of the port",
        {egress(0): allow(1), egress(0, TCP, 80): deny(2)},
        DropReason.POLICY_DENY,
        M.L4_ONLY,
        2,
    ),
]


@pytest.mark.parametrize(
    ("title", "entries", "reason", "match", "cookie"), DENIALS, ids=lambda v: v if isinstance(v, str) else ""
)
def test_denial_is_a_verdict_and_a_drop(
    node: BpfNode,
    title: str,
    entries: Entries,
    reason: DropReason,
    match: PolicyMatchType,
    cookie: int,
) -> None:
    """Both name the reason and the entry; nothing is remembered of the flow."""
    node.clear_policy(POD_ONE)
    for key, entry in entries.items():
        node.policy(POD_ONE, key, entry)
    outcome = node.send(POD_ONE, SYN)
    assert outcome.action == TC_ACT_SHOT
    (verdict,) = outcome.verdicts
    assert verdict["verdict"] == Verdict.DROPPED
    assert (verdict["drop_reason"], verdict["match_type"]) == (reason, match)
    assert verdict["policy_cookie"] == outcome.drop["policy_cookie"] == cookie
    assert outcome.drop["drop_reason"] == reason
    assert node.ct(ct_key(POD_ONE, POD_REMOTE, 40000, 80)) is None


@pytest.mark.parametrize(("kind", "passes"), [(8, True), (13, False)])
def test_icmp_is_judged_by_its_type(node: BpfNode, kind: int, passes: bool) -> None:
    """The type stands where a port would."""
    node.clear_policy(POD_ONE)
    node.policy(POD_ONE, egress(0, ICMP, 8), allow(1))
    action = node.send(POD_ONE, between(POD_ONE, WORLD).icmp(kind)).action
    assert action == (TC_ACT_OK if passes else TC_ACT_SHOT)


def test_type_without_state_is_judged_every_time(node: BpfNode) -> None:
    """A timestamp request leaves no entry."""
    packet = between(POD_ONE, WORLD).icmp(13)
    assert [len(node.send(POD_ONE, packet).verdicts) for _ in range(2)] == [1, 1]


def test_established_flow_costs_no_verdict(node: BpfNode) -> None:
    """Also when the policy map was changed but the revision has not moved."""
    node.send(POD_ONE, SYN)
    node.clear_policy(POD_ONE)
    outcome = node.send(POD_ONE, between(POD_ONE, POD_REMOTE).tcp(40000, 80, "A"))
    assert (outcome.action, outcome.verdicts) == (TC_ACT_REDIRECT, [])


def established(node: BpfNode) -> tuple[Packet, Packet]:
    """Open POD_ONE -> WORLD:80 and return a packet of each direction."""
    node.send(POD_ONE, between(POD_ONE, WORLD).tcp(40000, 80, "S"))
    back = between(WORLD, POD_ONE).macs(POD_ONE.gateway_mac, POD_ONE.mac)
    node.receive(POD_ONE, back.tcp(80, 40000, "SA"))
    return between(POD_ONE, WORLD).tcp(40000, 80, "A"), back.tcp(80, 40000, "A")


def test_revoked_policy_stops_both_directions_of_a_live_flow(node: BpfNode) -> None:
    """And allowing it again lets it go on."""
    forward, reply = established(node)
    node.maps.policy(POD_ONE.endpoint_id).delete(egress(0))
    node.maps.bump_policy_revision(POD_ONE.endpoint_id)
    for _ in range(2):
        outcome = node.receive(POD_ONE, reply)
        assert (outcome.action, outcome.drop["drop_reason"]) == (TC_ACT_SHOT, DropReason.POLICY_DENIED)
        outcome = node.send(POD_ONE, forward)
        assert (outcome.action, outcome.drop["drop_reason"]) == (TC_ACT_SHOT, DropReason.POLICY_DENIED)
        (verdict,) = outcome.verdicts
        assert (verdict["verdict"], verdict["trace_reason"]) == (Verdict.DROPPED, TraceReason.ESTABLISHED)
    node.policy(POD_ONE, egress(0), allow(3))
    node.maps.bump_policy_revision(POD_ONE.endpoint_id)
    assert node.receive(POD_ONE, reply).action == TC_ACT_OK
    assert node.send(POD_ONE, forward).action == TC_ACT_OK


def test_flow_that_another_rule_now_allows_says_so_once(node: BpfNode) -> None:
    """The verdict of the change carries the new cookie; then all is quiet again."""
    forward, reply = established(node)
    node.policy(POD_ONE, egress(0), allow(77))
    node.maps.bump_policy_revision(POD_ONE.endpoint_id)
    assert node.receive(POD_ONE, reply).verdicts == []
    (verdict,) = node.send(POD_ONE, forward).verdicts
    assert (verdict["policy_cookie"], verdict["verdict"]) == (77, Verdict.FORWARDED)
    assert node.send(POD_ONE, forward).verdicts == []
    entry = node.ct(ct_key(POD_ONE, WORLD, 40000, 80))
    assert entry is not None
    assert entry.policy_cookie == 77
    assert entry.policy_revision == node.maps.policy_revision(POD_ONE.endpoint_id) & 0xFFFF


def test_change_of_one_endpoint_leaves_flows_of_others_alone(node: BpfNode) -> None:
    """Revisions are per endpoint."""
    node.send(POD_ONE, between(POD_ONE, POD_TWO).tcp(40000, 80, "S"))
    node.clear_policy(POD_TWO)
    node.maps.bump_policy_revision(POD_ONE.endpoint_id)
    assert node.send(POD_ONE, between(POD_ONE, POD_TWO).tcp(40000, 80, "A")).action == TC_ACT_REDIRECT
    node.maps.bump_policy_revision(POD_TWO.endpoint_id)
    outcome = node.send(POD_ONE, between(POD_ONE, POD_TWO).tcp(40000, 80, "A"))
    assert outcome.action == TC_ACT_SHOT
    assert outcome.drop["endpoint_id"] == POD_TWO.endpoint_id


def test_ping_is_judged_again_as_the_request_it_was(node: BpfNode) -> None:
    """The reply has type 0, policy speaks of type 8."""
    node.clear_policy(POD_ONE)
    node.policy(POD_ONE, egress(0, ICMP, 8), allow(1))
    node.send(POD_ONE, between(POD_ONE, WORLD).echo(7))
    node.maps.bump_policy_revision(POD_ONE.endpoint_id)
    back = between(WORLD, POD_ONE).macs(POD_ONE.gateway_mac, POD_ONE.mac)
    assert node.receive(POD_ONE, back.echo(7, reply=True)).action == TC_ACT_OK


def test_audit_mode_lets_pass_what_it_would_drop(node: BpfNode) -> None:
    """The verdict is AUDIT and no drop is said; switching it off takes a new judgement."""
    node.clear_policy(POD_ONE)
    node.maps.runtime_config.set(19, 1)
    outcome = node.send(POD_ONE, SYN)
    assert outcome.action == TC_ACT_REDIRECT
    (verdict,) = outcome.verdicts
    assert (verdict["verdict"], verdict["drop_reason"]) == (Verdict.AUDIT, 0)
    ack = between(POD_ONE, POD_REMOTE).tcp(40000, 80, "A")
    node.maps.bump_policy_revision(POD_ONE.endpoint_id)
    assert node.send(POD_ONE, ack).action == TC_ACT_REDIRECT
    node.maps.runtime_config.set(19, 0)
    node.maps.bump_policy_revision(POD_ONE.endpoint_id)
    assert node.send(POD_ONE, ack).action == TC_ACT_SHOT


def decide(entries: Entries, identity: int, protocol: int, port: int) -> tuple[bool, int] | None:
    """The slow, obvious model: (allowed, cookie), or None for nothing (default deny)."""

    def best(who: int) -> tuple[PolicyKey, PolicyEntry] | None:
        def covers(key: PolicyKey) -> bool:
            if key.identity != who or not key.egress:
                return False
            if key.protocol == 0:
                return True
            shift = 16 - key.dport_prefix_bits
            return key.protocol == protocol and key.dport >> shift == port >> shift

        found = [(key, entry) for key, entry in entries.items() if covers(key)]
        return max(found, key=lambda item: item[0].lpm_prefix_length, default=None)

    exact, any_ = best(identity), best(0)
    if exact and exact[1].deny:
        return False, exact[1].cookie
    if any_ and any_[1].deny:
        return False, any_[1].cookie
    if not exact and not any_:
        return None
    rank: Callable[[tuple[PolicyKey, PolicyEntry]], tuple[int, int]]
    rank = lambda item: (item[1].priority, item[0].lpm_prefix_length)  # noqa: E731 (a name for the type)
    if exact and (not any_ or rank(exact) >= rank(any_)):
        return True, exact[1].cookie
    assert any_
    return True, any_[1].cookie


@st.composite
def policy_keys(draw: st.DrawFn) -> PolicyKey:
    """Keys that have a chance to meet the packets below."""
    identity = draw(st.sampled_from([0, PEER, 4242]))
    protocol = draw(st.sampled_from([0, TCP, UDP]))
    bits = draw(st.sampled_from([0, 8, 10, 15, 16])) if protocol else 0
    mask = (0xFFFF << (16 - bits)) & 0xFFFF
    port = draw(st.sampled_from([80, 81, 443, 64])) & mask
    return PolicyKey(identity, draw(st.sampled_from([True, True, False])), protocol, port, bits)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    entries=st.dictionaries(
        policy_keys(),
        st.builds(
            PolicyEntry,
            deny=st.booleans(),
            cookie=st.integers(1, 2**32 - 1),
            priority=st.sampled_from([0, 0, 0, 3]),
        ),
        max_size=8,
    ),
    protocol=st.sampled_from([TCP, UDP]),
    port=st.sampled_from([80, 81, 443, 65]),
)
def test_kernel_decides_as_the_model_does(node: BpfNode, entries: Entries, protocol: int, port: int) -> None:
    """Any mixture of entries, against two look-ups in an obvious table."""
    node.clear_policy(POD_ONE)
    node.maps.ct.flush()
    for key, entry in entries.items():
        node.policy(POD_ONE, key, entry)
    packet = between(POD_ONE, POD_REMOTE)
    outcome = node.send(POD_ONE, packet.tcp(40000, port, "S") if protocol == TCP else packet.udp(40000, port))
    (verdict,) = outcome.verdicts
    model = decide(entries, PEER, protocol, port)
    if model is None:
        assert (verdict["verdict"], verdict["drop_reason"]) == (Verdict.DROPPED, DropReason.POLICY_DENIED)
    else:
        allowed, cookie = model
        assert verdict["policy_cookie"] == cookie
        assert verdict["verdict"] == (Verdict.FORWARDED if allowed else Verdict.DROPPED)
