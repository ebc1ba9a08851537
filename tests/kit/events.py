"""Events for tests: rows with fields by name, samples as a ring holds them, a ring and counters to play with.

`FakeRing` and `FakeCounters` stand in for `datapath.perf.PerfRing` and `EventCounters`; what they must do
like the real ones is said at their methods and is checked against the kernel in tests/datapath/test_perf.py.
"""

from ipaddress import IPv4Address
from typing import Any

import numpy as np

from datapath.events import EVENT_DTYPE, EVENT_VERSION, STORED_DTYPE
from datapath.samples import RECORD_LOST, RECORD_SAMPLE, Samples, find_samples
from palomar.verdict import EventType, IpProtocol, TraceReason, TrafficDirection, Verdict

POD_ONE = IPv4Address("10.1.0.5")
POD_TWO = IPv4Address("10.2.0.7")
WORLD = IPv4Address("93.184.216.34")
POD_ONE_IDENTITY, POD_TWO_IDENTITY = 4242, 5151

DEFAULTS: dict[str, Any] = {
    "version": EVENT_VERSION,
    "type": EventType.TRACE,
    "subtype": 0,
    "packets": 1,
    "bytes": 60,
    "saddr": POD_ONE,
    "daddr": POD_TWO,
    "src_identity": POD_ONE_IDENTITY,
    "dst_identity": POD_TWO_IDENTITY,
    "length": 60,
    "endpoint_id": 12,
    "sport": 40000,
    "dport": 80,
    "protocol": IpProtocol.TCP,
    "l4_flags": 2,
    "trace_reason": TraceReason.NEW,
    "direction": TrafficDirection.INGRESS,
    "verdict": Verdict.FORWARDED,
}


def rows(*changes: dict[str, Any], stored: bool = True, count: int = 1) -> np.ndarray:
    """One row per change of the default event (a SYN from pod one to pod two), each `count` times."""
    made = np.zeros(len(changes) * count, dtype=STORED_DTYPE if stored else EVENT_DTYPE)
    for index in range(len(made)):
        for name, value in (DEFAULTS | changes[index // count]).items():
            if isinstance(value, IPv4Address):
                made[index][name][:4] = np.frombuffer(value.packed, dtype=np.uint8)
            elif isinstance(value, bytes):
                made[index][name][: len(value)] = np.frombuffer(value, dtype=np.uint8)
            else:
                made[index][name] = value
    return made


def event(**fields: Any) -> bytes:
    """The 116 bytes of one event."""
    return rows(fields, stored=False)[0].tobytes()


def sample(data: bytes, misc: int = 1) -> bytes:
    """A PERF_RECORD_SAMPLE as the kernel writes it: the raw size is padded so that records stay 8-aligned."""
    size = (8 + 4 + len(data) + 7) // 8 * 8
    header = RECORD_SAMPLE | misc << 32 | size << 48
    return header.to_bytes(8, "little") + (size - 12).to_bytes(4, "little") + data.ljust(size - 12, b"\0")


def lost(count: int) -> bytes:
    """A PERF_RECORD_LOST."""
    header = RECORD_LOST | 24 << 48
    return header.to_bytes(8, "little") + (7).to_bytes(8, "little") + count.to_bytes(8, "little")


class FakeRing:
    """The ring of one CPU: the writer's side of the kernel, the reader's side of `PerfRing`."""

    def __init__(self, cpu: int, ring_bytes: int = 4096) -> None:
        self.cpu = cpu
        self._bytes = np.zeros(ring_bytes, dtype=np.uint8)
        self._words = self._bytes.view(np.uint64)
        self._head = 0
        self._tail = 0
        self._dropped = 0

    def head(self) -> int:
        return self._head

    def drain(self, head: int) -> Samples:
        return find_samples(self._words, self._tail, head)

    def release(self, samples: Samples) -> None:
        self._tail = samples.tail

    def write(self, data: bytes) -> bool:
        """Like perf_output_begin: refuse what does not fit, tell of refusals before the next success."""
        whole = (lost(self._dropped) if self._dropped else b"") + data
        if len(whole) > len(self._bytes) - (self._head - self._tail):
            self._dropped += 1
            return False
        self._dropped = 0
        at = (self._head + np.arange(len(whole))) % len(self._bytes)
        self._bytes[at] = np.frombuffer(whole, dtype=np.uint8)
        self._head += len(whole)
        return True


class FakeCounters:
    """`palomar_event_stats`."""

    def __init__(self, cpus: int) -> None:
        self.values = np.zeros((cpus, 3), dtype=np.uint64)

    def read(self) -> np.ndarray:
        return self.values.copy()


class FakeClock:
    """Time as the test says."""

    def __init__(self) -> None:
        self.now_ns = 1_000_000_000
        self.boot_ns = 1_700_000_000_000_000_000

    def wall_ns(self) -> int:
        return self.boot_ns + self.now_ns

    def monotonic_ns(self) -> int:
        return self.now_ns
