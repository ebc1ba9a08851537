"""TLS files: read together or not at all; TCP without mutual TLS is refused."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from palomar.certdir import CertDirectory
from palomar.certs import Role
from palomar.errors import InvalidInputError
from palomar.tls import TlsFiles, check_listener, is_loopback, server_credentials, tls_files

NOW = datetime(2026, 11, 21, 8, tzinfo=UTC)


@pytest.fixture
def files(tmp_path: Path) -> TlsFiles:
    directory = CertDirectory(tmp_path)
    directory.init(NOW)
    directory.issue(Role.AGENT, "other", NOW)
    return directory.issue(Role.AGENT, "n1", NOW)


def test_a_pair_that_does_not_belong_together_is_refused(files: TlsFiles) -> None:
    """Half replaced files are never taken up."""
    assert server_credentials(files)
    files.key.write_bytes((files.key.parent / "agent-other.key").read_bytes())
    with pytest.raises(
        InvalidInputError, match=r"agent-n1.crt and .*agent-n1.key: the key belongs to another"
    ):
        files.read()


@pytest.mark.parametrize(
    ("which", "words"),
    [("cert", "no PEM certificate"), ("key", "no PEM key"), ("ca", "no PEM certificate in it")],
)
@pytest.mark.parametrize("share", [0, 0.5])
def test_a_half_written_file_is_named_and_never_taken_up(
    files: TlsFiles, which: str, words: str, share: float
) -> None:
    """A CA too: with half of one gRPC would refuse everybody, or trust nobody."""
    path: Path = getattr(files, which)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(InvalidInputError, match=rf"{path.name}.*{words}"):
        files.read()


@pytest.mark.parametrize("which", ["cert", "key", "ca"])
def test_a_missing_file_is_named_with_the_remedy(files: TlsFiles, which: str) -> None:
    """Whichever it is."""
    path: Path = getattr(files, which)
    path.unlink()
    with pytest.raises(InvalidInputError, match=rf"{path.name}: No such file.*palomar certs"):
        server_credentials(files)


def test_the_version_moves_with_the_files(files: TlsFiles) -> None:
    """A rename over a file is a new version, a missing file another."""
    first = files.version()
    assert files.version() == first
    partial = files.cert.with_suffix(".partial")
    partial.write_bytes(files.cert.read_bytes())
    partial.replace(files.cert)
    second = files.version()
    assert second != first
    files.cert.unlink()
    assert files.version() not in (first, second)


@pytest.mark.parametrize(
    ("address", "allow", "problem"),
    [
        ("0.0.0.0:4244", False, "without mutual TLS is refused"),
        ("127.0.0.1:4244", False, "without mutual TLS is refused"),
        ("0.0.0.0:4244", True, "only loopback"),
        ("example:4244", True, "only loopback"),
        ("127.0.0.1", True, "not HOST:PORT"),
        ("127.0.0.1:x", True, "not HOST:PORT"),
        ("127.0.0.1:70000", True, "not HOST:PORT"),
    ],
)
def test_tcp_without_tls_is_refused(address: str, allow: bool, problem: str) -> None:
    """Unless it is loopback and was asked for."""
    with pytest.raises(InvalidInputError, match=problem) as caught:
        check_listener(address, None, allow, "listen")
    assert caught.value.path == "listen"


def test_tcp_that_is_served(files: TlsFiles) -> None:
    """With mutual TLS anywhere; in plain text on loopback when told so."""
    check_listener("0.0.0.0:4244", files, False)
    for host in ("127.0.0.1", "[::1]", "localhost", "127.9.9.9"):
        check_listener(f"{host}:4244", None, True)
        assert is_loopback(host)


def test_three_names_go_together() -> None:
    """None of them is no TLS; some of them is a mistake."""
    assert tls_files("", "", "") is None
    assert tls_files("c", "k", "a") == TlsFiles(Path("c"), Path("k"), Path("a"))
    with pytest.raises(InvalidInputError, match="no key and no CA given"):
        tls_files("c", "", "", "--tls-cert-file")
