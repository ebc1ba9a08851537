"""`palomar ui`: what its flags may and may not mean."""

import argparse
from pathlib import Path

import pytest

from cli.commands import ui
from cli.errors import UsageError
from cli.parser import CommandParser
from cli.serverflags import target_of
from palomar.errors import InvalidInputError
from palomar.tls import TlsFiles

TLS = ("--tls-ca-cert-files", "ca.pem", "--tls-client-cert-file", "ui.pem", "--tls-client-key-file", "ui.key")


def arguments(*words: str) -> argparse.Namespace:
    parser = CommandParser(prog="palomar")
    parser.add_argument("--run-dir", default="/run/palomar")
    ui.add_parser(parser.add_subparsers(dest="command"))
    parsed: argparse.Namespace = parser.parse_args(["ui", *words])
    return parsed


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ((), None),
        (("--server", "unix:///run/palomar/hubble.sock"), None),
        (("--server", "127.0.0.1:4245"), None),
        (("--server", "localhost:4245"), None),
        (("--server", "10.0.0.1:4245", *TLS), TlsFiles(Path("ui.pem"), Path("ui.key"), Path("ca.pem"))),
    ],
)
def test_plain_text_is_for_this_machine_only(words: tuple[str, ...], expected: TlsFiles | None) -> None:
    """Unix sockets and loopback need no TLS; with the three files it is mutual."""
    assert ui.tls_files(target_of(arguments(*words), {})) == expected


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--server", "10.0.0.1:4245"), "is another machine and no TLS flag"),
        (("--server", "relay.example:4245"), "is another machine and no TLS flag"),
        (("--server", "10.0.0.1:4245", "--tls"), "TLS needs one --tls-ca-cert-files"),
        (("--server", "10.0.0.1:4245", *TLS[:2]), "TLS needs one --tls-ca-cert-files"),
        (("--server", "10.0.0.1:4245", *TLS, "--tls-allow-insecure"), "--tls-allow-insecure"),
    ],
)
def test_what_would_be_open_to_others_is_refused(words: tuple[str, ...], message: str) -> None:
    """The error names the flag and the remedy."""
    with pytest.raises(UsageError, match=message):
        ui.tls_files(target_of(arguments(*words), {}))


def test_another_listen_address_is_refused_before_anything_starts() -> None:
    """Loopback only, with the remedy."""
    with pytest.raises(InvalidInputError, match="no login yet"):
        ui.run(arguments("--listen", "0.0.0.0:8080"))
