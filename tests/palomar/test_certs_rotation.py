"""The CA is replaced in three steps; between any two of them everybody can check everybody."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from cli.main import main
from palomar import certs
from palomar.certdir import CertDirectory
from palomar.certrotation import NEXT_KEY, CaRotation, Stage
from palomar.certs import Role
from palomar.errors import InvalidInputError
from tests.kit import oddcerts

NOW = datetime(2026, 11, 21, 8, tzinfo=UTC)
DAY = timedelta(days=1)


@pytest.fixture
def directory(tmp_path: Path) -> CertDirectory:
    made = CertDirectory(tmp_path / "certs")
    made.init(NOW)
    made.issue(Role.AGENT, "n1", NOW, names=("n1.example",))
    made.issue(Role.CLIENT, "alice", NOW, lifetime=2 * DAY)
    return made


def leaves(directory: CertDirectory) -> dict[str, bytes]:
    names = ("agent-n1.crt", "client-alice.crt")
    return {name: (directory.directory / name).read_bytes() for name in names}


def test_at_every_step_old_and_new_certificates_are_checked_by_old_and_new_copies_of_the_ca(
    directory: CertDirectory,
) -> None:
    """Who is one step behind with the copy of `ca.crt`, or with the certificate, still works."""
    rotation = CaRotation(directory)
    trusted, shown = [directory.ca_file.read_bytes()], [leaves(directory)]
    for step in (rotation.start, rotation.issue, rotation.finish):
        step(NOW)
        trusted.append(directory.ca_file.read_bytes())
        shown.append(leaves(directory))
        for bundle in trusted[-2:]:
            for certificates in shown[-2:]:
                stale = step == rotation.finish and bundle == trusted[-1] and certificates is shown[-2]
                for cert in certificates.values():
                    assert certs.signed_by(cert, bundle) or stale
    assert shown[0].keys() == shown[3].keys()
    assert all(not certs.signed_by(cert, trusted[3]) for cert in shown[0].values())
    assert all(certs.signed_by(cert, trusted[3]) for cert in shown[3].values())
    assert not (directory.directory / NEXT_KEY).exists()
    assert len(certs.split(trusted[3])) == 1
    assert (directory.directory / "ca.key").stat().st_mode & 0o777 == 0o600


def test_what_is_issued_or_renewed_between_the_steps_is_signed_by_the_one_that_signs(
    directory: CertDirectory,
) -> None:
    """The old one until `issue`, the new one from then on; names and lifetimes stay."""
    rotation = CaRotation(directory)
    old = directory.ca_file.read_bytes()
    rotation.start(NOW)
    assert certs.signed_by(directory.issue(Role.CLIENT, "bob", NOW).cert.read_bytes(), old)
    assert [found.problem for found in directory.renew(NOW, everything=True)] == [""] * 3
    rotation.issue(NOW)
    new = directory.ca().cert
    assert certs.signed_by(directory.issue(Role.CLIENT, "carol", NOW).cert.read_bytes(), new)
    info = certs.inspect(leaves(directory)["agent-n1.crt"])
    assert "n1.example" in info.names
    assert certs.inspect(leaves(directory)["client-alice.crt"]).not_after == NOW + 2 * DAY
    assert [found.problem for found in directory.entries(NOW)] == [""] * 6
    assert [found.path.name for found in directory.entries(NOW)][:2] == ["ca.crt", "ca.crt"]


def test_the_state_says_what_is_next_and_what_is_missing(directory: CertDirectory) -> None:
    """And a step out of order is refused with the one that is due."""
    rotation = CaRotation(directory)
    assert rotation.state(NOW).next_step is Stage.START
    with pytest.raises(InvalidInputError, match="rotate-ca start"):
        rotation.issue(NOW)
    with pytest.raises(InvalidInputError, match="rotate-ca start"):
        rotation.finish(NOW)
    rotation.start(NOW)
    state = rotation.state(NOW)
    assert (state.next_step, state.signer) == (Stage.ISSUE, "CN=Palomar CA")
    assert [path.name for path in state.pending] == ["agent-n1.crt", "client-alice.crt"]
    with pytest.raises(InvalidInputError, match="rotate-ca issue"):
        rotation.start(NOW)
    with pytest.raises(InvalidInputError, match="rotate-ca issue"):
        rotation.finish(NOW)
    rotation.issue(NOW)
    state = rotation.state(NOW)
    assert (state.next_step, state.others, state.pending) == (Stage.FINISH, ("CN=Palomar CA",), ())
    assert rotation.finish(NOW).next_step is Stage.START


def test_a_step_that_was_broken_off_is_done_again(directory: CertDirectory) -> None:
    """After every single write of `start` and `issue`."""
    rotation = CaRotation(directory)
    folder = directory.directory
    before = directory.ca_file.read_bytes()
    (folder / NEXT_KEY).write_bytes(certs.make_ca(NOW).key)  # killed before ca.crt was written
    assert rotation.state(NOW).next_step is Stage.START
    rotation.start(NOW)
    assert directory.ca_file.read_bytes() != before
    old = leaves(directory)
    (folder / NEXT_KEY).replace(folder / "ca.key")  # killed before a certificate was issued
    assert rotation.state(NOW).next_step is Stage.FINISH
    with pytest.raises(InvalidInputError, match=r"agent-n1\.crt, client-alice\.crt: `rotate-ca"):
        rotation.finish(NOW)
    assert [found.path.name for found in rotation.issue(NOW)] == ["agent-n1.crt", "client-alice.crt"]
    (folder / "agent-n1.crt").write_bytes(old["agent-n1.crt"])  # killed before this one
    assert [found.path.name for found in rotation.issue(NOW)] == ["agent-n1.crt"]
    assert rotation.finish(NOW).next_step is Stage.START


def test_what_the_end_of_the_old_ca_cut_short_gets_its_life_back(directory: CertDirectory) -> None:
    """A certificate renewed in the old CA's last days is not short-lived for ever."""
    later = NOW + certs.CA_LIFETIME - 3 * DAY
    directory.renew(later, everything=True)
    assert certs.inspect(leaves(directory)["agent-n1.crt"]).not_after == NOW + certs.CA_LIFETIME
    rotation = CaRotation(directory)
    rotation.start(later)
    rotation.issue(later)
    assert certs.inspect(leaves(directory)["agent-n1.crt"]).not_after == later + certs.LEAF_LIFETIME


