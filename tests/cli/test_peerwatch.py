"""Announcements compared with what was shown: each change is news once, over any number of connections."""

import pytest

from cli.peerwatch import KnownPeers, line
from palomar_pb.peer import peer_pb2

KINDS = {"+": peer_pb2.PEER_ADDED, "~": peer_pb2.PEER_UPDATED, "-": peer_pb2.PEER_DELETED}


def announced(text):
    """`+a1`: peer a is added, with address 1."""
    return peer_pb2.ChangeNotification(type=KINDS[text[0]], name=text[1], address=text[2:])


def shown(changes):
    signs = {kind: sign for sign, kind in KINDS.items()}
    return [f"{signs[change.type]}{change.name}{change.address}" for change in changes]


SCRIPTS = [
    ("the first connection shows all", ["+a1 +b1 ~a2 -b1"], ["+a1 +b1 ~a2 -b1"]),
    ("nobody is added twice", ["+a1 +b1", "+a1 +b1"], ["+a1 +b1", ""]),
    ("an address that moved meanwhile", ["+a1", "+a2"], ["+a1", "~a2"]),
    ("one that came meanwhile", ["+a1", "+a1 +b1"], ["+a1", "+b1"]),
    ("one that went meanwhile", ["+a1 +b1 +c1", "+b1"], ["+a1 +b1 +c1", "-a1 -c1"]),
    ("one that went before and came again", ["+a1", "+b1", "+b1 +a1"], ["+a1", "+b1 -a1", "+a1"]),
    ("cut before all were named", ["+a1 +b1", "!+b1", "+a1 +b1"], ["+a1 +b1", "", ""]),
    ("the same again says nothing", ["+a1 ~a1 +a1"], ["+a1"]),
    ("gone, of whom nobody heard", ["-a1 +b1"], ["+b1"]),
    ("changes after a reconnection", ["+a1", "+a1 ~a2 -a2 +a3"], ["+a1", "~a2 -a2 +a3"]),
]


@pytest.mark.parametrize(
    ("connections", "expected"), [script[1:] for script in SCRIPTS], ids=[script[0] for script in SCRIPTS]
)
def test_changes_only(connections, expected):
    """A connection marked with ! is cut before it has settled."""
    known = KnownPeers()
    for words, told in zip(connections, expected, strict=True):
        known.begin()
        news = []
        for word in words.removeprefix("!").split():
            news += known.take(announced(word))
        if not words.startswith("!") and known.unsettled:
            news += known.settle()
        assert not (known.unsettled and not words.startswith("!"))
        assert " ".join(shown(news)) == told


def test_a_kind_of_a_newer_version_is_passed_on():
    """By its number, whatever it means."""
    newer = peer_pb2.ChangeNotification(type=9, name="a", address="1")
    assert [line(change) for change in KnownPeers().take(newer)] == ["9            1 a"]


def test_a_certificate_name_is_part_of_what_is_known():
    """A node that begins to speak TLS has changed."""
    known = KnownPeers()
    known.begin()
    assert len(list(known.take(announced("+a1")))) == 1
    with_tls = announced("+a1")
    with_tls.tls.server_name = "a.example"
    (news,) = known.take(with_tls)
    assert line(news) == "PEER_UPDATED 1 a (TLS.ServerName: a.example)"
