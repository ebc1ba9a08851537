"""The command line as a whole: commands are found, start light, and fail in one line."""

import argparse
import subprocess
import sys

import pytest

from cli import main as cli_main
from cli.main import COMMANDS, PASSED_ON, main
from cli.serverflags import add_server_flags
from palomar.errors import PermanentError


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command, capsys):
    with pytest.raises(SystemExit) as ended:
        main([command, "--help"])
    assert ended.value.code == 0
    assert f"palomar {command}" in capsys.readouterr().out


def test_help_lists_every_command(capsys):
    with pytest.raises(SystemExit):
        main(["--help"])
    out = capsys.readouterr().out
    assert all(f"    {name} " in out for name in [*COMMANDS, *PASSED_ON])


def test_without_a_command_help_is_printed_and_the_status_is_2(capsys):
    assert main([]) == 2
    assert "observe" in capsys.readouterr().out


@pytest.mark.parametrize("words", [["obsrve"], ["--nonsense"], ["endpoint"], ["endpoint", "lst"], ["bpf"]])
def test_nonsense_is_one_line_and_status_2(words, capsys):
    assert main(words) == 2
    err = capsys.readouterr().err
    assert err.startswith("palomar: ")
    assert err.count("\n") == 1


HEAVY = ("grpc", "google.protobuf", "yaml", "numpy", "bcc", "aiohttp", "asyncio", "pyroute2")


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_help_loads_nothing_heavy(command):
    code = (
        "import sys\nfrom cli.main import main\n"
        f"try: main({[word for word in (command, '--help') if word]!r})\n"
        "except SystemExit: pass\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr == "[]\n"


def test_observing_loads_neither_the_kernel_s_nor_the_agent_s_libraries(tmp_path):
    code = (
        "import sys\nfrom cli.main import main\n"
        f"main(['--run-dir', {str(tmp_path)!r}, 'observe', '--verdict', 'DROPPED'])\n"
        "heavy = ('numpy', 'bcc', 'aiohttp', 'pyroute2', 'cryptography')\n"
        "print([name for name in heavy if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


@pytest.mark.parametrize(
    ("words", "handed_over"),
    [
        (["agent", "--node-name", "one"], ["--node-name", "one"]),
        (["--run-dir", "/x", "agent", "--help"], ["--run-dir", "/x", "--help"]),
        (["--run-dir=/x", "agent"], ["--run-dir=/x"]),
    ],
)
def test_agent_and_lab_read_their_own_arguments(monkeypatch, words, handed_over):
    """The real module is not started: a stand-in of the same name takes the arguments."""
    import types

    taken = []
    stand_in = types.ModuleType("stand_in")
    stand_in.run = lambda argv: taken.append(argv) or 7
    monkeypatch.setitem(sys.modules, "stand_in", stand_in)
    monkeypatch.setitem(PASSED_ON, "agent", ("stand_in", ""))
    assert main(words) == 7
    assert taken == [handed_over]


def test_server_flags_may_stand_before_the_command(capsys):
    where = ["--server", "unix:///nowhere/one.sock", "--timeout=1s"]
    for words in (["status"], ["list", "nodes"], ["observe", "flows", "--last", "1"], ["w", "peer"]):
        assert main([*where, *words]) == 1
        assert "unix:///nowhere/one.sock" in capsys.readouterr().err
    assert main([*where, "observe", "--server", "unix:///nowhere/two.sock"]) == 1
    assert "unix:///nowhere/two.sock" in capsys.readouterr().err
    assert main([*where, "endpoint", "list"]) == 2
    assert "--server" in capsys.readouterr().err


def test_the_flags_that_may_stand_there_are_the_server_flags():
    parser = argparse.ArgumentParser(add_help=False)
    add_server_flags(parser)
    actions = [action for action in parser._actions if action.option_strings]
    assert {action.option_strings[0]: action.nargs != 0 for action in actions} == cli_main.SERVER_FLAGS


def test_help_is_a_command_too(capsys):
    for words, shown in ((["help"], "COMMAND"), (["help", "observe"], "--follow"), (["help", "w"], "KIND")):
        with pytest.raises(SystemExit) as ended:
            main(words)
        assert ended.value.code == 0
        assert shown in capsys.readouterr().out


def test_run_dir_of_environment_and_flag(monkeypatch, capsys):
    monkeypatch.setenv("PALOMAR_RUN_DIR", "/nowhere/env")
    assert main(["endpoint", "list"]) == 1
    assert "/nowhere/env/palomar.sock" in capsys.readouterr().err
    assert main(["--run-dir", "/nowhere/flag", "endpoint", "list"]) == 1
    assert "/nowhere/flag/palomar.sock" in capsys.readouterr().err


def test_an_error_of_ours_is_one_line_a_bug_is_a_traceback(monkeypatch, capsys):
    def failing(error):
        def dispatch(words):
            raise error

        return dispatch

    monkeypatch.setattr(cli_main, "_dispatch", failing(PermanentError("the disk is full: free some")))
    assert main(["status"]) == 1
    assert capsys.readouterr().err == "palomar: the disk is full: free some\n"
    monkeypatch.setattr(cli_main, "_dispatch", failing(KeyError("bug")))
    with pytest.raises(KeyError):
        main(["status"])
    monkeypatch.setattr(cli_main, "_dispatch", failing(KeyboardInterrupt()))
    assert main(["status"]) == 130
