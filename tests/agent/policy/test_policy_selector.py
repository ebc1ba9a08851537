"""Label selectors: keys as people write them, matching, scoping."""

from ipaddress import IPv4Network

import pytest

from agent.policy.selector import (
    WILDCARD,
    Operator,
    Requirement,
    cidr,
    entity,
    equals,
    exists,
    peer_in_namespace,
    select,
    split_key,
    subject_in_namespace,
)
from palomar.labels import LabelSet

LABELS = LabelSet.parse(["k8s:app=web", "container:app=nginx", "reserved:world", "cidr:10.0.0.0/8"])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("app", ("any", "app")),
        ("k8s:app", ("k8s", "app")),
        ("any:app", ("any", "app")),
        ("k8s.app", ("k8s", "app")),
        ("k8s:io.kubernetes.pod.namespace", ("k8s", "io.kubernetes.pod.namespace")),
        ("io.kubernetes.pod.namespace", ("any", "io.kubernetes.pod.namespace")),
        ("reserved:host", ("reserved", "host")),
        ("reserved.host", ("reserved", "host")),
        ("cidr:10.0.0.0/8", ("cidr", "10.0.0.0/8")),
        ("cidr.10.0.0.0/8", ("cidr", "10.0.0.0/8")),
        ("cidr:fd00::/8", ("cidr", "fd00::/8")),
        ("k8s.io/role", ("any", "k8s.io/role")),
        ("node.kubernetes.io/zone", ("any", "node.kubernetes.io/zone")),
        ("other:app", ("any", "other:app")),
    ],
)
def test_keys_are_split_into_source_and_key(text: str, expected: tuple[str, str]) -> None:
    """`source:key`, `source.key`, or a key of any source."""
    assert split_key(text) == expected


@pytest.mark.parametrize(
    ("requirement", "expected", "text"),
    [
        (equals("app", "web"), True, "k8s:app=web"),
        (equals("app", "nginx"), False, "k8s:app=nginx"),
        (equals("app", "nginx", "any"), True, "any:app=nginx"),
        (equals("app", "", "any"), False, "any:app"),
        (Requirement("app", "any", Operator.IN, ("a", "web")), True, "any:app in (a,web)"),
        (Requirement("app", "k8s", Operator.NOT_IN, ("web",)), False, "k8s:app notin (web)"),
        (Requirement("app", "any", Operator.NOT_IN, ("nginx",)), False, "any:app notin (nginx)"),
        (Requirement("no", "any", Operator.NOT_IN, ("x",)), True, "any:no notin (x)"),
        (exists("world", "reserved"), True, "reserved:world"),
        (exists("world", "k8s"), False, "k8s:world"),
        (exists("10.0.0.0/8", "cidr"), True, "cidr:10.0.0.0/8"),
        (Requirement("app", "container", Operator.DOES_NOT_EXIST), False, "!container:app"),
        (Requirement("no", "k8s", Operator.DOES_NOT_EXIST), True, "!k8s:no"),
    ],
)
def test_requirements_match_and_print(requirement: Requirement, expected: bool, text: str) -> None:
    """Against labels with the same key of two sources."""
    assert requirement.matches(LABELS) is expected
    assert str(requirement) == text


def test_selectors_are_conjunctions_in_canonical_order() -> None:
    """Equal whatever the order in which they were written; empty is everything."""
    one = select([equals("app", "web"), exists("world", "reserved")])
    assert one == select([exists("world", "reserved"), equals("app", "web"), equals("app", "web")])
    assert one.matches(LABELS)
    assert not one.also(equals("app", "nginx")).matches(LABELS)
    assert str(one) == "k8s:app=web,reserved:world"
    assert WILDCARD.matches(LabelSet())
    assert str(WILDCARD) == "*"


def test_subjects_are_bound_to_the_namespace_but_init() -> None:
    """Endpoints that wait for their labels have no namespace to be bound to."""
    assert str(subject_in_namespace(WILDCARD, "demo")) == "k8s:io.kubernetes.pod.namespace=demo"
    init = select([exists("init", "reserved")])
    assert subject_in_namespace(init, "demo") == init


def test_peers_of_a_namespace_label_are_not_scoped() -> None:
    """`io.cilium.k8s.namespace.labels.*` speaks of namespaces itself."""
    selector = select([equals("io.cilium.k8s.namespace.labels.team", "shop")])
    assert peer_in_namespace(selector, "demo") == selector


def test_peers_of_a_clusterwide_policy_for_init_are_not_scoped() -> None:
    """Where the subject waits for its labels, its peers may too."""
    assert peer_in_namespace(WILDCARD, "", subject_is_init=True).is_wildcard
    assert str(peer_in_namespace(WILDCARD, "")) == "k8s:io.kubernetes.pod.namespace"


def test_entities_and_cidrs_are_selectors() -> None:
    """As `policy get` and the selector list show them."""
    assert entity("none", "default") == ()
    assert entity("all", "default") == (WILDCARD,)
    assert [str(found) for found in entity("cluster", "east")][-1] == "k8s:io.cilium.k8s.policy.cluster=east"
    inner = [IPv4Network("10.1.0.0/16")]
    assert [str(found) for found in cidr(IPv4Network("0.0.0.0/0"), inner)] == [
        "cidr:0.0.0.0/0,!cidr:10.1.0.0/16",
        "!cidr:10.1.0.0/16,reserved:world",
    ]
