"""Entering network namespaces: a call in a thread of its own, never `ip netns exec`.

`ip netns exec` mounts a fresh /sys and hides bpffs and cgroups; `setns` moves one thread and nothing else.
/proc/sys/net, netlink sockets and new processes follow the calling thread's namespace. A thread that
has moved is never reused.
"""

import ctypes as ct
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from datapath.errors import NamespaceMissingError

T = TypeVar("T")

CLONE_NEWNET = 0x40000000
NSFS_MAGIC = 0x6E736673
"""Of linux/magic.h: the file system of namespace files."""
_libc = ct.CDLL(None, use_errno=True)


def exists(path: str | Path) -> bool:
    """Tell whether `path` names a network namespace."""
    try:
        fd = open_namespace(path)
    except NamespaceMissingError:
        return False
    os.close(fd)
    return True


def open_namespace(path: str | Path) -> int:
    """Open a namespace file such as /run/netns/x; the caller closes it. `NamespaceMissingError` otherwise."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise NamespaceMissingError(
            str(path), f"{error.strerror}: create it (ip netns add) before adding the endpoint"
        ) from error
    # A leftover of a dead namespace is an empty plain file; a live one lies on nsfs.
    if _file_system(fd) != NSFS_MAGIC:
        os.close(fd)
        raise NamespaceMissingError(str(path), "the file is no network namespace (a leftover?): recreate it")
    return fd


def _file_system(fd: int) -> int:
    # The first word of `struct statfs` is f_type; Python's os.fstatvfs does not show it.
    buffer = ct.create_string_buffer(256)
    if _libc.fstatfs(fd, buffer) != 0:
        return 0
    return int(ct.cast(buffer, ct.POINTER(ct.c_long)).contents.value)


def run(path: str | Path, fn: Callable[[], T]) -> T:
    """Call `fn` inside the namespace at `path` and return its result or raise its error. About 1 ms."""
    fd = open_namespace(path)
    try:
        return run_in_fd(fd, fn, str(path))
    finally:
        os.close(fd)


def run_in_fd(fd: int, fn: Callable[[], T], name: str) -> T:
    """Like `run` for an open namespace; `name` is for the error message."""

    def enter() -> None:
        if _libc.setns(fd, CLONE_NEWNET) != 0:
            raise NamespaceMissingError(name, f"cannot enter: {os.strerror(ct.get_errno())}")

    return _in_thread(enter, fn)


def run_in_new(fn: Callable[[], T]) -> T:
    """Call `fn` in a new, empty namespace that ends with the call."""

    def unshare() -> None:
        if _libc.unshare(CLONE_NEWNET) != 0:
            raise NamespaceMissingError("(new)", f"cannot create: {os.strerror(ct.get_errno())}: run as root")

    return _in_thread(unshare, fn)


def _in_thread(move: Callable[[], None], fn: Callable[[], T]) -> T:
    results: list[T] = []
    errors: list[BaseException] = []

    def body() -> None:
        try:
            move()
            results.append(fn())
        except BaseException as error:  # noqa: BLE001  # handed to the caller's thread
            errors.append(error)

    thread = threading.Thread(target=body, name="netns")
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
    return results[0]
