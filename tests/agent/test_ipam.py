"""Addresses: never twice, never a special one, late again, exhausted with a clear error."""

from ipaddress import IPv4Address, IPv4Network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.ipam import AddressInUseError, Ipam, PoolExhaustedError
from palomar.errors import InvalidInputError

CIDR = IPv4Network("10.1.0.0/28")
OPERATIONS = st.lists(
    st.one_of(
        st.tuples(st.just("allocate"), st.integers(0, 5)),
        st.tuples(st.just("wish"), st.integers(0, 20)),
        st.tuples(st.just("release"), st.integers(0, 20)),
    ),
    max_size=80,
)


def test_the_first_endpoint_comes_after_the_router() -> None:
    ipam = Ipam(CIDR)
    assert ipam.router == IPv4Address("10.1.0.1")
    assert ipam.allocate("a") == IPv4Address("10.1.0.2")
    assert ipam.capacity == 13


def test_exhaustion_names_the_pool() -> None:
    ipam = Ipam(CIDR)
    given_out = {ipam.allocate(str(index)) for index in range(ipam.capacity)}
    assert len(given_out) == 13
    assert {CIDR.network_address, ipam.router, CIDR.broadcast_address}.isdisjoint(given_out)
    with pytest.raises(PoolExhaustedError, match=r"10\.1\.0\.0/28 is exhausted: all 13"):
        ipam.allocate("one more")
    ipam.release(IPv4Address("10.1.0.7"))
    assert ipam.allocate("one more") == IPv4Address("10.1.0.7")


def test_a_freed_address_comes_again_last() -> None:
    ipam = Ipam(CIDR)
    first = ipam.allocate("a")
    ipam.release(first)
    others = [ipam.allocate(str(index)) for index in range(ipam.capacity)]
    assert others[-1] == first


def test_a_wish_for_a_taken_or_special_address_is_refused() -> None:
    ipam = Ipam(CIDR)
    taken = ipam.allocate("a")
    with pytest.raises(AddressInUseError, match="in use by a"):
        ipam.allocate("b", taken)
    for special in ("10.1.0.0", "10.1.0.1", "10.1.0.15", "10.2.0.5"):
        with pytest.raises(InvalidInputError, match="no address for endpoints"):
            ipam.allocate("b", IPv4Address(special))


def test_reserving_again_for_the_same_owner_is_no_error() -> None:
    ipam = Ipam(CIDR)
    ipam.reserve(IPv4Address("10.1.0.2"), "a")
    ipam.reserve(IPv4Address("10.1.0.2"), "a")
    assert ipam.allocations == {IPv4Address("10.1.0.2"): "a"}
    assert ipam.allocate("b") == IPv4Address("10.1.0.3")


@given(OPERATIONS)
def test_any_history_agrees_with_a_plain_set(operations: list[tuple[str, int]]) -> None:
    """Model: the set of addresses in use; allocation may give any free one and none else."""
    ipam, used = Ipam(CIDR), set()
    usable = {IPv4Address(int(CIDR.network_address) + offset) for offset in range(2, 15)}
    for operation, number in operations:
        address = IPv4Address(int(CIDR.network_address) + number)
        if operation == "allocate":
            if used == usable:
                with pytest.raises(PoolExhaustedError):
                    ipam.allocate("x")
                continue
            found = ipam.allocate("x")
            assert found in usable - used
            used.add(found)
        elif operation == "release":
            ipam.release(address)
            used.discard(address)
        elif address in usable:
            ipam.allocate("x", address)
            used.add(address)
        assert set(ipam.allocations) == used
