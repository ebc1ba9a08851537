"""Names follow addresses; unnamed ones go by identity; a default deny gets its policies' cookie."""

from ipaddress import IPv4Address, IPv6Address

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from hubble.binder import Binder
from hubble.flowendpoint import FlowEndpoint
from hubble.storefile import HOT_COLUMNS
from tests.kit.events import POD_ONE, POD_ONE_IDENTITY, POD_TWO, POD_TWO_IDENTITY, WORLD, rows

WEB = FlowEndpoint(12, POD_ONE_IDENTITY, "default", "demo", "web-1", ("k8s:app=web",))
API = FlowEndpoint(0, POD_TWO_IDENTITY, "default", "demo", "api-1", ("k8s:app=api",))


class Interned:
    """Gives references and remembers what for."""

    def __init__(self) -> None:
        self.endpoints: list[FlowEndpoint] = []

    def __call__(self, endpoint: FlowEndpoint, ip: str) -> int:
        if endpoint not in self.endpoints:
            self.endpoints.append(endpoint)
        return self.endpoints.index(endpoint) + 1

    def named(self, refs) -> list[FlowEndpoint]:
        return [self.endpoints[ref - 1] for ref in refs.tolist()]


def bound(binder: Binder, records: np.ndarray) -> dict[str, np.ndarray]:
    columns = {name: records[name].copy() for name in HOT_COLUMNS}
    binder.apply(records.view(np.uint32).reshape(len(records), -1), columns)
    return columns


def test_both_sides_get_the_name_of_their_address():
    interned = Interned()
    binder = Binder(interned)
    binder.bind(POD_ONE, WEB)
    binder.bind(POD_TWO, API)
    columns = bound(binder, rows({}, {"saddr": POD_TWO, "daddr": POD_ONE}))
    assert interned.named(columns["src_ref"]) == [WEB, API]
    assert interned.named(columns["dst_ref"]) == [API, WEB]


def test_an_unnamed_address_goes_by_its_identity_with_the_labels_known_by_then():
    interned = Interned()
    binder = Binder(interned)
    binder.identity(POD_ONE_IDENTITY, ("k8s:app=web",))
    columns = bound(binder, rows({"daddr": WORLD, "dst_identity": 2}, {"src_identity": 777}))
    assert interned.named(columns["src_ref"]) == [
        FlowEndpoint(identity=POD_ONE_IDENTITY, labels=("k8s:app=web",)),
        FlowEndpoint(identity=777),
    ]
    assert interned.named(columns["dst_ref"])[0] == FlowEndpoint(identity=2, labels=("reserved:world",))


def test_a_name_counts_from_when_it_is_said_until_it_is_taken_back():
    interned = Interned()
    binder = Binder(interned)
    by_number = bound(binder, rows({}))["src_ref"]
    binder.bind(POD_ONE, WEB)
    binder.bind(POD_ONE, WEB)
    assert binder.bound() == {POD_ONE}
    by_name = bound(binder, rows({}))["src_ref"]
    binder.unbind(POD_ONE)
    binder.unbind(POD_ONE)
    after = bound(binder, rows({}))["src_ref"]
    assert interned.named(by_name) == [WEB]
    assert interned.named(by_number) == interned.named(after) == [FlowEndpoint(identity=POD_ONE_IDENTITY)]
    assert binder.bound() == set()


def test_an_identity_whose_labels_arrive_later_gets_another_reference():
    interned = Interned()
    binder = Binder(interned)
    before = bound(binder, rows({}))["src_ref"]
    binder.identity(POD_ONE_IDENTITY, ("k8s:app=web",))
    after = bound(binder, rows({}))["src_ref"]
    assert interned.named(before) == [FlowEndpoint(identity=POD_ONE_IDENTITY)]
    assert interned.named(after) == [FlowEndpoint(identity=POD_ONE_IDENTITY, labels=("k8s:app=web",))]


def test_ipv6_addresses_are_told_apart_from_ipv4_ones_with_the_same_first_bytes():
    interned = Interned()
    binder = Binder(interned)
    six = IPv6Address(POD_ONE.packed + bytes(12))
    binder.bind(POD_ONE, WEB)
    record = {"saddr": six.packed, "daddr": six.packed, "flags": 1}
    assert interned.named(bound(binder, rows(record, {}))["src_ref"]) == [
        FlowEndpoint(identity=POD_ONE_IDENTITY),
        WEB,
    ]
    binder.bind(six, API)
    assert interned.named(bound(binder, rows(record))["dst_ref"]) == [API]
    assert binder.bound() == {POD_ONE, six}
    binder.unbind(six)
    assert binder.bound() == {POD_ONE}


def test_a_default_deny_names_the_policies_that_made_it():
    binder = Binder(Interned())
    binder.default_deny(12, 78, 79)
    denied = {"drop_reason": 133, "verdict": 2, "type": 1}
    records = rows(
        denied | {"direction": 1},
        denied | {"direction": 2},
        denied | {"direction": 1, "policy_cookie": 5},
        denied | {"direction": 1, "endpoint_id": 13},
        denied | {"direction": 0},
        {"drop_reason": 181, "verdict": 2, "direction": 1},
        {"direction": 1},
    )
    bound(binder, records)
    assert records["policy_cookie"].tolist() == [78, 79, 5, 0, 0, 0, 0]
    binder.default_deny(12, 0, 0)
    records = rows(denied)
    bound(binder, records)
    assert records["policy_cookie"].tolist() == [0]


ADDRESSES = st.integers(0, 20).map(lambda number: IPv4Address(0x0A000000 + number))


@given(
    st.lists(st.tuples(ADDRESSES, st.booleans()), max_size=30),
    st.lists(st.tuples(ADDRESSES, st.integers(0, 9)), min_size=1, max_size=30),
)
@settings(max_examples=80, deadline=None)
def test_any_names_and_rows_bind_like_a_dict(changes, packets):
    interned = Interned()
    binder = Binder(interned)
    model: dict[IPv4Address, FlowEndpoint] = {}
    for number, (address, named) in enumerate(changes):
        if named:
            model[address] = FlowEndpoint(number, pod=f"pod-{number}")
            binder.bind(address, model[address])
        else:
            binder.unbind(address)
            model.pop(address, None)
    columns = bound(binder, rows(*[{"saddr": ip, "src_identity": number} for ip, number in packets]))
    assert [
        (endpoint.pod, endpoint.identity if not endpoint.pod else None)
        for endpoint in interned.named(columns["src_ref"])
    ] == [(model[ip].pod, None) if ip in model else ("", number) for ip, number in packets]
    assert binder.bound() == set(model)
