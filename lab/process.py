"""Starting the lab's processes in its namespaces, detached from the command that starts them.

They are found again by the namespace they live in (`lab.network.processes`), so a lab can be taken
down after the command that made it was killed.
"""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from lab.network import in_namespace
from palomar.clock import Clock
from palomar.errors import TransientError

POLL_S = 0.05


class NotReadyError(TransientError):
    """Something that was started does not answer in time."""


def start(namespace: str, argv: list[str], log: Path, env: Mapping[str, str] | None = None) -> int:
    """Start `argv` in `namespace` with its output in `log`; return its process id."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        process = subprocess.Popen(
            in_namespace(namespace, argv),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            cwd="/",
            env=child_environment(env),
        )
    # The child outlives this command on purpose; Popen would warn about it when collected.
    process.returncode = 0
    return process.pid


def child_environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """Environment of a lab's processes: ours, without what would name another node's agent."""
    ours = {key: value for key, value in os.environ.items() if not key.startswith(("PALOMAR_", "HUBBLE_"))}
    return {**ours, **(extra or {}), "PYTHONPATH": python_path(), "PYTHONUNBUFFERED": "1"}


def process_mark(pid: int) -> str:
    """Name a process so that another one with its number is told apart; empty where it is gone."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return ""
    state, *fields = stat.rpartition(")")[2].split()
    return "" if state == "Z" else f"{pid}@{fields[18]}"  # proc(5): field 22, when it was started


def mark_lives(mark: str) -> bool:
    """Tell whether the process with this mark still runs."""
    pid = mark.partition("@")[0]
    return pid.isdigit() and process_mark(int(pid)) == mark


def with_resolver(resolv_conf: Path, argv: list[str]) -> list[str]:
    """Run `argv` in a mount namespace of its own whose /etc/resolv.conf is `resolv_conf`."""
    script = 'mount --bind "$0" /etc/resolv.conf && exec "$@"'
    return ["unshare", "--mount", "--", "sh", "-c", script, str(resolv_conf), *argv]


def python_path() -> str:
    """Let a child import what this process imports, also from a checkout that is not installed."""
    root = str(Path(__file__).resolve().parent.parent)
    return os.pathsep.join([root, str(Path(root) / "proto"), *filter(None, [os.environ.get("PYTHONPATH")])])


def palomar(*arguments: str) -> list[str]:
    """Argument list of the `palomar` command run by this interpreter."""
    return [sys.executable, "-m", "cli.main", *arguments]


def wait_until(what: str, ready: Callable[[], bool], timeout_s: float, clock: Clock, log: Path) -> None:
    """Poll `ready` until it is true; raise NotReadyError with the end of `log` after `timeout_s`."""
    deadline_ns = clock.monotonic_ns() + int(timeout_s * 1e9)
    while not ready():
        if clock.monotonic_ns() > deadline_ns:
            tail = log.read_text(errors="replace")[-2000:] if log.exists() else "no output"
            raise NotReadyError(f"{what} is not ready after {timeout_s:.0f} s; the end of {log}:\n{tail}")
        time.sleep(POLL_S)


def exec_in(namespace: str, argv: list[str]) -> int:
    """Run `argv` in `namespace` on this terminal and return its status."""
    return subprocess.call(in_namespace(namespace, argv))
