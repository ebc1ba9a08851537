"""Which of several sources' answers for an address stands."""

from ipaddress import IPv4Address, IPv4Network

from hypothesis import given
from hypothesis import strategies as st

from agent.ipcache.merge import IpInfo, IpMerge, Source
from palomar.identity import NumericIdentity

POD = IPv4Network("10.1.0.5")


def info(source: Source, identity: int = 300) -> IpInfo:
    return IpInfo(NumericIdentity(identity), None, source)


def test_the_stronger_source_stands_whatever_the_order() -> None:
    for order in (list(Source), list(reversed(Source))):
        merge = IpMerge()
        for source in order:
            merge.state(POD, source.name, info(source))
        for source in reversed(Source):
            assert merge.best(POD) == info(source)
            merge.withdraw(POD, source.name)
        assert merge.best(POD) is None
        assert merge.entries() == {}


def test_among_nodes_the_newer_stands_and_the_older_comes_back() -> None:
    merge = IpMerge()
    merge.state(POD, "older", info(Source.NODE, 1))
    merge.state(POD, "newer", info(Source.NODE, 2))
    merge.state(POD, "older", info(Source.NODE, 1))
    assert merge.best(POD) == info(Source.NODE, 2)
    merge.withdraw(POD, "newer")
    assert merge.best(POD) == info(Source.NODE, 1)
    merge.state(POD, "newer", info(Source.NODE, 3))
    merge.state(POD, "older", info(Source.NODE, 4))
    assert merge.best(POD) == info(Source.NODE, 4)


def test_what_was_not_stated_can_be_withdrawn() -> None:
    merge = IpMerge()
    merge.withdraw(POD, "nobody")
    merge.state(POD, "a", info(Source.CIDR))
    merge.withdraw(POD, "nobody")
    assert merge.stated_by("a") == {POD}
    assert merge.stated_by("nobody") == set()


networks = st.builds(
    lambda address, bits: IPv4Network((address, bits), strict=False),
    st.integers(0, 2**32 - 1),
    st.integers(0, 32),
)


@given(st.lists(networks, max_size=12), st.integers(0, 2**32 - 1), st.data())
def test_look_up_finds_the_longest_prefix(
    several: list[IPv4Network], number: int, data: st.DataObject
) -> None:
    merge = IpMerge()
    for identity, network in enumerate(several):
        merge.state(network, "a", info(Source.CIDR, identity))
    address = IPv4Address(number)
    if several:
        inside = data.draw(st.sampled_from(several))
        address = data.draw(st.sampled_from([address, inside.network_address, inside.broadcast_address]))
    holding = sorted((n for n in several if address in n), key=lambda n: n.prefixlen)
    wanted = merge.best(holding[-1]) if holding else None
    assert merge.lookup(address) == wanted
