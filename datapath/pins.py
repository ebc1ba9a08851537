"""Maps in the kernel and their pins: make, open, compare with what is needed.

Not the file system they stand in (`bpffs.py`) and not what a map holds (`maps/`). Input: paths below a node's
bpf root; output: file descriptors, which are the caller's to close.
"""

import ctypes as ct
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from datapath import libbpf
from datapath.abi.mapspecs import MapSpec
from datapath.errors import MapDifference, MapError, MapMismatchError, MapMissingError

_ENOENT = 2


@dataclass(frozen=True, slots=True)
class MapInfo:
    """Attributes of a map in the kernel (`struct bpf_map_info`), or those one must have (then without id)."""

    type: int
    key_size: int
    value_size: int
    max_entries: int
    flags: int
    id: int = 0


def map_info(fd: int) -> MapInfo:
    """Return the attributes of the map behind `fd`; `MapError` where it is not a map."""
    info = libbpf.MapInfoStruct()
    size = ct.c_uint32(ct.sizeof(info))
    if libbpf.obj_get_info_by_fd(fd, ct.byref(info), ct.byref(size)) < 0:
        errno = libbpf.last_errno()
        raise MapError(f"fd {fd}", "get info", errno, libbpf.reason(errno))
    return MapInfo(
        type=info.type,
        key_size=info.key_size,
        value_size=info.value_size,
        max_entries=info.max_entries,
        flags=info.map_flags,
        id=info.id,
    )


def open_pinned(path: Path) -> int:
    """Return a new file descriptor of the object pinned at `path`; the caller closes it."""
    fd = int(libbpf.obj_get(os.fsencode(path)))
    if fd >= 0:
        return fd
    errno = libbpf.last_errno()
    if errno == _ENOENT:
        raise MapMissingError(path)
    raise MapError(str(path), "open pinned", errno, libbpf.reason(errno))


def pin(fd: int, path: Path) -> None:
    """Pin the object behind `fd` at `path`, whose folder must exist on a bpffs."""
    if libbpf.obj_pin(fd, os.fsencode(path)) < 0:
        errno = libbpf.last_errno()
        raise MapError(str(path), "pin", errno, libbpf.reason(errno))


def compare(path: Path, needed: MapInfo, pinned: MapInfo) -> Iterator[MapDifference]:
    """Yield every attribute in which the map pinned at `path` is not what is needed."""
    rows = (
        ("type", libbpf.type_name(needed.type), libbpf.type_name(pinned.type)),
        ("key size", str(needed.key_size), str(pinned.key_size)),
        ("value size", str(needed.value_size), str(pinned.value_size)),
        ("max entries", str(needed.max_entries), str(pinned.max_entries)),
        ("flags", hex(needed.flags), hex(pinned.flags)),
    )
    for attribute, wanted, found in rows:
        if wanted != found:
            yield MapDifference(path, attribute, wanted, found)


def differences(spec: MapSpec, path: Path, fd: int) -> tuple[MapDifference, ...]:
    """Return every attribute in which the map behind `fd`, pinned at `path`, is not `spec`."""
    needed = MapInfo(spec.type, spec.key_size, spec.value_size, spec.max_entries, spec.flags)
    return tuple(compare(path, needed, map_info(fd)))


def create_pinned(spec: MapSpec, path: Path) -> int:
    """Create a map and pin it at `path`; return its descriptor.

    Without BTF on purpose: bpftool then prints keys and values as the bytes that the field's recipes show.
    """
    name = spec.name.encode()[:15]
    fd = int(
        libbpf.map_create(
            spec.type,
            name,
            spec.key_size,
            spec.value_size,
            spec.max_entries,
            ct.byref(libbpf.MapCreateOpts(ct.sizeof(libbpf.MapCreateOpts), map_flags=spec.flags)),
        )
    )
    if fd < 0:
        errno = libbpf.last_errno()
        raise MapError(spec.name, "create", errno, libbpf.reason(errno))
    try:
        pin(fd, path)
    except MapError:
        os.close(fd)
        raise
    return fd


def open_checked(spec: MapSpec, path: Path, *, create: bool) -> int:
    """Open the map pinned at `path`, or make it with `create`.

    Raises `MapMissingError` without `create`, and `MapMismatchError` where it is not `spec`.
    """
    try:
        fd = open_pinned(path)
    except MapMissingError:
        if not create:
            raise
        return create_pinned(spec, path)
    different = differences(spec, path, fd)
    if different:
        os.close(fd)
        raise MapMismatchError(different)
    return fd
