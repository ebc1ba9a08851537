"""The body of an add: what it must hold, what the agent adds, what it refuses and where."""

from ipaddress import IPv4Address
from typing import Any

import pytest

from agent.endpoint.model import Workload
from agent.endpoint.request import parse_request
from palomar.errors import InvalidInputError

BODY: dict[str, Any] = {"container-name": "web", "netns": "/run/netns/web"}


def test_a_pod_gets_labels_of_its_namespace_and_cluster() -> None:
    request = parse_request(
        {
            **BODY,
            "k8s-pod-name": "web-1",
            "k8s-namespace": "demo",
            "labels": ["app=web", "container:x=y"],
            "addressing": {"ipv4": "10.1.0.5"},
            "workload": {"name": "web", "kind": "Deployment"},
        },
        "blue",
    )
    assert request.labels.texts() == [
        "k8s:app=web",
        "k8s:io.cilium.k8s.policy.cluster=blue",
        "k8s:io.kubernetes.pod.namespace=demo",
        "container:x=y",
    ]
    assert request.ipv4 == IPv4Address("10.1.0.5")
    assert request.workload == Workload("web", "Deployment")
    assert (request.namespace, request.pod, request.container_ifname) == ("demo", "web-1", "eth0")


def test_without_any_label_an_endpoint_is_init() -> None:
    assert parse_request(BODY, "default").labels.texts() == ["reserved:init"]


def test_the_name_falls_back_to_the_pod_and_then_to_the_namespace() -> None:
    assert parse_request({"netns": "/run/netns/a", "k8s-pod-name": "p"}, "c").container_name == "p"
    assert parse_request({"netns": "/run/netns/a"}, "c").container_name == "a"


@pytest.mark.parametrize(
    ("change", "path", "words"),
    [
        ({"netns": ""}, "netns", "is missing"),
        ({"netns": None}, "netns", "is missing"),
        ({"netns": "web"}, "netns", "no absolute path"),
        ({"netns": 3}, "netns", "must be text"),
        ({"labels": "app=web"}, "labels", "must be a list"),
        ({"labels": ["ok=1", ""]}, "labels[1]", "has no key"),
        ({"labels": [1]}, "labels[0]", "must be text"),
        ({"labels": ["reserved:host"]}, "labels[0]", "cannot be given"),
        ({"labels": ["a=b"] * 300}, "labels", "at most 256"),
        ({"addressing": {"ipv4": "10.1"}}, "addressing.ipv4", "no IPv4 address"),
        ({"addressing": "10.1.0.1"}, "addressing", "must be an object"),
        ({"container-interface-name": "a b"}, "container-interface-name", "no name for a device"),
        ({"container-interface-name": "x" * 16}, "container-interface-name", "no name for a device"),
        ({"workload": "web"}, "workload", "must be an object"),
        ({"container-name": "a\nb"}, "container-name", "control characters"),
        ({"k8s-namespace": "n" * 300}, "k8s-namespace", "at most 253"),
        ({"k8s-namespce": "demo"}, "k8s-namespce", "did you mean k8s-namespace?"),
    ],
)
def test_what_is_wrong_is_named_by_its_path(change: dict[str, Any], path: str, words: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        parse_request({**BODY, **change}, "default")
    assert caught.value.path == path
    assert words in caught.value.reason


def test_a_body_that_is_no_object_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="JSON object"):
        parse_request(["netns"], "default")
