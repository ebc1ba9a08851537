"""Key paths and value formats are the public ones, and survive the way there and back."""

import contextlib
import json
from ipaddress import IPv4Address, IPv4Network, IPv6Network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster import keys
from cluster.backend import AddressType, IdentityEntry, IpEntry, NamedPort, NodeAddress, NodeEntry
from cluster.errors import MalformedEntryError
from palomar.identity import NumericIdentity
from palomar.labels import LabelSet
from tests.cluster.stores import node_entry, pod_entry

names = st.text(st.characters(codec="utf-8", categories=("L", "N", "P", "S")), max_size=20)
networks = st.builds(
    lambda address, bits: IPv4Network((address, bits), strict=False),
    st.integers(0, 2**32 - 1),
    st.integers(0, 32),
)
addresses = st.builds(IPv4Address, st.integers(0, 2**32 - 1))
ips = st.builds(
    IpEntry,
    network=networks | st.builds(IPv6Network, st.just("fd00::/64")),
    host_ip=st.none() | addresses,
    identity=st.builds(NumericIdentity, st.integers(0, keys.MAX_IDENTITY)),
    encrypt_key=st.integers(0, 255),
    metadata=names,
    namespace=names,
    pod=names,
    named_ports=st.lists(
        st.builds(NamedPort, names, st.integers(0, 65535), st.sampled_from(["TCP", "UDP"])), max_size=2
    ).map(tuple),
)
nodes = st.builds(
    NodeEntry,
    name=names.filter(bool),
    cluster=names,
    addresses=st.lists(
        st.builds(NodeAddress, st.sampled_from(AddressType), addresses.map(str)), max_size=3
    ).map(tuple),
    ipv4_alloc_cidr=st.none() | networks,
    ipv4_secondary_alloc_cidrs=st.lists(networks, max_size=2).map(tuple),
    ipv6_alloc_cidr=st.none() | st.just(IPv6Network("fd00::/64")),
    cluster_id=st.integers(0, 255),
    labels=st.dictionaries(names, names, max_size=2),
    annotations=st.dictionaries(names, names, max_size=2),
)


@given(ips)
def test_an_address_survives_the_way_there_and_back(entry: IpEntry) -> None:
    assert keys.decode(keys.ip_key(entry.network), keys.encode_ip(entry)) == entry


@given(nodes)
def test_a_node_survives_the_way_there_and_back(entry: NodeEntry) -> None:
    assert keys.decode(keys.node_key(entry.cluster, entry.name), keys.encode_node(entry)) == entry


@given(st.text(max_size=60) | st.binary(max_size=60).map(lambda raw: raw.decode("latin-1")))
def test_any_text_is_an_entry_or_malformed(value: str) -> None:
    for prefix in (keys.IP_PREFIX, keys.NODE_PREFIX, keys.IDENTITY_PREFIX):
        for key in (f"{prefix}256", f"{prefix}{value}"):
            with contextlib.suppress(MalformedEntryError):
                assert keys.decode(key, value)


def test_a_prefix_is_written_as_go_writes_it() -> None:
    entry = IpEntry(IPv4Network("10.0.0.0/8"), None, NumericIdentity(2))
    assert keys.ip_key(entry.network) == "cilium/state/ip/v1/default/10.0.0.0/8"
    assert json.loads(keys.encode_ip(entry))["Mask"] == "/wAAAA=="
    assert keys.ip_key(pod_entry(1).network) == "cilium/state/ip/v1/default/10.1.0.5"


def test_an_unset_field_of_a_node_is_written_as_go_writes_it() -> None:
    tree = json.loads(keys.encode_node(node_entry(1)))
    assert tree["IPv6AllocCIDR"] is None
    assert tree["IPv4SecondaryAllocCIDRs"] is None
    assert tree["IPv4HealthIP"] == ""
    assert tree["Labels"] == {}
    assert tree["NodeIdentity"] == 6


def test_a_node_of_another_make_is_read() -> None:
    """Fields and address types that are not known here do not spoil the rest."""
    tree = json.loads(keys.encode_node(node_entry(1))) | {"Future": {"x": 1}, "Labels": None}
    tree["IPAddresses"].append({"Type": "Moon", "IP": "1.2.3.4"})
    entry = keys.decode(keys.node_key("default", "node-1"), json.dumps(tree))
    assert entry == node_entry(1)
    assert isinstance(entry, NodeEntry)
    assert entry.node_ipv4 == IPv4Address("172.30.0.1")
    assert entry.router_ipv4 == IPv4Address("10.1.0.1")
    assert entry.pod_cidrs == (IPv4Network("10.1.0.0/24"),)


def test_label_texts_with_slashes_keep_references_apart() -> None:
    one, two = LabelSet.parse(["k8s:a=b"]), LabelSet.parse(["k8s:a=b", "k8s:c/d=e/f"])
    ip = IPv4Address("172.30.0.1")
    assert keys.reference_key(two, ip).startswith(keys.reference_prefix(two))
    assert not keys.reference_key(two, ip).startswith(keys.reference_prefix(one))


def test_an_identity_is_its_number_and_canonical_labels() -> None:
    labels = LabelSet.parse(["k8s:b=2", "k8s:a=1"])
    assert keys.decode(keys.identity_key(300), "k8s:a=1;k8s:b=2;") == IdentityEntry(
        NumericIdentity(300), labels
    )


@pytest.mark.parametrize(
    ("key", "value"),
    [
        (keys.identity_key(0), "k8s:a=b;"),
        (f"{keys.IDENTITY_PREFIX}-5", "k8s:a=b;"),
        (f"{keys.IP_PREFIX}10.0.0.1", '{"IP":"10.0.0.1","ID":-1}'),
        (f"{keys.IP_PREFIX}10.0.0.1", '{"IP":"10.0.0.1","ID":true}'),
        (f"{keys.IP_PREFIX}10.0.0.1", '{"IP":"10.0.0.300","ID":1}'),
        (f"{keys.IP_PREFIX}10.0.0.0/8", '{"IP":"10.0.0.0","Mask":"/wD/AA==","ID":1}'),
        (f"{keys.IP_PREFIX}10.0.0.1", '{"IP":"10.0.0.1","ID":1,"K8sPodName":7}'),
        (f"{keys.NODE_PREFIX}default/x", '{"Name":""}'),
        (f"{keys.NODE_PREFIX}default/x", '{"Name":"x","IPAddresses":7}'),
        (f"{keys.NODE_PREFIX}default/x", '{"Name":"x","Labels":[1]}'),
    ],
)
def test_a_value_that_breaks_its_format_is_named(key: str, value: str) -> None:
    with pytest.raises(MalformedEntryError, match="ignored") as caught:
        keys.decode(key, value)
    assert caught.value.key == key


@pytest.mark.parametrize("value", ["", "x", "-1", "16777216", "٣"])
def test_a_reference_that_is_no_number_is_named(value: str) -> None:
    with pytest.raises(MalformedEntryError):
        keys.decode_reference("key", value)
