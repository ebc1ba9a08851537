"""Certificates as Hubble clients expect them, and what is said of ones that do not serve."""

from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from palomar import certs
from palomar.certs import KeyPair, Role
from palomar.errors import InvalidInputError
from tests.kit import oddcerts

NOW = datetime(2026, 11, 21, 8, tzinfo=UTC)
CA = certs.make_ca(NOW)


@pytest.mark.parametrize(
    ("role", "name", "names", "serves"),
    [
        (Role.AGENT, "node-1", ("node-1.default.hubble-grpc.cilium.io",), True),
        (Role.AGENT, "node.1", ("node-1.default.hubble-grpc.cilium.io",), True),
        (Role.RELAY, "relay", ("*.hubble-relay.cilium.io", "hubble-relay", "localhost", "127.0.0.1"), True),
        (Role.UI, "ui", (), False),
        (Role.CLIENT, "someone", (), False),
    ],
)
def test_names_and_usages_of_each_role(role: Role, name: str, names: tuple[str, ...], serves: bool) -> None:
    """Servers are named as clients look them up; everybody may be a client."""
    pair = certs.issue(CA, role, name, NOW)
    info = certs.inspect(pair.cert)
    assert (info.names, info.role, info.name, info.is_ca) == (names, role, name, False)
    usages = x509.load_pem_x509_certificate(pair.cert).extensions.get_extension_for_class(
        x509.ExtendedKeyUsage
    )
    assert (ExtendedKeyUsageOID.SERVER_AUTH in usages.value) is serves
    assert ExtendedKeyUsageOID.CLIENT_AUTH in usages.value
    assert info.not_after == NOW + timedelta(days=30)
    assert certs.signed_by(pair.cert, CA.cert)
    assert certs.is_pair(pair)


def test_further_names_and_addresses() -> None:
    """`names` come after the role's own."""
    pair = certs.issue(CA, Role.AGENT, "n", NOW, names=("n.example", "::1"), cluster="east.1")
    assert certs.inspect(pair.cert).names == ("n.east-1.hubble-grpc.cilium.io", "n.example", "::1")
    with pytest.raises(InvalidInputError, match="cannot be a name"):
        certs.issue(CA, Role.AGENT, "n", NOW, names=("ü.example",))


def test_problem_and_due() -> None:
    """Expired and not yet valid with the moment; due after two thirds."""
    info = certs.inspect(certs.issue(CA, Role.CLIENT, "a", NOW).cert)
    assert info.problem(NOW) == ""
    assert info.problem(NOW + timedelta(days=31)) == "expired at 2026-12-21T08:00:00Z"
    assert info.problem(NOW - timedelta(days=1)) == "not valid before 2026-11-21T07:55:00Z"
    assert [info.due(NOW + timedelta(days=day)) for day in (0, 19, 21)] == [False, False, True]


def test_a_successor_keeps_role_names_and_lifetime() -> None:
    """But not the key and the serial number."""
    pair = certs.issue(CA, Role.AGENT, "n", NOW, names=("n.example",), lifetime=timedelta(hours=8))
    later = NOW + timedelta(hours=7)
    successor = certs.reissue(CA, pair.cert, later)
    before, after = certs.inspect(pair.cert), certs.inspect(successor.cert)
    assert (before.names, before.subject, before.lifetime) == (after.names, after.subject, after.lifetime)
    assert after.not_after == later + timedelta(hours=8)
    assert before.serial != after.serial
    assert not certs.is_pair(KeyPair(pair.cert, successor.key))


def test_nobody_outlives_the_authority() -> None:
    """A certificate ends with its CA, and an expired CA issues none."""
    ca = certs.make_ca(NOW, lifetime=timedelta(days=10))
    assert certs.inspect(certs.issue(ca, Role.CLIENT, "a", NOW).cert).not_after == NOW + timedelta(days=10)
    with pytest.raises(InvalidInputError, match="the CA expired at 2026-12-01"):
        certs.issue(ca, Role.CLIENT, "a", NOW + timedelta(days=11))


def test_another_authoritys_certificate_is_told_apart() -> None:
    """Also where both CAs have one name."""
    other = certs.make_ca(NOW)
    cert = certs.issue(other, Role.CLIENT, "a", NOW).cert
    assert not certs.signed_by(cert, CA.cert)
    assert certs.signed_by(cert, CA.cert + other.cert)


@pytest.mark.parametrize(
    ("names", "wanted", "matches"),
    [
        (("a.b.c",), "a.b.c", True),
        (("A.b.c",), "a.B.c", True),
        (("*.b.c",), "a.b.c", True),
        (("*.b.c",), "x.a.b.c", False),
        (("*.b.c",), "b.c", False),
        ((), "a", False),
    ],
)
def test_wildcards_stand_for_one_label(names: tuple[str, ...], wanted: str, matches: bool) -> None:
    """RFC 6125, 6.4.3."""
    assert certs.matches_name(names, wanted) is matches


