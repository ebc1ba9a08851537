"""Fixtures every test may use: a unique prefix, BPF pin root, network namespaces; the `root` and `bpf` marks.

`root` and `bpf` tests skip, with the reason, when the process is not root. As root they never skip: a kernel
that lacks what Palomar needs makes them fail.
"""

import itertools
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kit.netns import NetnsFactory

_counter = itertools.count(1)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if os.geteuid() == 0:
        return
    for item in items:
        for mark in ("root", "bpf", "e2e"):
            if item.get_closest_marker(mark):
                item.add_marker(pytest.mark.skip(reason=f"`{mark}` tests need root: run `make test-root`"))
                break


@pytest.fixture
def unique_prefix() -> str:
    """`plt<pid>-<n>`: names of namespaces and pins; at most 15 characters with one letter more."""
    return f"plt{os.getpid()}-{next(_counter)}"


@pytest.fixture
def bpf_root(unique_prefix: str) -> Iterator[Path]:
    """An empty pin root of this test's own; bpffs is mounted when missing, the root removed afterwards."""
    from datapath.bpffs import ensure_mounted, remove_tree

    root = Path("/sys/fs/bpf") / unique_prefix
    ensure_mounted(root)
    yield root
    remove_tree(root)


@pytest.fixture
def netns_factory(unique_prefix: str) -> Iterator[NetnsFactory]:
    """Makes network namespaces; all are removed afterwards."""
    factory = NetnsFactory(unique_prefix)
    yield factory
    factory.close()
