"""Workload names: the first of workload, app label, pod prefix, reserved name, identity, address."""

import pytest

from palomar_pb.flow import flow_pb2
from ui.names import (
    MAX_NAME_CHARS,
    NODES,
    OUTSIDE,
    Workload,
    WorkloadNames,
    between,
    clip,
    pod_prefix,
    workload_of,
)

POD = {"namespace": "shop", "pod_name": "web-7c9d8f6b5-fghij", "identity": 4242}


def endpoint(**fields: object) -> flow_pb2.Endpoint:
    return flow_pb2.Endpoint(**fields)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (
            endpoint(
                **POD, labels=["k8s:app=x"], workloads=[flow_pb2.Workload(name="front", kind="Deployment")]
            ),
            Workload("shop", "front"),
        ),
        (endpoint(**POD, labels=["k8s:app=front"]), Workload("shop", "front")),
        (
            endpoint(**POD, labels=["k8s:app=b", "k8s:app.kubernetes.io/name=a"]),
            Workload("shop", "a"),
        ),
        (endpoint(**POD), Workload("shop", "web")),
        (endpoint(identity=2), Workload(OUTSIDE, "world")),
        (endpoint(identity=1, labels=["reserved:host"]), Workload(NODES, "host")),
        (endpoint(identity=6), Workload(NODES, "remote-node")),
        (
            endpoint(identity=0x01000001, labels=["cidr:198.51.100.0/24", "reserved:world"]),
            Workload(OUTSIDE, "198.51.100.0/24"),
        ),
        (endpoint(identity=777, namespace="shop"), Workload("shop", "identity 777")),
        (endpoint(), Workload(OUTSIDE, "10.9.9.9")),
    ],
)
def test_the_best_known_name_wins(given: flow_pb2.Endpoint, expected: Workload) -> None:
    """Each kind of endpoint has the name a person would call it by."""
    assert workload_of(given, "10.9.9.9") == expected


@pytest.mark.parametrize(
    ("pod", "expected"),
    [
        ("web-7c9d8f6b5-fghij", "web"),
        ("my-app-565d847f94-xyz12", "my-app"),
        ("db-0", "db"),
        ("agent-x7k2p", "agent"),
        ("web-1", "web"),
        ("plain", "plain"),
        ("-0", "-0"),
    ],
)
def test_replica_suffixes_are_cut(pod: str, expected: str) -> None:
    """Deployment, DaemonSet and StatefulSet suffixes go, names without one stay."""
    assert pod_prefix(pod) == expected


def test_long_names_are_cut_and_stay_different() -> None:
    """A name of 1 kB fits; two that begin alike stay two."""
    one, two = clip("a" * 1000 + "1"), clip("a" * 1000 + "2")
    assert len(one) == len(two) == MAX_NAME_CHARS
    assert one != two


def test_control_characters_are_replaced() -> None:
    """What could break a line or a terminal is shown as a replacement."""
    assert clip("a\nb\x00c") == "a\N{REPLACEMENT CHARACTER}b\N{REPLACEMENT CHARACTER}c"


def test_pods_without_a_namespace_do_not_collide_with_reserved_groups() -> None:
    """A namespace cannot begin with @ in Kubernetes; the world is not a namespace called outside."""
    assert workload_of(endpoint(identity=2), "").reserved
    assert not workload_of(endpoint(**POD), "").reserved


def test_unknown_addresses_are_told_apart_in_the_cache() -> None:
    """Two endpoints that are known by address alone do not share a cached name."""
    names = WorkloadNames()
    assert names.of(endpoint(), "10.0.0.1") != names.of(endpoint(), "10.0.0.2")


def test_names_from_right_to_left_do_not_turn_the_arrow_around() -> None:
    """Between two Arabic names a browser would draw callee, arrow, caller: each is isolated."""
    assert between("web", "api") == "web → api"
    assert between("\u0645\u062a\u062c\u0631", "api") == "\u2068\u0645\u062a\u062c\u0631\u2069 → api"
    # Control characters that turn text around never reach the page: clip replaces them.
    assert "\u202e" not in clip("web\u202eipa")
