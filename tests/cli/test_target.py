"""Where `--server` points: flags, environment, and what makes no sense."""

import argparse

import pytest

from cli.errors import UsageError
from cli.parser import CommandParser
from cli.serverflags import add_server_flags, call_timeout_s, connect_timeout_s, target_of
from cli.target import TlsOptions, parse_target

TARGETS = [
    ("unix:///run/x.sock", "unix:/run/x.sock", False),
    ("unix:/run/x.sock", "unix:/run/x.sock", False),
    ("/run/x.sock", "unix:/run/x.sock", False),
    ("relay", "relay:4245", False),
    ("relay:80", "relay:80", False),
    ("tcp://relay:80", "relay:80", False),
    ("[::1]", "[::1]:4245", False),
    ("[::1]:80", "[::1]:80", False),
    ("tls://relay:443", "relay:443", True),
    ("tls://relay", "relay:4245", True),
]


@pytest.mark.parametrize(("text", "address", "tls"), TARGETS)
def test_targets_are_read(text, address, tls):
    target = parse_target(text, TlsOptions())
    assert (target.address, target.tls is not None) == (address, tls)


@pytest.mark.parametrize("option", [{"enabled": True}, {"server_name": "x"}, {"ca_cert_files": ("a",)}])
def test_any_tls_flag_turns_tls_on(option):
    assert parse_target("relay:1", TlsOptions(**option)).tls is not None


@pytest.mark.parametrize(
    ("text", "tls"),
    [
        ("", {}),
        ("http://relay", {}),
        ("relay:port", {}),
        ("relay:70000", {}),
        ("::1:80", {}),
        ("unix:relative", {}),
        ("unix:///x", {"enabled": True}),
        ("relay", {"client_cert_file": "a"}),
        ("relay", {"client_key_file": "a"}),
    ],
)
def test_targets_that_make_no_sense_are_refused(text, tls):
    with pytest.raises(UsageError, match="--"):
        parse_target(text, TlsOptions(**tls))


def parsed(*words):
    parser = CommandParser(prog="test")
    parser.add_argument("--run-dir", default="/run/palomar")
    add_server_flags(parser)
    return parser.parse_args(words)


def test_flag_wins_over_environment_and_ours_over_the_field_s():
    environment = {"HUBBLE_SERVER": "a:1", "PALOMAR_SERVER": "b:2", "HUBBLE_TLS": "true"}
    assert target_of(parsed("--server", "c:3"), environment).address == "c:3"
    chosen = target_of(parsed(), environment)
    assert (chosen.address, chosen.tls) == ("b:2", TlsOptions(enabled=True))
    assert target_of(parsed("--tls=false"), environment).tls is None
    files = {"PALOMAR_SERVER": "b:2", "HUBBLE_TLS_CA_CERT_FILES": "/a,/b"}
    assert target_of(parsed(), files).tls.ca_cert_files == ("/a", "/b")


def test_without_any_the_node_s_own_socket_is_asked():
    assert target_of(parsed("--run-dir", "/run/n1"), {}).address == "unix:/run/n1/hubble.sock"


def test_timeouts():
    assert connect_timeout_s(parsed("--timeout", "300ms")) == 0.3
    assert call_timeout_s(parsed()) == 12
    with pytest.raises(UsageError, match="--timeout"):
        connect_timeout_s(parsed("--timeout", "0s"))


def test_namespace_is_untouched_by_reading_flags():
    args = parsed("--server", "relay:1")
    before = argparse.Namespace(**vars(args))
    target_of(args, {})
    assert args == before
