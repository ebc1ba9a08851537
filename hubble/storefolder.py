"""The folder of a flow store: its ring, its lock, and damaged rings set aside.

Not the ring's bytes (`hubble.storefile`) nor its rows. Used by the writer when it opens; a reader only maps
the ring.
"""

import fcntl
import logging
import mmap
import os
import secrets
from pathlib import Path

from hubble import storefile
from hubble.errors import StoreBusyError, StoreDamagedError, StoreSpaceError
from hubble.storefile import Commit, Header
from hubble.storemapping import StoreMapping

logger = logging.getLogger(__name__)

LOCK_NAME = "flows.lock"
KEPT_DAMAGED = 3
"""Damaged files kept for a look; older ones go, or a crash loop would fill the disk."""


def lock(directory: Path) -> int:
    """Take the writer's lock and return its descriptor, to be closed. Raises StoreBusyError."""
    path = directory / LOCK_NAME
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(fd)
        raise StoreBusyError(path) from error
    return fd


def running_boot_id() -> bytes:
    """Return the 16 bytes that name this boot of the kernel."""
    text = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii")
    return bytes.fromhex(text.strip().replace("-", ""))


def open_ring(path: Path, capacity: int, now_ns: int, boot_id: bytes) -> tuple[mmap.mmap, Header, Commit]:
    """Map the ring at `path`; one that is not whole is set aside and made anew.

    Raises StoreSpaceError when the disk is full.
    """
    whole = _open_whole(path, capacity, boot_id)
    if isinstance(whole, str):
        _set_aside(path, whole)
    if whole is None or isinstance(whole, str):
        _make(path, capacity, now_ns, boot_id)
        whole = _open_whole(path, capacity, boot_id)
    if whole is None or isinstance(whole, str):
        raise StoreDamagedError(path, "changed while it was made")
    return whole


def _open_whole(path: Path, capacity: int, boot_id: bytes) -> tuple[mmap.mmap, Header, Commit] | str | None:
    """Return the mapped file with what it says of itself, None when there is none, or why it is not whole."""
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        size = os.fstat(fd).st_size
        header = storefile.parse_header(os.pread(fd, storefile.PAGE, 0), size)
        if isinstance(header, str):
            return header
        if header.capacity != capacity:
            return f"holds {header.capacity} flows, {capacity} are configured"
        mapping = mmap.mmap(fd, size)
    finally:
        os.close(fd)
    layout = StoreMapping(mapping, capacity)
    commit = layout.commit()
    if commit is None:
        return "no whole commit in it"
    # The plain head may trail the slot (killed in between), the intent may lead it (killed in a batch).
    if layout.head() > commit.head or layout.intent() > commit.head + capacity:
        return "its head is impossible"
    if commit.boot_id not in (bytes(16), boot_id):
        return "the machine stopped while it was written"
    return mapping, header, commit


def damaged_files(directory: Path) -> list[tuple[int, Path]]:
    """Return the rings set aside with their numbers, oldest first."""
    numbered = [(path.name.rpartition("-")[2], path) for path in directory.glob("flows.corrupt-*")]
    return sorted((int(number), path) for number, path in numbered if number.isdecimal())


def _set_aside(path: Path, reason: str) -> None:
    damaged = damaged_files(path.parent)
    target = path.with_name(f"flows.corrupt-{damaged[-1][0] + 1 if damaged else 1}")
    path.rename(target)
    for _, old in damaged[: len(damaged) - KEPT_DAMAGED + 1]:
        old.unlink(missing_ok=True)
    logger.warning("flow store set aside", extra={"path": str(target), "reason": reason})


def _make(path: Path, capacity: int, now_ns: int, boot_id: bytes) -> None:
    if not storefile.MIN_CAPACITY <= capacity <= storefile.MAX_CAPACITY:
        raise ValueError(f"capacity {capacity} is not in {storefile.MIN_CAPACITY}..{storefile.MAX_CAPACITY}")
    size = storefile.file_size(capacity)
    header = Header(capacity, secrets.randbits(60), now_ns)
    commit = Commit(generation=1, head=0, losses=0, source_id=0, boot_id=boot_id, accounts=())
    # Made beside and renamed: a reader never maps half a header. Blocks are allocated now, because a full
    # disk met later would be a SIGBUS in the middle of a batch.
    new = path.with_suffix(".new")
    fd = os.open(new, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o640)
    try:
        os.posix_fallocate(fd, 0, size)
        os.pwrite(fd, storefile.pack_header(header), 0)
        os.pwrite(fd, storefile.pack_commit(commit), storefile.commit_offset(commit.generation))
    except OSError as error:
        new.unlink(missing_ok=True)
        raise StoreSpaceError(path, size, error.strerror or str(error)) from error
    finally:
        os.close(fd)
    new.rename(path)
