"""Random policies: the kernel's look-up in the resolved map says what a plain reading of the rules says."""

from collections.abc import Iterable
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent.policy.api import Policy
from agent.policy.engine import PolicyConfig, PolicyEngine
from agent.policy.mapstate import ANY_IDENTITY, lookup
from agent.policy.resolve import EnforcementMode
from palomar.drop import DropReason
from palomar.identity import EndpointId
from palomar.labels import LabelSet
from tests.agent.policy.cast import (
    API,
    CLIENT,
    HOST,
    IDENTITIES,
    NET_10_1,
    OTHER_NS,
    SUBJECT,
    TCP,
    UDP,
    WEB,
    WORLD,
    document,
    parsed,
)
from tests.agent.policy.plainreading import Flow, Outcome, explain

PORTS = (0, 79, 80, 81, 95, 443, 8080, 65535)
SUBJECTS = (IDENTITIES[WEB], IDENTITIES[API], LabelSet.parse(["reserved:init"]))
REMOTES = (WEB, API, CLIENT, OTHER_NS, HOST, WORLD, NET_10_1)

selectors = st.sampled_from(
    [
        {},
        {"matchLabels": {"app": "api"}},
        {"matchLabels": {"tier": "front"}},
        {"matchLabels": {"k8s:io.kubernetes.pod.namespace": "other"}},
        {"matchExpressions": [{"key": "tier", "operator": "DoesNotExist"}]},
    ]
)
peers = st.one_of(
    st.none(),
    st.lists(selectors, max_size=2).map(lambda found: ("Endpoints", found)),
    st.lists(st.sampled_from(["all", "world", "cluster", "host", "none"]), max_size=2).map(
        lambda found: ("Entities", found)
    ),
    st.just(("CIDR", ["10.0.0.0/8"])),
    st.just(("CIDRSet", [{"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16"]}])),
)
protocols = st.sampled_from(["TCP", "UDP", "ANY"])
single_ports = st.sampled_from([str(port) for port in PORTS])
port = st.one_of(
    st.builds(lambda number, protocol: {"port": number, "protocol": protocol}, single_ports, protocols),
    st.builds(
        lambda first, size, protocol: {"port": str(first), "endPort": first + size, "protocol": protocol},
        st.sampled_from([1, 64, 79, 80, 8000]),
        st.integers(0, 300),
        protocols,
    ),
)
port_fields = st.one_of(
    st.just({}),
    st.lists(port, min_size=1, max_size=2).map(lambda found: {"toPorts": [{"ports": found}]}),
    st.just({"icmps": [{"fields": [{"type": 8}]}]}),
)


def sections(side: str) -> st.SearchStrategy[list[dict[str, Any]]]:
    def build(peer: tuple[str, list[Any]] | None, ports: dict[str, Any]) -> dict[str, Any]:
        return {**({side + peer[0]: peer[1]} if peer else {}), **ports}

    return st.lists(st.builds(build, peers, port_fields), min_size=1, max_size=2)


specs = st.fixed_dictionaries(
    {
        "endpointSelector": st.sampled_from(
            [{}, {"matchLabels": {"app": "web"}}, {"matchLabels": {"reserved:init": ""}}]
        )
    },
    optional={
        "ingress": sections("from"),
        "ingressDeny": sections("from"),
        "egress": sections("to"),
        "egressDeny": sections("to"),
        "enableDefaultDeny": st.fixed_dictionaries(
            {}, optional={"ingress": st.booleans(), "egress": st.booleans()}
        ),
    },
).filter(lambda spec: bool(spec.keys() - {"endpointSelector", "enableDefaultDeny"}))
kinds = st.sampled_from(["CiliumNetworkPolicy", "CiliumNetworkPolicy", "CiliumClusterwideNetworkPolicy"])


def build_policies(found: list[tuple[list[dict[str, Any]], str]]) -> tuple[Policy, ...]:
    documents = [document(*specs, name=f"p{index}", kind=kind) for index, (specs, kind) in enumerate(found)]
    return parsed(*documents)


policy_lists = st.lists(st.tuples(st.lists(specs, min_size=1, max_size=2), kinds), max_size=4).map(
    build_policies
)
modes = st.sampled_from(EnforcementMode)

relaxed = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])


