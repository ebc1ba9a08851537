"""Perf rings of the event path: one per CPU, mapped, behind the pinned `cilium_events` map, with one epoll.

The rim: perf_event_open and mmap. Not here: finding samples in a ring (`samples.py`), what a sample means
(`events.py`) and where it goes (`hubble.ingest`). Kernel: include/uapi/linux/perf_event.h.
"""

import ctypes as ct
import mmap
import os
import select
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Self

import numpy as np

from datapath import libbpf
from datapath.errors import FeatureMissingError, MapError
from datapath.pins import map_info, open_pinned
from datapath.samples import Samples, Words, find_samples

RING_BYTES = 8 << 20
WATERMARK_BYTES = 64 << 10


class _PerfEventAttr(ct.Structure):
    """`struct perf_event_attr` up to PERF_ATTR_SIZE_VER5 (112 bytes)."""

    _fields_ = (
        ("type", ct.c_uint32),
        ("size", ct.c_uint32),
        ("config", ct.c_uint64),
        ("sample_period", ct.c_uint64),
        ("sample_type", ct.c_uint64),
        ("read_format", ct.c_uint64),
        ("flags", ct.c_uint64),
        ("wakeup_watermark", ct.c_uint32),
        ("rest", ct.c_uint8 * 60),
    )


_TYPE_SOFTWARE = 1
_COUNT_SW_BPF_OUTPUT = 10
_SAMPLE_RAW = 1 << 10
_FLAG_WATERMARK = 1 << 14
_FLAG_FD_CLOEXEC = 8
_IOC_ENABLE = 0x2400
_SYSCALLS = {"x86_64": 298, "aarch64": 241}
_HEAD_WORD, _TAIL_WORD = 1024 // 8, 1032 // 8
_ENODEV = 19

_libc = ct.CDLL(None, use_errno=True)
_syscall = _libc["syscall"]
_syscall.restype = ct.c_long
_ioctl = _libc["ioctl"]
_ioctl.argtypes = (ct.c_int, ct.c_ulong, ct.c_ulong)


def _perf_event_open(cpu: int, watermark_bytes: int) -> int:
    """Open a software event that BPF output goes to; -1 for a CPU that is not online."""
    number = _SYSCALLS.get(os.uname().machine)
    if number is None:
        raise FeatureMissingError("perf events", os.uname().machine, "use x86_64 or aarch64")
    attr = _PerfEventAttr()
    attr.type, attr.size = _TYPE_SOFTWARE, ct.sizeof(attr)
    attr.config, attr.sample_period, attr.sample_type = _COUNT_SW_BPF_OUTPUT, 1, _SAMPLE_RAW
    attr.flags, attr.wakeup_watermark = _FLAG_WATERMARK, watermark_bytes
    fd = int(_syscall(number, ct.byref(attr), -1, cpu, -1, _FLAG_FD_CLOEXEC))
    if fd >= 0:
        return fd
    errno = ct.get_errno()
    if errno == _ENODEV:
        return -1
    raise FeatureMissingError(
        "perf events", f"CPU {cpu}: {os.strerror(errno)}", "run as root with perf events in the kernel"
    )


