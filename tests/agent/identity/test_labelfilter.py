"""The label filter: defaults, inclusive and exclusive patterns, bad ones."""

import pytest

from agent.identity.errors import InvalidLabelFilterError
from agent.identity.labelfilter import LabelFilter
from palomar.labels import parse

DEFAULTS = [
    ("k8s:app=web", True),
    ("k8s:io.kubernetes.pod.namespace=demo", True),
    ("k8s:io.cilium.k8s.namespace.labels.kubernetes.io/metadata.name=demo", True),
    ("k8s:io.cilium.k8s.policy.cluster=default", True),
    ("k8s:io.cilium.k8s.policy.serviceaccount=default", True),
    ("k8s:app.kubernetes.io/name=web", True),
    ("reserved:host", True),
    ("container:app=web", True),
    ("k8s:io.kubernetes.container.name=x", False),
    ("k8s:kubernetes.io/arch=amd64", False),
    ("k8s:statefulset.kubernetes.io/pod-name=db-0", False),
    ("k8s:apps.kubernetes.io/pod-index=0", False),
    ("k8s:batch.kubernetes.io/job-completion-index=3", False),
    ("k8s:batch.kubernetes.io/controller-uid=3", False),
    ("k8s:node.beta.kubernetes.io/x=y", False),
    ("k8s:k8s.io/x=y", False),
    ("k8s:pod-template-generation=1", False),
    ("k8s:pod-template-hash=5f6", False),
    ("k8s:controller-revision-hash=5f6", False),
    ("k8s:annotation.x=y", False),
    ("k8s:controller-uid=1", False),
    ("k8s:etcd_node=1", False),
]


@pytest.mark.parametrize(("text", "expected"), DEFAULTS)
def test_defaults(text: str, expected: bool) -> None:
    """Every label counts but those that change with each pod or rollout."""
    assert LabelFilter().is_relevant(parse(text)) is expected


@pytest.mark.parametrize(
    ("items", "relevant", "other"),
    [
        (["k8s:app"], ["k8s:app=x", "k8s:application=x"], ["container:app=x", "k8s:team=x"]),
        (["k8s:app$"], ["k8s:app=x"], ["k8s:application=x"]),
        (["app"], ["k8s:app=x", "container:app=x", "reserved:host"], ["k8s:team=x"]),
        (["app"], ["k8s:io.kubernetes.pod.namespace=x", "k8s:app.kubernetes.io/name=x"], ["k8s:x=app"]),
        (["!team"], ["k8s:app=x"], ["k8s:team=x", "container:team=x"]),
        (["!k8s:team"], ["container:team=x"], ["k8s:team=x"]),
        (["k8s:!team"], ["container:team=x"], ["k8s:team=x"]),
        (["!foo", r"foo\.bar"], ["k8s:foo.bar=x"], ["k8s:foo.baz=x", "k8s:app=x"]),
        (["k8s:pod-template-hash.*"], [], ["k8s:pod-template-hash=x"]),
        ([""], ["k8s:app=x"], []),
    ],
)
def test_own_patterns(items: list[str], relevant: list[str], other: list[str]) -> None:
    """Inclusive ones limit to what is included, exclusive ones take away, the longer match wins."""
    found = LabelFilter(items)
    assert [text for text in (*relevant, *other) if found.is_relevant(parse(text))] == relevant
    kept, rest = found.split(parse(text) for text in (*relevant, *other))
    assert sorted(kept.texts()) == sorted(relevant)
    assert sorted(rest.texts()) == sorted(other)


@pytest.mark.parametrize(
    ("item", "reason"),
    [("!", "the pattern is empty"), ("k8s:", "the pattern is empty"), ("k8s:(", "not a regular expression")],
)
def test_bad_patterns_are_named(item: str, reason: str) -> None:
    """With the item, the reason and how to write it."""
    with pytest.raises(InvalidLabelFilterError) as caught:
        LabelFilter(["app", item])
    assert caught.value.item == item
    assert str(caught.value).startswith(f"labels: label filter {item!r}: {reason}")
