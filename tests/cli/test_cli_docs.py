"""docs/cli.md is true: its examples parse, and every filter flag and command is in it."""

import re
import shlex
from pathlib import Path

import pytest

from cli import filterflags
from cli.main import COMMANDS, PASSED_ON, _parser
from cli.parser import CommandParser

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "cli.md").read_text()
EXAMPLES = re.findall(r"^palomar .*$", PAGE, re.MULTILINE)


@pytest.mark.parametrize("example", EXAMPLES)
def test_example_parses(example):
    words = shlex.split(example)[1:]
    assert _parser(words[0]).parse_args(words).command == words[0]


def test_every_command_is_described():
    shown = {shlex.split(example)[1] for example in EXAMPLES}
    assert shown <= set(COMMANDS)
    assert all(f"`{name}`" in PAGE for name in [*COMMANDS, *PASSED_ON])


def test_every_filter_flag_is_described():
    parser = CommandParser(prog="test")
    filterflags.add_filter_flags(parser)
    flags = {option for action in parser._actions for option in action.option_strings}
    plain = {flag for flag in flags if not flag.startswith(("--from-", "--to-"))}
    undescribed = {flag for flag in plain if f"`{flag}" not in PAGE}
    assert undescribed <= {"-h", "--help", "-A", "--all-namespaces", "--ipv4", "--ipv6"}
