"""What is kept and what goes when entries vanish from the store."""

from cluster.driver import Batch, Change, Stored
from cluster.keys import encode_ip, encode_node, identity_key, ip_key, node_key
from cluster.view import ClusterView
from palomar.labels import LabelSet
from tests.cluster.stores import node_entry, pod_entry

GRACE_NS = 100
WEB = LabelSet.parse(["k8s:app=web"])
IP = ip_key(pod_entry(1).network)
NODE = node_key("default", "node-1")
IDENTITY = identity_key(4242)
FULL = {
    IDENTITY: Stored(WEB.canonical(), revision=1),
    IP: Stored(encode_ip(pod_entry(1)), 7, 2),
    NODE: Stored(encode_node(node_entry(1)), 7, 3),
}


def view_of(values: dict[str, Stored]) -> ClusterView:
    view = ClusterView(GRACE_NS)
    assert view.merge(values, (), 0) == list(values)
    return view


def changes(*pairs: tuple[str, str | None]) -> Batch:
    return Batch(9, tuple(Change(key, value) for key, value in pairs))


def test_a_listing_that_says_the_same_touches_nothing() -> None:
    view = view_of(FULL)
    assert view.merge(FULL, (), 5) == []
    assert view.vanished == 0


def test_an_address_goes_at_once_while_its_node_is_there() -> None:
    without = {IDENTITY: FULL[IDENTITY], NODE: FULL[NODE]}
    view = view_of(FULL)
    assert view.merge(without, (), 1) == [IP]
    view = view_of(FULL)
    assert view.apply(changes((IP, None)), (), 1) == [IP]
    assert view.vanished == 0


def test_an_address_of_a_node_never_heard_of_goes_at_once_when_deleted() -> None:
    view = view_of({IP: FULL[IP]})
    assert view.apply(changes((IP, None)), (), 1) == [IP]


def test_an_address_of_a_node_never_heard_of_is_kept_when_a_listing_lacks_it() -> None:
    view = view_of({IP: FULL[IP]})
    assert view.merge({}, (), 1) == []
    assert view.expire(1 + GRACE_NS) == [IP]


def test_what_ended_with_its_node_is_kept_for_the_grace_period() -> None:
    view = view_of(FULL)
    assert view.apply(changes((IDENTITY, None), (IP, None), (NODE, None)), (), 10) == []
    assert view.vanished == 3
    assert view.expire(10 + GRACE_NS - 1) == []
    assert set(view.expire(10 + GRACE_NS)) == {IP, NODE, IDENTITY}
    assert view.vanished == 0


def test_an_address_that_ends_after_its_node_is_kept_too() -> None:
    view = view_of(FULL)
    assert view.apply(changes((NODE, None)), (), 10) == []
    assert view.apply(changes((IP, None)), (), 11) == []
    assert len(view.ips) == 1


def test_a_node_that_publishes_itself_again_ends_the_grace_of_what_it_no_longer_has() -> None:
    view = view_of(FULL | {ip_key(pod_entry(1, 6).network): Stored(encode_ip(pod_entry(1, 6)), 7, 4)})
    view.merge({}, (), 10)
    assert view.vanished == 4
    assert view.apply(changes((IP, FULL[IP].value)), (), 11) == []
    touched = view.apply(changes((NODE, FULL[NODE].value)), (), 12)
    assert touched == [ip_key(pod_entry(1, 6).network)]
    assert view.vanished == 1
    assert view.apply(changes((IDENTITY, WEB.canonical())), (), 13) == []
    assert view.vanished == 0


def test_each_listing_without_an_entry_starts_its_grace_again() -> None:
    view = view_of(FULL)
    view.merge({}, (), 0)
    view.merge({}, (), 50)
    assert view.expire(GRACE_NS + 1) == []
    assert set(view.expire(50 + GRACE_NS)) == set(FULL)


def test_own_entries_are_not_taken_by_their_absence() -> None:
    view = view_of(FULL)
    assert view.merge({}, FULL, 0) == []
    assert view.apply(changes(*((key, None) for key in FULL)), FULL, 0) == []
    assert view.vanished == 0
    assert view.expire(10**9) == []


def test_an_identity_stays_while_an_address_uses_it() -> None:
    view = view_of(FULL)
    assert view.apply(changes((IDENTITY, None)), (), 0) == []
    assert view.numbers_of(WEB) == [4242]
    assert view.apply(changes((IP, None)), (), 0) == [IP, IDENTITY]


def test_an_identity_nobody_uses_goes_at_once() -> None:
    view = view_of({IDENTITY: FULL[IDENTITY]})
    assert view.apply(changes((IDENTITY, None)), (), 0) == [IDENTITY]


def test_of_several_changes_of_a_key_the_last_counts() -> None:
    view = view_of(FULL)
    batch = changes(
        (IP, None), (IP, encode_ip(pod_entry(1, identity=9))), (NODE, "{"), (NODE, FULL[NODE].value)
    )
    assert view.apply(batch, (), 0) == [IP]
    assert view.ips[IP].identity == 9
    assert not view.malformed


def test_a_value_that_breaks_its_format_takes_the_entry_away() -> None:
    view = view_of(FULL)
    assert view.apply(changes((IP, "{")), (), 0) == [IP]
    assert view.malformed == {IP}
    assert view.merge({}, (), 0) == [IDENTITY]
    assert not view.malformed


def test_a_node_that_changed_its_address_owns_by_the_new_one() -> None:
    view = view_of(FULL)
    moved = node_entry(1, addresses=node_entry(2).addresses)
    view.apply(changes((NODE, encode_node(moved))), (), 0)
    view.merge({NODE: Stored(encode_node(moved))}, (), 0)
    assert list(view.ips) == [IP]
    assert view.vanished == 2
