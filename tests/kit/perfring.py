"""Reading `cilium_events` in tests: one small perf ring per CPU, every sample as an event record.

Not the product's drain (vectorised, its own process): here each record is taken by itself, at once. Input:
the map's descriptor; output: rows of `EVENT_DTYPE`, in the order of their CPU and then of their
sequence. Source: perf_event_open(2), linux/perf_event.h.
"""

import ctypes as ct
import mmap
import os
import platform
import struct
from types import TracebackType
from typing import Any, Self

import numpy as np

from datapath import libbpf
from datapath.events import EVENT_DTYPE, EVENT_SIZE

_SYS_PERF_EVENT_OPEN = {"x86_64": 298, "aarch64": 241}
_PERF_TYPE_SOFTWARE = 1
_PERF_COUNT_SW_BPF_OUTPUT = 10
_PERF_SAMPLE_RAW = 1 << 10
_PERF_RECORD_LOST = 2
_PERF_RECORD_SAMPLE = 9
_PERF_FLAG_FD_CLOEXEC = 8
_IOC_ENABLE = 0x2400
_ATTR_SIZE = 120
_DATA_HEAD, _DATA_TAIL = 1024, 1032
_PAGES = 64

_libc = ct.CDLL(None, use_errno=True)


class _Ring:
    def __init__(self, cpu: int) -> None:
        attr = bytearray(_ATTR_SIZE)
        struct.pack_into("=IIQ", attr, 0, _PERF_TYPE_SOFTWARE, _ATTR_SIZE, _PERF_COUNT_SW_BPF_OUTPUT)
        struct.pack_into("=QQ", attr, 16, 1, _PERF_SAMPLE_RAW)
        struct.pack_into("=I", attr, 48, 1)  # wake up at every event
        number = _SYS_PERF_EVENT_OPEN[platform.machine()]
        raw = (ct.c_char * _ATTR_SIZE).from_buffer(attr)
        self.fd = int(_libc.syscall(number, raw, -1, cpu, -1, _PERF_FLAG_FD_CLOEXEC))
        if self.fd < 0:
            raise OSError(ct.get_errno(), f"perf_event_open on CPU {cpu}")
        self._page = mmap.PAGESIZE
        self._map = mmap.mmap(self.fd, (_PAGES + 1) * self._page)
        if _libc.ioctl(self.fd, _IOC_ENABLE, 0) < 0:
            raise OSError(ct.get_errno(), "PERF_EVENT_IOC_ENABLE")

    def drain(self) -> tuple[list[bytes], int]:
        """Return the samples and how many the kernel says it lost."""
        (head,) = struct.unpack_from("=Q", self._map, _DATA_HEAD)
        (tail,) = struct.unpack_from("=Q", self._map, _DATA_TAIL)
        samples, lost = [], 0
        while tail < head:
            kind, _, size = struct.unpack("=IHH", self._bytes(tail, 8))
            record = self._bytes(tail, size)
            if kind == _PERF_RECORD_SAMPLE:
                samples.append(record[12 : 12 + EVENT_SIZE])
                assert size == 8 + 4 + EVENT_SIZE, f"a sample of {size} bytes breaks the stride"
            elif kind == _PERF_RECORD_LOST:
                lost += struct.unpack_from("=Q", record, 16)[0]
            tail += size
        struct.pack_into("=Q", self._map, _DATA_TAIL, tail)
        return samples, lost

    def _bytes(self, position: int, size: int) -> bytes:
        length = _PAGES * self._page
        start = position % length
        end = start + size
        if end <= length:
            return self._map[self._page + start : self._page + end]
        return (
            self._map[self._page + start : self._page + length]
            + self._map[self._page : self._page + end - length]
        )

    def close(self) -> None:
        self._map.close()
        os.close(self.fd)


class PerfRings:
    """Every CPU's ring of one perf event array; use as a context manager."""

    def __init__(self, map_fd: int) -> None:
        """Open a ring per possible CPU and put each into the map."""
        self._map_fd = map_fd
        self._rings = [_Ring(cpu) for cpu in range(libbpf.possible_cpus())]
        self.lost = 0
        self.attach()

    def attach(self) -> None:
        """Put every ring into the map (again)."""
        for cpu, ring in enumerate(self._rings):
            key, value = ct.c_uint32(cpu), ct.c_uint32(ring.fd)
            if libbpf.map_update_elem(self._map_fd, ct.byref(key), ct.byref(value), 0) < 0:
                raise OSError(libbpf.last_errno(), f"ring of CPU {cpu}")

    def drain(self) -> list[Any]:
        """Return what was sent since the last call."""
        samples: list[bytes] = []
        for ring in self._rings:
            found, lost = ring.drain()
            samples += found
            self.lost += lost
        return list(np.frombuffer(b"".join(samples), EVENT_DTYPE))

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Take the rings out of the map and close them."""
        for cpu, ring in enumerate(self._rings):
            libbpf.map_delete_elem(self._map_fd, ct.byref(ct.c_uint32(cpu)))
            ring.close()
