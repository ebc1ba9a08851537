"""A directory of certificates: made, renewed, listed; what does not serve is said."""

import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from palomar import certs
from palomar.certdir import CertDirectory, examine
from palomar.certs import Role
from palomar.errors import InvalidInputError
from tests.kit import oddcerts

NOW = datetime(2026, 11, 21, 8, tzinfo=UTC)
DAY = timedelta(days=1)


@pytest.fixture
def directory(tmp_path: Path) -> CertDirectory:
    made = CertDirectory(tmp_path / "certs")
    assert made.init(NOW)
    return made


def test_files_and_their_modes(directory: CertDirectory) -> None:
    """Keys are for their owner alone."""
    files = directory.issue(Role.AGENT, "n1", NOW)
    assert {path.name: stat.S_IMODE(path.stat().st_mode) for path in directory.directory.iterdir()} == {
        "ca.crt": 0o644,
        "ca.key": 0o600,
        "agent-n1.crt": 0o644,
        "agent-n1.key": 0o600,
    }
    assert files.read()


def test_an_authority_is_made_once(directory: CertDirectory) -> None:
    """`init` again keeps it; half of one is not made up for."""
    before = directory.ca()
    assert not directory.init(NOW)
    assert directory.ca() == before
    (directory.directory / "ca.key").unlink()
    with pytest.raises(InvalidInputError, match="half an authority"):
        directory.init(NOW)
    with pytest.raises(InvalidInputError, match="palomar certs init"):
        directory.issue(Role.AGENT, "n1", NOW)


@pytest.mark.parametrize("name", ["", "../x", "a/b", "-a", "ä", "a" * 64, ".hidden"])
def test_names_that_are_no_file_names_are_refused(directory: CertDirectory, name: str) -> None:
    """Naming what is accepted."""
    with pytest.raises(InvalidInputError, match="letters, digits"):
        directory.issue(Role.CLIENT, name, NOW)


def test_what_is_due_is_renewed(directory: CertDirectory) -> None:
    """And nothing else, unless everything is wanted; the authority never."""
    directory.issue(Role.CLIENT, "long", NOW, lifetime=100 * DAY)
    short = directory.issue(Role.AGENT, "short", NOW, lifetime=3 * DAY, names=("short.example",))
    later = NOW + 2.5 * DAY
    assert [found.path.name for found in directory.renew(later)] == ["agent-short.crt"]
    info = certs.inspect(short.cert.read_bytes())
    assert info.not_after == later + 3 * DAY
    assert "short.example" in info.names
    assert short.read()
    assert directory.renew(later) == []
    assert [found.path.name for found in directory.renew(later, everything=True)] == [
        "agent-short.crt",
        "client-long.crt",
    ]


def test_the_list_says_what_is_wrong(directory: CertDirectory) -> None:
    """Expired, of another CA, no certificate, no key."""
    for name in ("expired", "other", "keyless", "good"):
        directory.issue(Role.CLIENT, name, NOW, lifetime=(2 if name == "expired" else 100) * DAY)
    other = certs.issue(certs.make_ca(NOW), Role.CLIENT, "other", NOW, lifetime=100 * DAY)
    directory.files(Role.CLIENT, "other").cert.write_bytes(other.cert)
    directory.files(Role.CLIENT, "keyless").key.unlink()
    (directory.directory / "broken.crt").write_text("nonsense")
    found = {entry.path.name: entry.problem for entry in directory.entries(NOW + 3 * DAY)}
    assert next(iter(found)) == "ca.crt"
    assert found["ca.crt"] == found["client-good.crt"] == ""
    assert found["client-expired.crt"] == "expired at 2026-11-23T08:00:00Z"
    assert found["client-other.crt"] == "not signed by this directory's CA"
    assert found["client-keyless.crt"] == "client-keyless.key is missing or not its key"
    assert "not a PEM certificate" in found["broken.crt"]


def test_one_that_cannot_be_renewed_holds_up_no_other(directory: CertDirectory) -> None:
    """It is among the answers with its problem; those after it in the alphabet are renewed."""
    directory.issue(Role.CLIENT, "z", NOW, lifetime=3 * DAY)
    (directory.directory / "agent-broken.crt").write_text("nonsense")
    stranger = oddcerts.make("stranger", oddcerts.load(directory.ca()))
    (directory.directory / "b-stranger.crt").write_bytes(stranger.pem)
    later = NOW + 100 * DAY
    problems = {found.path.name: found.problem for found in directory.renew(later)}
    assert "not a PEM certificate" in problems["agent-broken.crt"]
    assert "was not issued by palomar certs" in problems["b-stranger.crt"]
    assert problems["client-z.crt"] == ""
    assert (directory.directory / "b-stranger.crt").read_bytes() == stranger.pem


def test_of_several_authorities_each_is_listed_and_the_first_to_end_is_watched(
    directory: CertDirectory,
) -> None:
    """During a change of the CA, and where nodes and clients have different ones."""
    short = certs.make_ca(NOW, lifetime=10 * DAY, name="Short")
    directory.ca_file.write_bytes(directory.ca_file.read_bytes() + short.cert)
    listed = directory.entries(NOW + 11 * DAY)
    assert [found.info.name for found in listed if found.info] == ["Palomar CA", "Short"]
    assert [bool(found.problem) for found in listed] == [False, True]
    watched = examine(directory.ca_file, NOW + 11 * DAY)
    assert watched.problem == "expired at 2026-12-01T08:00:00Z"
    directory.ca_file.write_bytes(b"nonsense")
    assert ["no PEM certificate" in found.problem for found in directory.entries(NOW)] == [True]