def flows() -> Iterable[tuple[int, bool, int, int]]:
    for remote in REMOTES:
        for egress in (False, True):
            for number in PORTS:
                yield remote, egress, TCP, number
            yield remote, egress, UDP, 80
            yield remote, egress, 1, 8
            yield remote, egress, 47, 0


@relaxed
@given(policy_lists, st.sampled_from(SUBJECTS), modes, st.booleans())
def test_the_map_says_what_the_rules_say(
    policies: tuple[Policy, ...], subject: LabelSet, mode: EnforcementMode, allow_localhost: bool
) -> None:
    """For every remote, direction, protocol and port of the cast: verdict, drop reason and deciding rules."""
    found = PolicyEngine(PolicyConfig(mode, allow_localhost), IDENTITIES)
    found.change_policies(policies)
    entries = found.set_endpoint(SUBJECT, subject).entries
    for remote, egress, protocol, number in flows():
        flow = Flow(egress, IDENTITIES[remote], protocol, number)
        told = explain(subject, flow, policies, mode, allow_localhost=allow_localhost)
        decision = lookup(entries, remote, egress=egress, protocol=protocol, dport=number)
        assert (decision.drop_reason is None) == told.outcome.is_allowed, flow
        rules = {(ref.policy, ref.path) for ref in decision.entry.rules} if decision.entry else set()
        if told.outcome is Outcome.DENIED:
            assert decision.drop_reason is DropReason.POLICY_DENY
            assert rules
            assert rules <= set(told.denying)
        elif told.outcome is Outcome.DENIED_BY_DEFAULT:
            assert decision.drop_reason is DropReason.POLICY_DENIED
        else:
            assert rules <= set(told.allowing)


@relaxed
@given(policy_lists, st.sampled_from(SUBJECTS))
def test_no_entry_is_dead(policies: tuple[Policy, ...], subject: LabelSet) -> None:
    """No allow is left that a deny of its identity, or of any, covers."""
    found = PolicyEngine(PolicyConfig(allow_localhost=True), IDENTITIES)
    found.change_policies(policies)
    entries = found.set_endpoint(SUBJECT, subject).entries
    denies = [key for key, entry in entries.items() if entry.deny]
    for key, entry in entries.items():
        if not entry.deny:
            over = [deny for deny in denies if deny.identity in (ANY_IDENTITY, key.identity)]
            assert not any(
                deny.egress == key.egress and deny.port_prefix.covers(key.port_prefix) for deny in over
            )


steps = st.lists(
    st.one_of(
        st.tuples(st.just("policies"), policy_lists),
        st.tuples(st.just("delete"), st.integers(0, 3)),
        st.tuples(st.just("remove"), st.sampled_from(REMOTES)),
        st.tuples(st.just("add"), st.sampled_from(REMOTES)),
        st.tuples(st.just("endpoint"), st.sampled_from(SUBJECTS)),
    ),
    max_size=6,
)


@relaxed
@given(policy_lists, steps)
def test_incremental_resolution_is_that_of_a_fresh_engine(
    policies: tuple[Policy, ...], changes: list[tuple[str, Any]]
) -> None:
    """After any changes each endpoint has the policy of a fresh start, and was told if it differs."""
    found = PolicyEngine(PolicyConfig(), IDENTITIES)
    endpoints = {EndpointId(index + 1): labels for index, labels in enumerate(SUBJECTS)}
    for endpoint, labels in endpoints.items():
        found.set_endpoint(endpoint, labels)
    found.change_policies(policies)
    for what, value in changes:
        before = {endpoint: found.policy(endpoint) for endpoint in endpoints}
        changed = set()
        if what == "policies":
            changed = set(found.change_policies(value).changed)
        elif what == "delete":
            names = [stored.policy.name for stored in found.repository.policies()][value : value + 1]
            changed = set(found.change_policies(deletes=names).changed)
        elif what == "remove":
            changed = set(found.update_identities({}, [value]).changed)
        elif what == "add":
            changed = set(found.update_identities({value: IDENTITIES[value]}).changed)
        else:
            endpoints[SUBJECT] = value
            found.set_endpoint(SUBJECT, value)
        fresh = PolicyEngine(PolicyConfig(), found.selectors.identities)
        fresh.change_policies([stored.policy for stored in found.repository.policies()])
        for endpoint, labels in endpoints.items():
            assert found.policy(endpoint) == fresh.set_endpoint(endpoint, labels)
            if endpoint in before and found.policy(endpoint) != before[endpoint] and what != "endpoint":
                assert endpoint in changed
