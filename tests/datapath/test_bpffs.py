"""The BPF file system: found, refused, cleaned; one owner per root."""

import subprocess
import sys
from pathlib import Path

import pytest

from datapath.abi.mapspecs import MapSpec, MapType
from datapath.bpffs import RootLock, ensure_mounted, is_bpffs, mount_type, remove_tree, replace_pin
from datapath.errors import BpffsError, BpffsInUseError
from datapath.pins import create_pinned, map_info, open_pinned


def test_mount_types_are_told_apart() -> None:
    """/proc is proc, whatever is mounted below or above it."""
    assert mount_type(Path("/proc")) == "proc"
    assert mount_type(Path("/proc/self/net")) == "proc"
    assert not is_bpffs(Path("/tmp/absent/deeper"))


def test_root_elsewhere_is_refused(tmp_path: Path) -> None:
    """A root on another file system is refused with the remedy."""
    with pytest.raises(BpffsError, match="mount -t bpf bpf"):
        ensure_mounted(tmp_path / "root")
    assert not (tmp_path / "root").exists()


@pytest.mark.root
@pytest.mark.bpf
def test_pins_are_replaced_and_removed(bpf_root: Path) -> None:
    """A rename replaces in one step; removing a root twice is no error."""
    import os

    ensure_mounted(bpf_root / "deep" / "er")
    assert is_bpffs(bpf_root / "deep")
    ids = []
    for name in ("one", "two"):
        fd = create_pinned(MapSpec(name, MapType.ARRAY, 4, 4, 1), bpf_root / "deep" / name)
        ids.append(map_info(fd).id)
        os.close(fd)
    replace_pin(bpf_root / "deep" / "two", bpf_root / "deep" / "one")
    fd = open_pinned(bpf_root / "deep" / "one")
    assert map_info(fd).id == ids[1]
    os.close(fd)
    remove_tree(bpf_root / "deep")
    remove_tree(bpf_root / "deep")
    assert list(bpf_root.iterdir()) == []


HOLDER = """
import sys
from pathlib import Path
from datapath.bpffs import RootLock
lock = RootLock(Path(sys.argv[1]), Path("/sys/fs/bpf"))
lock.acquire()
print("held", flush=True)
sys.stdin.read()
"""


def test_second_owner_is_refused_and_named(tmp_path: Path) -> None:
    """While another process holds the lock, its id is in the error; kill -9 frees the lock."""
    path = tmp_path / "run" / "root.lock"
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    lock = RootLock(path, Path("/sys/fs/bpf"))
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(BpffsInUseError, match=f"in use by process {holder.pid}") as caught:
            lock.acquire()
        assert caught.value.holder_pid == holder.pid
    finally:
        holder.kill()
        holder.communicate()
    lock.acquire()
    lock.acquire()
    with pytest.raises(BpffsInUseError):
        RootLock(path, Path("/sys/fs/bpf")).acquire()
    lock.release()
    lock.release()
    RootLock(path, Path("/sys/fs/bpf")).acquire()


def test_importing_the_light_modules_loads_neither_bcc_nor_netlink() -> None:
    """What the CLI's quick paths import must not pay for bcc or pyroute2."""
    script = (
        "import sys, datapath.config, datapath.errors, datapath.abi, datapath.bpffs, datapath.netns;"
        "assert not {'bcc', 'pyroute2', 'numpy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=20)