@pytest.mark.parametrize(
    "text", [b"", b"nonsense", b"-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n"]
)
def test_what_is_no_certificate_is_said_to_be_none(text: bytes) -> None:
    """InvalidInputError, never another exception."""
    with pytest.raises(InvalidInputError, match="not a PEM certificate"):
        certs.inspect(text)
    assert not certs.is_pair(KeyPair(text, CA.key))
    assert not certs.signed_by(text, CA.cert)
    with pytest.raises(InvalidInputError, match="damaged"):
        certs.issue(KeyPair(text, text), Role.CLIENT, "a", NOW)


def test_why_a_pair_cannot_be_shown_is_said() -> None:
    """Half written, encrypted, another's, in the wrong order; RSA, SEC 1 and chains are fine."""
    root = oddcerts.make("Root", is_ca=True)
    between = oddcerts.make("Between", root, is_ca=True)
    leaf = oddcerts.make("leaf", between)
    rsa = oddcerts.make("rsa", root, key=oddcerts.rsa_key())
    other = oddcerts.make("other")
    cases = {
        (leaf.pem, leaf.key_pem()): "",
        (leaf.pem, leaf.key_pem(traditional=True)): "",
        (leaf.pem + between.pem, leaf.key_pem()): "",
        (rsa.pem, rsa.key_pem()): "",
        (rsa.pem, rsa.key_pem(traditional=True)): "",
        (between.pem + leaf.pem, leaf.key_pem()): "one's own certificate must stand before",
        (leaf.pem, other.key_pem()): "the key belongs to another certificate",
        (leaf.pem[:200], leaf.key_pem()): "the certificate is no PEM certificate, or half of one",
        (b"", leaf.key_pem()): "the certificate is no PEM certificate",
        (leaf.pem, leaf.key_pem()[:80]): "the key is no PEM key, or half of one",
        (leaf.pem, b""): "the key is no PEM key",
        (leaf.pem, leaf.key_pem(password=b"x")): "the key is encrypted",
    }
    for (cert, key), words in cases.items():
        said = certs.pair_problem(KeyPair(cert, key))
        assert said.startswith(words), words
        assert bool(said) == bool(words)
        assert certs.is_pair(KeyPair(cert, key)) != bool(words)


def test_a_chain_leads_to_its_authority_or_not() -> None:
    """With the authorities between shown, and without; a loop of two ends."""
    root = oddcerts.make("Root", is_ca=True)
    upper = oddcerts.make("Upper", root, is_ca=True)
    lower = oddcerts.make("Lower", upper, is_ca=True)
    leaf = oddcerts.make("leaf", lower)
    assert certs.signed_by(leaf.pem + lower.pem + upper.pem, root.pem)
    assert certs.signed_by(leaf.pem + upper.pem + lower.pem, CA.cert + root.pem)
    assert certs.signed_by(leaf.pem + lower.pem, upper.pem)
    assert not certs.signed_by(leaf.pem, root.pem)
    assert not certs.signed_by(leaf.pem + lower.pem, root.pem)
    assert not certs.signed_by(root.pem + root.pem, CA.cert)


def test_an_authoritys_file_may_hold_several_or_none() -> None:
    """What cannot be read is said to be none."""
    assert certs.split(CA.cert + CA.cert) == [CA.cert, CA.cert]
    assert certs.bundle_problem(b"# ours\n" + CA.cert) == ""
    for bad in (b"", b"nonsense", CA.cert[:200]):
        assert "no PEM certificate" in certs.bundle_problem(bad)
        with pytest.raises(InvalidInputError, match="damaged"):
            certs.signer(bad, CA.key)
    other = certs.make_ca(NOW)
    assert certs.signer(CA.cert + other.cert, other.key) == other.cert
    with pytest.raises(InvalidInputError, match="key of no certificate"):
        certs.signer(CA.cert, other.key)


def test_usages_say_on_which_side_a_certificate_serves() -> None:
    """Without any extended key usage on both."""
    made = {
        usages: certs.inspect(oddcerts.make("x", usages=usages).pem)
        for usages in ((), (oddcerts.SERVER,), (oddcerts.CLIENT,))
    }
    assert [(info.may_serve, info.may_ask) for info in made.values()] == [
        (True, True),
        (True, False),
        (False, True),
    ]


def test_an_authority_is_due_in_its_last_tenth() -> None:
    """Not for a whole year before its end."""
    info = certs.inspect(CA.cert)
    assert [info.due(info.not_after - timedelta(days=days)) for days in (200, 100)] == [False, True]
