"""What is wrong with a certificate is said in words: whose, why, until when."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from palomar import certs
from palomar.certdir import CertDirectory
from palomar.certs import Role
from palomar.handshake import explain, judge, own_problem

NOW = datetime(2026, 11, 21, 8, tzinfo=UTC)
CA = certs.make_ca(NOW)
DAY = timedelta(days=1)
NAME = "n1.default.hubble-grpc.cilium.io"


@pytest.mark.parametrize(
    ("issuer", "party", "options", "problem"),
    [
        (CA, "n1", {}, ""),
        (CA, "n1", {"not_before": NOW - 3 * DAY, "lifetime": -DAY}, "expired at 2026-11-20T08:00:00Z"),
        (CA, "n1", {"not_before": NOW + DAY}, "not valid before 2026-11-22T08:00:00Z"),
        (certs.make_ca(NOW, name="Other"), "n1", {}, "issued by CN=Other, not by our CA"),
        (certs.make_ca(NOW), "n1", {}, "issued by CN=Palomar CA, not by our CA"),
        (CA, "n2", {}, f"is for n2.default.hubble-grpc.cilium.io, not for {NAME}"),
    ],
)
def test_a_nodes_certificate_is_judged(
    issuer: certs.KeyPair, party: str, options: dict[str, Any], problem: str
) -> None:
    """With its subject and how long it is valid."""
    presented = certs.issue(issuer, Role.AGENT, party, NOW, **options).cert
    said = judge(presented, CA.cert, NAME, NOW)
    assert said.endswith(problem)
    if problem:
        assert f"CN={party}" in said
        assert "valid 2026-11-" in said


def test_what_is_no_certificate_is_judged_too() -> None:
    """Never an exception."""
    assert "not a PEM certificate" in judge(b"", CA.cert, NAME, NOW)


def test_our_own_is_looked_at_first(tmp_path: Path) -> None:
    """Before anybody is dialled."""
    directory = CertDirectory(tmp_path)
    directory.init(NOW)
    files = directory.issue(Role.RELAY, "r", NOW)
    assert own_problem(files, NOW) == ""
    later = NOW + 31 * DAY
    said = explain("127.0.0.1:1", NAME, files, later)
    assert said.startswith(f"our own certificate {files.cert} (CN=r,OU=relay, valid ")
    assert said.endswith("expired at 2026-12-21T08:00:00Z")
    files.ca.write_bytes(CA.cert)
    assert own_problem(files, NOW).endswith(f"not signed by the CA in {files.ca}")
    files.cert.unlink()
    assert "palomar certs" in own_problem(files, NOW)


def test_nothing_is_said_where_there_is_no_tls() -> None:
    """Unix sockets and peers without a server name have no certificates."""
    assert explain("unix:/nowhere", NAME, None, NOW) == ""
    assert explain("127.0.0.1:1", "", None, NOW) == ""