class PerfRing:
    """The ring of one CPU."""

    def __init__(self, cpu: int, fd: int, ring_bytes: int) -> None:
        """Map the ring of the event `fd`, which this object owns from now on."""
        self.cpu = cpu
        self.fd = fd
        self._mapping = mmap.mmap(fd, mmap.PAGESIZE + ring_bytes)
        self._control: Words = np.frombuffer(self._mapping, dtype=np.uint64, count=mmap.PAGESIZE // 8)
        self._data: Words = np.frombuffer(self._mapping, dtype=np.uint64, offset=mmap.PAGESIZE)

    def head(self) -> int:
        """Return where the kernel will write next. Look at it before `drain`, once for all rings."""
        return int(self._control[_HEAD_WORD])

    def drain(self, head: int) -> Samples:
        """Return what is there up to `head`; the kernel keeps it until `release`."""
        return find_samples(self._data, int(self._control[_TAIL_WORD]), head)

    def release(self, samples: Samples) -> None:
        """Give the ring back up to where `samples` ended: its runs are void now."""
        # x86 orders stores after earlier loads, and arm64 has a system call between copy and this store.
        self._control[_TAIL_WORD] = samples.tail

    def close(self) -> None:
        """Close the event; the mapping goes when the last view of it does."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


class PerfRings:
    """The rings of all CPUs behind a pinned perf event array, and one epoll over them."""

    def __init__(self, map_fd: int, rings: Sequence[PerfRing]) -> None:
        """Use `open`."""
        self.rings = list(rings)
        self._map_fd = map_fd
        self.epoll = select.epoll()
        for ring in self.rings:
            self.epoll.register(ring.fd, select.EPOLLIN)

    @classmethod
    def open(cls, pin: Path, ring_bytes: int = RING_BYTES, watermark_bytes: int = WATERMARK_BYTES) -> Self:
        """Open a ring per possible CPU that is online and put them into the map pinned at `pin`.

        The kernel takes them out again when this process ends. `ring_bytes` is a power of two of pages.
        Raises MapMissingError, MapError, FeatureMissingError.
        """
        if ring_bytes < mmap.PAGESIZE or ring_bytes & (ring_bytes - 1):
            raise ValueError(f"{ring_bytes} bytes are not a power of two of pages")
        map_fd = open_pinned(pin)
        rings: list[PerfRing] = []
        try:
            for cpu in range(map_info(map_fd).max_entries):
                fd = _perf_event_open(cpu, watermark_bytes)
                if fd < 0:
                    continue
                rings.append(PerfRing(cpu, fd, ring_bytes))
                _put(map_fd, pin, cpu, fd)
                if _ioctl(fd, _IOC_ENABLE, 0) < 0:
                    errno = ct.get_errno()
                    raise MapError(str(pin), f"enable CPU {cpu}", errno, os.strerror(errno))
        except BaseException:
            for ring in rings:
                ring.close()
            os.close(map_fd)
            raise
        return cls(map_fd, rings)

    def detach(self) -> None:
        """Take the rings out of the map: from now on the programs' output fails and is counted."""
        for ring in self.rings:
            libbpf.map_delete_elem(self._map_fd, struct.pack("=I", ring.cpu))

    def close(self) -> None:
        """Close everything. Idempotent."""
        if self._map_fd < 0:
            return
        self.epoll.close()
        for ring in self.rings:
            ring.close()
        os.close(self._map_fd)
        self._map_fd = -1

    def __enter__(self) -> Self:
        """Use as a context manager to close on the way out."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close."""
        self.close()


def _put(map_fd: int, pin: Path, cpu: int, fd: int) -> None:
    if libbpf.map_update_elem(map_fd, struct.pack("=I", cpu), struct.pack("=i", fd), 0) != 0:
        errno = libbpf.last_errno()
        raise MapError(str(pin), f"update {cpu}", errno, libbpf.reason(errno))


class EventCounters:
    """The pinned `palomar_event_stats`: what the programs of each CPU tried to say."""

    def __init__(self, pin: Path) -> None:
        """Open the map. Raises MapMissingError, MapError."""
        self._pin = pin
        self._fd = open_pinned(pin)
        info = map_info(self._fd)
        self._map_id = info.id
        self.cpus = libbpf.possible_cpus()
        self._values: Words = np.zeros((self.cpus, info.value_size // 8), dtype=np.uint64)
        self._key = struct.pack("=I", 0)
        self._pointer = self._values.ctypes.data_as(ct.c_void_p)

    def source_id(self) -> int:
        """Return a 64-bit number that changes when the counters begin anew: the map's id in this boot."""
        boot_id = Path("/proc/sys/kernel/random/boot_id").read_bytes()
        return zlib.crc32(boot_id) << 32 | self._map_id

    def read(self) -> Words:
        """Return an array of shape (possible CPUs, 3): emitted, failed, suppressed. It is used again."""
        if libbpf.map_lookup_elem(self._fd, self._key, self._pointer) != 0:
            errno = libbpf.last_errno()
            raise MapError(str(self._pin), "lookup", errno, libbpf.reason(errno))
        return self._values

    def close(self) -> None:
        """Close the map. Idempotent."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
