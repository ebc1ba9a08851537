"""Chosen ports: nobody else's, however many choose at once, and never one of an outgoing connection."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.kit.ports import EPHEMERAL, candidates, claim, free_port

ROOT = Path(__file__).parents[2]
CHOOSES = """
import sys
from tests.kit.ports import free_port
print(*(free_port() for _ in range(40)), flush=True)
sys.stdin.read()
"""


def test_processes_that_choose_at_once_get_different_ports() -> None:
    """While they live; what they leave can be had again."""
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", CHOOSES],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(4)
    ]
    try:
        chosen = [
            int(word) for process in processes if process.stdout for word in process.stdout.readline().split()
        ]
        chosen += [free_port() for _ in range(40)]
    finally:
        for process in processes:
            process.communicate()
    assert len(chosen) == 5 * 40
    assert len(set(chosen)) == len(chosen)
    least, most = map(int, EPHEMERAL.read_text().split())
    assert not [port for port in chosen if least <= port <= most]


def test_a_port_in_use_is_passed_over() -> None:
    """Whoever listens need not have claimed it; when nobody does any more it can be had."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        assert not claim(port)
    assert claim(port)
    assert not claim(port)


@pytest.mark.parametrize(
    ("ephemeral", "first", "last", "count"),
    [
        ("32768\t60999\n", 20_000, 65_535, 12_768 + 4_536),
        ("1024 60999", 61_000, 65_535, 4_536),
        ("49152 65535", 20_000, 49_151, 29_152),
        ("1024 2048", 20_000, 65_535, 45_536),
    ],
)
def test_no_candidate_may_be_of_an_outgoing_connection(
    ephemeral: str, first: int, last: int, count: int
) -> None:
    ports = candidates(ephemeral)
    assert (ports[0], ports[-1], len(ports)) == (first, last, count)
    least, most = map(int, ephemeral.split())
    assert not [port for port in ports if least <= port <= most]
