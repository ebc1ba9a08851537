"""The engine: endpoints follow policies and identities, and only those a change touches are told."""

from collections.abc import Callable
from typing import Any

from agent.policy.api import PolicyName
from agent.policy.engine import PolicyConfig, PolicyEngine
from agent.policy.mapstate import PolicyKey
from palomar.identity import EndpointId
from tests.agent.policy.cast import (
    API,
    CLIENT,
    IDENTITIES,
    SUBJECT,
    UNKNOWN,
    WEB,
    decide,
    document,
    engine,
    parsed,
    pod,
)

E1, E2, E3 = EndpointId(1), EndpointId(2), EndpointId(3)


def allow(app: str, *, to: str = "web", name: str = "p") -> dict[str, Any]:
    return document(
        {
            "endpointSelector": {"matchLabels": {"app": to}},
            "ingress": [{"fromEndpoints": [{"matchLabels": {"app": app}}]}],
        },
        name=name,
    )


def three() -> PolicyEngine:
    made = PolicyEngine(PolicyConfig(), IDENTITIES)
    made.set_endpoint(E1, IDENTITIES[WEB])
    made.set_endpoint(E2, IDENTITIES[WEB])
    made.set_endpoint(E3, IDENTITIES[CLIENT])
    return made


def test_only_selected_endpoints_change() -> None:
    """Adding, replacing and deleting a policy."""
    found = three()
    update = found.change_policies(parsed(allow("api")))
    assert update.changed.keys() == {E1, E2}
    assert (update.revision, found.revision) == (2, 2)
    assert update.names == (PolicyName("demo", "p"),)
    assert PolicyKey(API, False) in found.policy(E1).entries
    update = found.change_policies(parsed(allow("api", to="client")))
    assert update.changed.keys() == {E1, E2, E3}
    assert found.policy(E1).enforced == "none"
    update = found.change_policies(deletes=[PolicyName("demo", "p")])
    assert update.changed.keys() == {E3}
    assert found.change_policies(deletes=[PolicyName("demo", "p")]).changed == {}


def test_endpoints_with_the_same_rules_share_one_resolution() -> None:
    """The same object, so that a hundred replicas cost as much as one."""
    found = three()
    found.change_policies(parsed(allow("api")))
    assert found.policy(E1) is found.policy(E2)
    late = found.set_endpoint(EndpointId(4), pod("app=web", "version=2"))
    assert late is found.policy(E1)


def test_an_identity_changes_the_policies_that_select_it() -> None:
    """And no others; a removed identity leaves the map."""
    found = three()
    found.change_policies(parsed(allow("api"), allow("web", to="client", name="q")))
    update = found.update_identities({UNKNOWN: pod("app=api", "version=2")})
    assert update.changed.keys() == {E1, E2}
    assert PolicyKey(UNKNOWN, False) in found.policy(E1).entries
    assert found.update_identities({UNKNOWN + 1: pod("app=nothing")}).changed == {}
    assert found.update_identities({}, [UNKNOWN]).changed.keys() == {E1, E2}
    assert PolicyKey(UNKNOWN, False) not in found.policy(E1).entries


def test_an_identity_that_makes_no_difference_changes_nothing() -> None:
    """Where a deny of anybody covers the allow, the map stays as it is."""
    found = engine(*parsed(allow("api"), document({"ingressDeny": [{"fromEntities": ["all"]}]}, name="deny")))
    assert found.update_identities({UNKNOWN: pod("app=api", "version=2")}).changed == {}


def test_endpoints_come_change_labels_and_go() -> None:
    """A known endpoint with new labels has the policy of those."""
    found = three()
    found.change_policies(parsed(allow("api")))
    assert found.set_endpoint(E1, IDENTITIES[CLIENT]).enforced == "none"
    assert found.policy(E2).enforced == "ingress"
    assert [str(rule.policy) for rule in found.rules(E2)] == ["demo/p"]
    found.remove_endpoint(E2)
    found.remove_endpoint(E2)
    assert found.change_policies(deletes=[PolicyName("demo", "p")]).changed == {}


def test_a_replaced_policy_brings_its_new_revision() -> None:
    """Also where its entries stay the same, so that flows name the revision in force."""
    found = engine(*parsed(allow("api")))
    before = found.policy(SUBJECT)
    changed = allow("api")
    changed["spec"]["description"] = "now with words"
    update = found.change_policies(parsed(changed))
    assert update.changed.keys() == {SUBJECT}
    assert update.changed[SUBJECT] == before
    decision = decide(found, API)
    assert decision.entry is not None
    assert {rule.revision for rule in decision.entry.rules} == {3}


def test_unaffected_endpoints_are_not_resolved_again() -> None:
    """Their policy stays the very same object."""
    found = three()
    found.change_policies(parsed(allow("api"), allow("api", to="client", name="q")))
    steps: list[Callable[[], object]] = [
        lambda: found.change_policies(parsed(allow("web", to="client", name="q"))),
        lambda: found.update_identities({UNKNOWN: pod("app=web", "version=3")}),
    ]
    for step in steps:
        before = found.policy(E1)
        step()
        assert found.policy(E1) is before
