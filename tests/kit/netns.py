"""Network namespaces for tests: named with the run's prefix, removed with everything in them."""

import socket
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from datapath import netns

T = TypeVar("T")


class NetnsFactory:
    """Makes namespaces `<prefix>-<name>`; `close` removes them all."""

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix
        self._names: list[str] = []

    def create(self, name: str) -> str:
        """Return the path of a new namespace with its loopback up."""
        full = f"{self.prefix}-{name}"
        command("ip", "netns", "add", full)
        self._names.append(full)
        command("ip", "-n", full, "link", "set", "lo", "up")
        return f"/run/netns/{full}"

    def delete(self, path: str) -> None:
        """Remove one namespace."""
        name = Path(path).name
        command("ip", "netns", "del", name)
        self._names.remove(name)

    def close(self) -> None:
        """Remove every namespace made here, also after failures."""
        for name in reversed(self._names):
            subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)
        self._names.clear()


def command(*argv: str) -> str:
    """Run a program to its end and return what it printed; AssertionError with its words on failure."""
    done = subprocess.run(argv, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 0, f"{' '.join(argv)}: {done.stderr or done.stdout}"
    return done.stdout


def exec_in(path: str, *argv: str, timeout_s: float = 30) -> subprocess.CompletedProcess[str]:
    """Run a program inside the namespace (network only: /sys stays ours)."""
    return subprocess.run(
        ["nsenter", f"--net={path}", *argv], capture_output=True, text=True, timeout=timeout_s, check=False
    )


def run_in(path: str, fn: Callable[[], T]) -> T:
    """Call `fn` in a thread inside the namespace."""
    return netns.run(path, fn)


def ping(path: str, address: object, count: int = 1) -> bool:
    """Tell whether `address` answers an ICMP echo request from inside the namespace within a second."""
    return exec_in(path, "ping", "-n", "-c", str(count), "-W", "1", "-i", "0.2", str(address)).returncode == 0


def tcp_listener(path: str, address: str, port: int = 0) -> socket.socket:
    """Return a listening TCP socket that lives in the namespace; accept within 3 s or TimeoutError."""

    def make() -> socket.socket:
        listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((address, port))
        listener.listen(8)
        listener.settimeout(3)
        return listener

    return run_in(path, make)


def tcp_connect(path: str, address: str, port: int, timeout_s: float = 1.0) -> socket.socket:
    """Return a TCP connection opened from inside the namespace; TimeoutError when nothing answers."""
    return run_in(path, lambda: socket.create_connection((address, port), timeout=timeout_s))


def udp_socket(path: str, address: str, port: int = 0) -> socket.socket:
    """Return a bound UDP socket that lives in the namespace, with a 1 s timeout."""

    def make() -> socket.socket:
        made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        made.bind((address, port))
        made.settimeout(1)
        return made

    return run_in(path, make)
