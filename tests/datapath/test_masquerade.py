"""The nftables table is replaced as one and goes without a trace."""

from ipaddress import IPv4Network

import pytest

from datapath import masquerade
from tests.kit.netns import NetnsFactory, exec_in

PODS, CLUSTER = IPv4Network("10.1.0.0/24"), IPv4Network("10.0.0.0/8")


def test_rule_says_who_and_where() -> None:
    """Only pods, only towards the world, never out of our own devices."""
    text = masquerade.ruleset(PODS, CLUSTER)
    assert 'ip saddr 10.1.0.0/24 ip daddr != 10.0.0.0/8 oifname != "cilium_*" counter masquerade' in text


@pytest.mark.root
def test_table_is_idempotent(netns_factory: NetnsFactory) -> None:
    """Twice installed is one rule; twice removed is no error."""
    path = netns_factory.create("a")
    from datapath import netns

    for _ in range(2):
        netns.run(path, lambda: masquerade.install(PODS, CLUSTER))
    listed = exec_in(path, "nft", "list", "ruleset").stdout
    assert listed.count("palomar masquerade non-cluster") == 1
    for _ in range(2):
        netns.run(path, masquerade.remove)
    assert exec_in(path, "nft", "list", "ruleset").stdout == ""
