"""Entering namespaces leaves the caller where it was and says what is missing."""

import os
from pathlib import Path

import pytest

from datapath import netns
from datapath.errors import NamespaceMissingError
from tests.kit.netns import NetnsFactory


def own() -> str:
    return os.readlink("/proc/thread-self/ns/net")


@pytest.mark.root
def test_only_the_call_is_inside(netns_factory: NetnsFactory) -> None:
    """The function runs inside; the caller's thread never moves; results and errors come back."""
    path = netns_factory.create("a")
    before = own()
    inside = netns.run(path, own)
    assert inside != before == own()
    assert netns.exists(path)

    def fail() -> None:
        raise ValueError("inside")

    with pytest.raises(ValueError, match="inside"):
        netns.run(path, fail)
    assert netns.run_in_new(own) not in (before, inside)


@pytest.mark.parametrize("name", ["absent", "plain", "folder"])
def test_missing_namespace_is_named(tmp_path: Path, name: str) -> None:
    """Nothing, a leftover file and a folder are all refused, with the path."""
    (tmp_path / "plain").touch()
    (tmp_path / "folder").mkdir()
    path = tmp_path / name
    assert not netns.exists(path)
    with pytest.raises(NamespaceMissingError, match=str(path)):
        netns.run(path, own)
