"""Which of a node's wishes are still to be carried out."""

from ipaddress import IPv4Network

from cluster.driver import Stored
from cluster.keys import identity_key, ip_key, node_key
from cluster.own import OwnKeys, Use
from palomar.identity import NumericIdentity
from palomar.labels import LabelSet

IP = ip_key(IPv4Network("10.1.0.5"))
NODE = node_key("default", "node-1")
WEB = LabelSet.parse(["k8s:app=web"])


def test_the_node_is_written_last() -> None:
    own = OwnKeys()
    own.put(NODE, "n")
    own.put(IP, "i")
    assert [key for key, _ in own.to_write()] == [IP, NODE]


def test_a_wish_that_changed_while_it_was_written_stays_pending() -> None:
    own = OwnKeys()
    own.put(IP, "1")
    [(key, value)] = own.to_write()
    own.put(IP, "2")
    own.written(key, value)
    assert own.to_write() == [(IP, "2")]


def test_a_key_removed_while_it_was_written_is_removed_with_the_written_value() -> None:
    own = OwnKeys()
    own.put(IP, "1")
    own.remove(IP)
    own.written(IP, "1")
    assert own.to_remove() == [(IP, "1")]
    own.removed(IP)
    assert own.pending == 0


def test_a_key_that_was_never_written_needs_no_removal() -> None:
    own = OwnKeys()
    own.put(IP, "1")
    own.remove(IP)
    assert own.to_remove() == []
    assert own.pending == 0


def test_a_key_that_came_back_while_it_was_removed_is_written_again() -> None:
    own = OwnKeys()
    own.put(IP, "1")
    own.written(IP, "1")
    own.remove(IP)
    assert own.to_remove() == [(IP, "1")]
    own.put(IP, "1")
    own.removed(IP)
    assert own.to_write() == [(IP, "1")]


def test_a_listing_shows_what_is_missing_differs_or_hangs_on_another_lease() -> None:
    own = OwnKeys()
    for key in ("a", "b", "c", "d", "gone"):
        own.put(key, "1")
        own.written(key, "1")
    own.remove("gone")
    own.uses[WEB] = Use(WEB, NumericIdentity(300), claimed=True)
    own.compare({"a": Stored("1", 7), "b": Stored("2", 7), "c": Stored("1", 6)}, 7)
    assert [key for key, _ in own.to_write()] == ["b", "c", "d"]
    assert own.to_remove() == []
    assert not own.uses[WEB].claimed
    own.compare({identity_key(300): Stored(WEB.canonical())}, 7)
    assert own.uses[WEB].claimed


def test_a_lost_number_is_to_be_claimed_again() -> None:
    own = OwnKeys()
    own.uses[WEB] = Use(WEB, NumericIdentity(300), claimed=True)
    assert own.keys() == {identity_key(300)}
    own.lost(identity_key(300))
    assert own.pending == 1
