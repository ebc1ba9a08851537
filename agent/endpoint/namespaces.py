"""Telling network namespaces apart: by what they are, not by the path that leads to them.

Not entering them (`datapath.netns`). `NamespaceTable` is what the manager needs; the fake is for tests.
"""

import os
from typing import NamedTuple, Protocol

from datapath import netns
from datapath.errors import NamespaceMissingError


class NamespaceKey(NamedTuple):
    """Device and inode of a namespace: equal for every path to the same one."""

    device: int
    inode: int


class NamespaceTable(Protocol):
    """Looks namespaces up."""

    def identify(self, path: str) -> NamespaceKey:
        """Return the key of the namespace at `path`; NamespaceMissingError where there is none."""
        ...

    def own(self) -> NamespaceKey:
        """Return the key of the namespace this process lives in."""
        ...


class KernelNamespaces:
    """The kernel's."""

    def identify(self, path: str) -> NamespaceKey:
        """Open it and look."""
        fd = netns.open_namespace(path)
        try:
            status = os.fstat(fd)
        finally:
            os.close(fd)
        return NamespaceKey(status.st_dev, status.st_ino)

    def own(self) -> NamespaceKey:
        """Look at this thread's."""
        return self.identify("/proc/thread-self/ns/net")


class FakeNamespaces:
    """Paths that exist; each is a namespace of its own unless `aliases` says whose other name it is."""

    def __init__(self, paths: set[str]) -> None:
        """Begin with `paths`; the set stays shared with the caller."""
        self.paths = paths
        self.aliases: dict[str, str] = {}

    def identify(self, path: str) -> NamespaceKey:
        """Return a key made from the path."""
        if path not in self.paths:
            raise NamespaceMissingError(path, "it does not exist")
        return NamespaceKey(0, hash(self.aliases.get(path, path)))

    def own(self) -> NamespaceKey:
        """Return a key that no path has."""
        return NamespaceKey(1, 1)
