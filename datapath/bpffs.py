"""The BPF file system: mounted or not, the pin folders, renames, and the lock of the root's one owner.

Not maps (`pins.py`, `maps/`). bpffs holds no plain files, so the lock is a file elsewhere whose path is
passed in. Pin names must not contain a dot: the kernel reserves them (EPERM).
"""

import contextlib
import fcntl
import os
from pathlib import Path

from datapath.errors import BpffsError, BpffsInUseError
from palomar import proc

"""Of linux/magic.h, as `stat -f -c %t` prints it."""


def is_bpffs(path: Path) -> bool:
    """Tell whether the nearest existing ancestor of `path` (or itself) lies on a BPF file system."""
    here = path
    while not here.exists() and here != here.parent:
        here = here.parent
    return mount_type(here) == "bpf"


def mount_type(path: Path) -> str:
    """Return the file system type of the mount that holds `path`, from /proc/self/mountinfo."""
    target = str(path.resolve())
    best, found = "", ""
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        before, _, after = line.partition(" - ")
        point = before.split()[4].encode().decode("unicode_escape")
        inside = target == point or target.startswith(point.rstrip("/") + "/")
        # Later lines cover earlier ones mounted at the same place.
        if inside and len(point) >= len(best):
            best, found = point, after.split()[0]
    return found


def ensure_mounted(root: Path) -> None:
    """Make sure that `root` is a folder on a BPF file system; mount one at /sys/fs/bpf where it is missing.

    `BpffsError` says what to do where that is impossible.
    """
    if not is_bpffs(root):
        default = Path("/sys/fs/bpf")
        if default not in (root, *root.parents):
            raise BpffsError(f"{root} is not on a BPF file system: mount one (mount -t bpf bpf {root})")
        try:
            proc.run(["mount", "-t", "bpf", "bpf", str(default)])
        except proc.CommandError as error:
            raise BpffsError(f"cannot mount a BPF file system at {default}: run as root: {error}") from error
    try:
        root.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BpffsError(f"cannot make {root}: {error.strerror}") from error


def replace_pin(source: Path, target: Path) -> None:
    """Rename a pin over another in one step; what `target` named loses that pin.

    A PROG_ARRAY whose last user reference goes is emptied by the kernel: rename only when no attached
    program still needs the old one.
    """
    source.rename(target)


def remove_tree(root: Path) -> None:
    """Remove every pin and folder below `root`, and `root` itself unless it is a mount point."""
    if not root.is_dir():
        return
    for folder, _, pins in os.walk(root, topdown=False):
        for name in pins:
            (Path(folder) / name).unlink(missing_ok=True)
        if not os.path.ismount(folder):
            with contextlib.suppress(FileNotFoundError):
                Path(folder).rmdir()


class RootLock:
    """Exclusive ownership of a bpf root, held as long as the process lives (`flock`)."""

    def __init__(self, lock_path: Path, bpf_root: Path) -> None:
        """Name the lock file (outside bpffs) and the root it stands for."""
        self.lock_path = lock_path
        self.bpf_root = bpf_root
        self._fd: int | None = None

    def acquire(self) -> None:
        """Take the lock and write this process's id; `BpffsInUseError` names the holder. Idempotent."""
        if self._fd is not None:
            return
        self.lock_path.parent.mkdir(parents=True, exist_ok=True)
        fd = os.open(self.lock_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            text = os.pread(fd, 32, 0).decode(errors="replace").strip()
            os.close(fd)
            raise BpffsInUseError(
                self.bpf_root, self.lock_path, int(text) if text.isdigit() else None
            ) from error
        os.ftruncate(fd, 0)
        os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
        self._fd = fd

    def release(self) -> None:
        """Give the lock back; the file stays, so that no two owners ever hold different files. Idempotent."""
        if self._fd is not None:
            os.ftruncate(self._fd, 0)
            os.close(self._fd)
            self._fd = None
