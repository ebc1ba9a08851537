"""The CLI's configuration file: where it lies, what it may say, and what ranks above it."""

import subprocess
import sys

import pytest

from cli import configfile
from cli.errors import UsageError
from cli.main import main
from cli.parser import CommandParser
from cli.serverflags import add_server_flags, call_timeout_s, connect_timeout_s, names_server, target_of
from cli.target import TlsOptions
from tests.cli.flowserver import FlowServer, serving


def parsed(*words):
    parser = CommandParser(prog="test")
    parser.add_argument("--run-dir", default="/run/palomar")
    add_server_flags(parser)
    return parser.parse_args(words)


def written(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_flag_over_environment_over_file_over_default(tmp_path):
    file = written(tmp_path / "c.yaml", "server: file:1\ntls: true\ntimeout: 7s\nrequest-timeout: 8s\n")
    env = {"PALOMAR_CLI_CONFIG": str(file)}
    assert target_of(parsed(), {}).address == "unix:/run/palomar/hubble.sock"
    assert target_of(parsed(), env).address == "file:1"
    assert target_of(parsed(), env).tls == TlsOptions(enabled=True)
    assert target_of(parsed(), {**env, "HUBBLE_SERVER": "env:2"}).address == "env:2"
    assert target_of(parsed("--server", "flag:3"), {**env, "HUBBLE_SERVER": "env:2"}).address == "flag:3"
    assert (connect_timeout_s(parsed(), {}), connect_timeout_s(parsed(), env)) == (5, 7)
    assert connect_timeout_s(parsed(), {**env, "PALOMAR_TIMEOUT": "9s"}) == 9
    assert connect_timeout_s(parsed("--timeout", "10s"), {**env, "PALOMAR_TIMEOUT": "9s"}) == 10
    assert (call_timeout_s(parsed(), {}), call_timeout_s(parsed(), env)) == (12, 8)
    assert names_server(parsed(), env)
    assert not names_server(parsed(), {})


def test_the_file_s_tls_is_for_servers_over_a_network_and_can_be_turned_off(tmp_path):
    file = written(tmp_path / "c.yaml", "server: file:1\ntls-server-name: relay\n")
    env = {"HUBBLE_CONFIG": str(file)}
    assert target_of(parsed(), env).tls == TlsOptions(server_name="relay")
    assert target_of(parsed("--tls=false"), env).tls is None
    assert target_of(parsed("--server", "unix:///x.sock"), env).tls is None


def test_the_named_file_then_palomar_s_then_hubble_s(tmp_path):
    env = {"HOME": str(tmp_path / "home"), "XDG_CONFIG_HOME": str(tmp_path / "xdg")}
    places = [
        tmp_path / "home/.hubble/config.yaml",
        tmp_path / "home/.config/hubble/config.yaml",
        tmp_path / "xdg/hubble/config.yaml",
        tmp_path / "home/.config/palomar/config.yaml",
        tmp_path / "xdg/palomar/config.yaml",
    ]
    assert configfile.places(env) == places[::-1]
    for number, path in enumerate(places, 1):
        written(path, f"server: s:{number}")
        assert target_of(parsed(), env).address == f"s:{number}"
    for number, variable in enumerate(("HUBBLE_CONFIG", "PALOMAR_CLI_CONFIG"), 6):
        env[variable] = str(written(tmp_path / variable, f"server: s:{number}"))
        assert target_of(parsed(), env).address == f"s:{number}"
    flag = written(tmp_path / "flag.yaml", "server: s:8")
    assert target_of(parsed("--config", str(flag)), env).address == "s:8"


def test_the_working_directory_is_not_searched(tmp_path, monkeypatch):
    written(tmp_path / "config.yaml", "server: evil:1")
    monkeypatch.chdir(tmp_path)
    env = {"HOME": "", "XDG_CONFIG_HOME": "."}
    assert target_of(parsed(), env).address == "unix:/run/palomar/hubble.sock"


def test_a_run_directory_names_a_node_unless_the_file_was_named(tmp_path):
    file = written(tmp_path / ".config/palomar/config.yaml", "server: relay:1")
    lab = parsed("--run-dir", "/run/n1")
    assert target_of(lab, {"HOME": str(tmp_path)}).address == "unix:/run/n1/hubble.sock"
    assert target_of(lab, {"PALOMAR_CLI_CONFIG": str(file)}).address == "relay:1"


def test_file_names_are_relative_to_the_file(tmp_path):
    text = "server: r:1\ntls-ca-cert-files: [a.crt, /b.crt]\n"
    text += "tls-client-cert-file: c\ntls-client-key-file: c.key\n"
    file = written(tmp_path / "c.yaml", text)
    tls = target_of(parsed("--config", str(file)), {}).tls
    assert tls.ca_cert_files == (f"{tmp_path}/a.crt", "/b.crt")
    assert (tls.client_cert_file, tls.client_key_file) == (f"{tmp_path}/c", f"{tmp_path}/c.key")
    written(file, "server: r:1\ntls-ca-cert-files: a.crt,/b.crt\n")
    assert target_of(parsed("--config", str(file)), {}).tls.ca_cert_files == tls.ca_cert_files


@pytest.mark.parametrize(
    "text", ["", "# nothing\n", "server:\n", "debug: true\nkubeconfig: x\n", "server: ''\n"]
)
def test_what_says_nothing_changes_nothing(tmp_path, text):
    file = written(tmp_path / "c.yaml", text)
    assert not names_server(parsed("--config", str(file)), {})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sever: a:1", "sever: no such key; did you mean server"),
        ("tls-ca-cert-file: a", "did you mean tls-ca-cert-files"),
        ("port-forward: true", "port-forward: no such key"),
        ("5: a", "5: no such key .accepted: request-timeout, server"),
        ("tls: perhaps", "tls: 'perhaps': write true or false"),
        ("timeout: 5", "timeout: 5: write 5s"),
        ("server: [a, b]", "server: .*: write text"),
        ("tls-ca-cert-files: [1]", "tls-ca-cert-files: 1: write text"),
        ("- server", "write keys and values"),
        ("server: [", "no YAML"),
    ],
)
def test_what_cannot_be_meant_names_file_and_key(tmp_path, text, message):
    file = written(tmp_path / "c.yaml", text)
    with pytest.raises(UsageError, match=f"c.yaml: .*{message}|c.yaml: {message}"):
        target_of(parsed("--config", str(file)), {})


