"""Identities of CIDRs: labels, counting, restart."""

from ipaddress import IPv4Network, IPv6Network

import pytest
from hypothesis import given
from hypothesis import strategies as st

import agent.identity.cidr as module
from agent.identity.cidr import CidrIdentities, cidr_labels
from agent.identity.errors import LocalIdentitiesExhaustedError

TEN = IPv4Network("10.0.0.0/8")
TEN_ONE = IPv4Network("10.1.0.0/16")
TEST_NET = IPv4Network("192.0.2.0/24")
FIRST = 16777217


def test_labels_hold_every_covering_prefix() -> None:
    """And reserved:world; the whole address space is nothing but the world."""
    assert set(cidr_labels(IPv4Network("192.0.0.0/3")).texts()) == {
        "reserved:world",
        "cidr:0.0.0.0/0",
        "cidr:128.0.0.0/1",
        "cidr:192.0.0.0/2",
        "cidr:192.0.0.0/3",
    }
    assert cidr_labels(IPv4Network("0.0.0.0/0")).texts() == ["reserved:world"]
    assert cidr_labels(IPv6Network("::/0")).texts() == ["reserved:world"]
    assert cidr_labels(IPv6Network("fd00::/8")).get("fd00::/8", "cidr") == ""


@given(st.integers(0, 2**32 - 1), st.integers(1, 32), st.integers(1, 32))
def test_a_prefix_is_labelled_with_those_that_hold_it(address: int, bits: int, other_bits: int) -> None:
    """One more label than its length has bits, and world."""
    network = IPv4Network((address, bits), strict=False)
    other = IPv4Network((address, other_bits), strict=False)
    labels = cidr_labels(network)
    assert len(labels) == bits + 2
    assert (labels.get(str(other), "cidr") is not None) == network.subnet_of(other)


def test_numbers_are_counted_and_not_used_again_at_once() -> None:
    """The same prefix has one number for all its users."""
    found = CidrIdentities()
    assert found.acquire(TEN) == (FIRST, True)
    assert found.acquire(TEN) == (FIRST, False)
    assert found.acquire(TEN_ONE) == (FIRST + 1, True)
    assert found.release(TEN) is None
    assert found.release(TEN) == FIRST
    assert found.get(TEN) is None
    assert found.acquire(TEST_NET) == (FIRST + 2, True)
    with pytest.raises(KeyError):
        found.release(TEN)


def test_a_restart_finds_the_same_numbers() -> None:
    """Numbers of the snapshot are kept until told otherwise, and never given to others before."""
    before = CidrIdentities()
    for network in (TEN, TEN_ONE):
        before.acquire(network)
    after = CidrIdentities(before.snapshot())
    assert after.acquire(TEST_NET) == (FIRST + 2, True)
    assert after.acquire(TEN_ONE) == (FIRST + 1, True)
    assert after.kept() == {TEN: FIRST}
    assert after.snapshot() == {TEN: FIRST, TEN_ONE: FIRST + 1, TEST_NET: FIRST + 2}
    assert after.forget_snapshot() == {TEN: FIRST}
    assert after.kept() == {}
    assert after.snapshot() == {TEN_ONE: FIRST + 1, TEST_NET: FIRST + 2}


def test_nonsense_in_a_snapshot_is_not_kept() -> None:
    """Numbers outside of the scope, and the second of two equal ones."""
    found = CidrIdentities({TEN: 7, TEN_ONE: FIRST, TEST_NET: FIRST})
    assert found.kept() == {TEN_ONE: FIRST}


def test_the_scope_can_be_used_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """An error that says what to do; a freed number is used when its turn comes."""
    monkeypatch.setattr(module, "MAX_LOCAL_IDENTITY", FIRST + 1)
    found = CidrIdentities()
    found.acquire(TEN)
    found.acquire(TEN_ONE)
    with pytest.raises(LocalIdentitiesExhaustedError) as caught:
        found.acquire(TEST_NET)
    assert caught.value.network == TEST_NET
    found.release(TEN)
    assert found.acquire(TEST_NET) == (FIRST, True)
