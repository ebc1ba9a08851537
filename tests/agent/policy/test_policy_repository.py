"""The repository: revisions, replacing, deleting, warnings."""

from ipaddress import IPv4Network

from agent.policy.api import PolicyName
from agent.policy.repository import Repository
from agent.policy.selectorcache import SelectorCache
from tests.agent.policy.cast import IDENTITIES, WEB, document, parsed, pod

CLOSED = {"ingress": [{}]}
FROM_WEB = {"ingress": [{"fromEndpoints": [{"matchLabels": {"app": "web"}}]}]}


def repository() -> Repository:
    return Repository(SelectorCache(IDENTITIES))


def test_each_change_is_one_revision() -> None:
    """Several policies at once too; what is equal or unknown changes nothing."""
    found = repository()
    assert found.revision == 1
    one, two = parsed(document(CLOSED, name="a"), document(FROM_WEB, name="b"))
    change = found.change([one, two])
    assert (change.revision, found.revision, len(change.added)) == (2, 2, 2)
    assert not found.change([one])
    assert not found.change(deletes=[PolicyName("demo", "unknown")])
    assert found.revision == 2
    change = found.change([parsed(document(FROM_WEB, name="a"))[0]], [PolicyName("demo", "b")])
    assert [str(name) for name in change.names] == ["demo/b", "demo/a"]
    assert (change.revision, len(change.added), len(change.removed)) == (3, 1, 2)
    assert [(str(stored.policy.name), stored.revision) for stored in found.policies()] == [("demo/a", 3)]


def test_a_policy_deleted_and_added_at_once_stays() -> None:
    """As when a file of the policy directory is renamed."""
    found = repository()
    (policy,) = parsed(document(CLOSED))
    found.change([policy])
    assert not found.change([policy], [policy.name])
    stored = found.get(policy.name)
    assert stored is not None
    assert stored.policy == policy


def test_rules_select_by_labels_in_the_order_of_names() -> None:
    """Of every namespace and clusterwide."""
    found = repository()
    found.change(
        parsed(
            document(CLOSED, name="b"),
            document(CLOSED, FROM_WEB, name="a"),
            document(CLOSED, name="x", namespace="other"),
            document({"endpointSelector": {"matchLabels": {"app": "api"}}, **CLOSED}, name="c"),
            document(CLOSED, name="all", kind="CiliumClusterwideNetworkPolicy"),
        )
    )
    rules = found.rules_selecting(IDENTITIES[WEB])
    assert [f"{rule.policy} {rule.spec.path}" for rule in rules] == [
        "all spec",
        "demo/a specs[0]",
        "demo/a specs[1]",
        "demo/b spec",
    ]
    assert [str(rule.policy) for rule in found.rules_selecting(pod("app=api", namespace="third"))] == ["all"]


def test_selectors_are_given_back() -> None:
    """A deleted policy leaves nothing in the selector cache."""
    cache = SelectorCache(IDENTITIES)
    found = Repository(cache)
    found.change(parsed(document(FROM_WEB, name="a"), document(FROM_WEB, name="b")))
    assert [cached.users for cached in cache.selectors()] == [2]
    found.change(parsed(document(CLOSED, name="a")), [PolicyName("demo", "b")])
    assert cache.selectors() == []


def test_cidrs_of_the_policies_in_force() -> None:
    """Each once, also excepted ones; gone with the policy."""
    found = repository()
    spec = {"egress": [{"toCIDRSet": [{"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16"]}]}]}
    found.change(parsed(document(spec, name="a"), document(spec, name="b")))
    assert found.cidrs() == {IPv4Network("10.0.0.0/8"), IPv4Network("10.1.0.0/16")}
    found.change(deletes=[PolicyName("demo", "a"), PolicyName("demo", "b")])
    assert found.cidrs() == frozenset()


def test_selectors_that_select_nothing_are_warned_of() -> None:
    """Subjects and endpoint peers, with the path; not entities and CIDRs, which may well be empty."""
    found = repository()
    found.change(
        parsed(
            document(
                {
                    "endpointSelector": {"matchLabels": {"app": "wbe"}},
                    "ingress": [{"fromEntities": ["cluster", "ingress"]}, {"fromCIDR": ["203.0.113.0/24"]}],
                    "egress": [
                        {
                            "toEndpoints": [
                                {"matchLabels": {"app": "api"}},
                                {"matchLabels": {"k8s:app": "pai"}},
                            ]
                        }
                    ],
                },
                name="typo",
            ),
            document(CLOSED, FROM_WEB, name="good"),
        )
    )
    namespace = "k8s:io.kubernetes.pod.namespace=demo"
    expected = [
        f"demo/typo: spec.endpointSelector: selects no endpoint: any:app=wbe,{namespace}",
        f"demo/typo: spec.egress[0]: a peer selects nothing: k8s:app=pai,{namespace}",
    ]
    assert [str(warning) for warning in found.warnings()] == expected
    assert found.warnings([PolicyName("demo", "good")]) == []
    found.change(deletes=[PolicyName("demo", "typo")])
    assert found.warnings() == []
