"""A process that asked for it gets SIGTERM when the process that started it is killed."""

import os
import subprocess
import sys
from pathlib import Path

from tests.kit.wait import eventually

ROOT = Path(__file__).parents[2]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT)}
CHILD = """
import os, pathlib, signal, sys
from palomar.parent import die_with_parent
signal.signal(signal.SIGTERM, lambda *_: (pathlib.Path(sys.argv[1], "told").touch(), os._exit(0)))
{}
pathlib.Path(sys.argv[1], "ready").write_text(str(os.getpid()))
while True:
    signal.pause()
"""
PARENT = """
import subprocess, sys
subprocess.run([sys.executable, "-c", *sys.argv[1:]])
"""

ASKS = """
import os
from palomar.parent import die_with_parent
print(die_with_parent(), die_with_parent(0), die_with_parent(os.getppid()), die_with_parent(os.getpid()))
"""


def test_a_child_is_told_when_its_parent_is_killed(tmp_path: Path) -> None:
    """Not so a child that did not ask: the signal is the kernel's answer to the call."""
    ready, told = tmp_path / "ready", tmp_path / "told"
    child = CHILD.format("assert die_with_parent(os.getppid())")
    parent = subprocess.Popen([sys.executable, "-c", PARENT, child, str(tmp_path)], env=ENVIRONMENT)
    try:
        eventually(lambda: ready.exists() and ready.read_text(), timeout_s=20)
        assert not told.exists()
    finally:
        parent.kill()
        parent.wait()
    eventually(told.exists)


def test_another_parent_than_expected_is_noticed() -> None:
    """Between fork and the call the parent may have ended: somebody else has taken the child over."""
    done = subprocess.run([sys.executable, "-c", ASKS], env=ENVIRONMENT, stdout=subprocess.PIPE, check=True)
    assert done.stdout.split() == [b"True", b"True", b"True", b"False"]
