"""The reserved identities and their labels."""

from agent.identity.reserved import reserved_identities


def test_numbers_and_labels() -> None:
    """As every node of the cluster and every Hubble client knows them."""
    assert {number: labels.texts() for number, labels in reserved_identities().items()} == {
        1: ["reserved:host"],
        2: ["reserved:world"],
        3: ["reserved:unmanaged"],
        4: ["reserved:health"],
        5: ["reserved:init"],
        6: ["reserved:remote-node"],
        7: ["reserved:kube-apiserver", "reserved:remote-node"],
        8: ["reserved:ingress"],
        9: ["reserved:world-ipv4"],
        10: ["reserved:world-ipv6"],
    }