def test_a_named_file_must_exist_and_be_readable_as_text(tmp_path):
    with pytest.raises(UsageError, match=r"--config /nowhere/c\.yaml: no such file"):
        target_of(parsed("--config", "/nowhere/c.yaml"), {})
    with pytest.raises(UsageError, match="Is a directory"):
        target_of(parsed("--config", str(tmp_path)), {})
    binary = tmp_path / "binary"
    binary.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UsageError, match="UTF-8"):
        target_of(parsed("--config", str(binary)), {})


def test_a_command_uses_the_file_of_the_home_directory(home, tmp_path, capsys, monkeypatch):
    for name in ("PALOMAR_SERVER", "HUBBLE_SERVER", "PALOMAR_RUN_DIR"):
        monkeypatch.delenv(name, raising=False)
    written(home / ".config/hubble/config.yaml", f"server: unix://{tmp_path}/relay.sock\n")
    with serving(FlowServer(), f"unix:{tmp_path}/relay.sock"):
        assert main(["status", "--brief"]) == 0
        assert capsys.readouterr().out == "OK\n"
    written(home / ".config/hubble/config.yaml", "sever: x\n")
    assert main(["list", "nodes"]) == 2
    assert "did you mean server?" in capsys.readouterr().err


def test_without_a_file_no_yaml_is_loaded():
    code = (
        "import sys\nfrom cli import configfile\n"
        "assert configfile.load(None, {}) == configfile.ConfigFile()\nprint('yaml' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