def test_a_strangers_certificate_holds_up_nothing_but_the_end(directory: CertDirectory) -> None:
    """What `palomar certs` did not issue is said, the others are issued anew, `finish` waits for it."""
    stranger = oddcerts.make("stranger", oddcerts.load(directory.ca()))
    (directory.directory / "a-stranger.crt").write_bytes(stranger.pem)
    (directory.directory / "a-stranger.key").write_bytes(stranger.key_pem())
    rotation = CaRotation(directory)
    rotation.start(NOW)
    problems = {found.path.name: found.problem for found in rotation.issue(NOW)}
    assert "was not issued by palomar certs" in problems.pop("a-stranger.crt")
    assert problems == {"agent-n1.crt": "", "client-alice.crt": ""}
    with pytest.raises(InvalidInputError, match=r"a-stranger\.crt"):
        rotation.finish(NOW)
    (directory.directory / "a-stranger.crt").unlink()
    rotation.finish(NOW)


def test_the_command_leads_through(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each step ends with what to do before the next."""
    folder = f"--dir={tmp_path}"

    def said(*words: str, status: int = 0) -> str:
        assert main(["certs", *words, folder]) == status
        captured = capsys.readouterr()
        return captured.out + captured.err

    assert "palomar certs init" in said("rotate-ca", status=1)
    said("init")
    said("issue", "--role", "agent", "n1")
    assert "begin with `palomar certs rotate-ca start`" in said("rotate-ca")
    assert "when all have it: `palomar certs rotate-ca issue`" in said("rotate-ca", "start")
    assert "trusted too: CN=Palomar CA 20" in said("rotate-ca")
    issued = said("rotate-ca", "issue")
    assert "agent-n1.crt: renewed until" in issued
    assert "`palomar certs rotate-ca finish`" in issued
    assert "holds one CA again" in said("rotate-ca", "finish")
    assert "next is `rotate-ca start`" in said("rotate-ca", "finish", status=1)
