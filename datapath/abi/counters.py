"""What the programs count: packets by reason and line, events by CPU.

Pure. Mirrors bpf/lib/metrics.h and bpf/lib/event.h.
"""

import struct
from dataclasses import dataclass
from typing import ClassVar, Self


@dataclass(frozen=True, slots=True)
class MetricsKey:
    """C `struct metrics_key`, 8 bytes: {u8 reason, u8 dir bits 0..1, u16 line, u8 file, u8[3]}."""

    reason: int
    """0: forwarded; else a drop reason."""
    direction: int
    """0 unknown, 1 ingress, 2 egress."""
    line: int
    file: int
    FORMAT: ClassVar[struct.Struct] = struct.Struct("<BBHB3x")

    def pack(self) -> bytes:
        """Return the 8 bytes of the key."""
        return self.FORMAT.pack(self.reason, self.direction, self.line, self.file)

    @classmethod
    def unpack(cls, raw: bytes) -> Self:
        """Read 8 bytes."""
        reason, direction, line, file = cls.FORMAT.unpack(raw)
        return cls(reason, direction & 3, line, file)


@dataclass(frozen=True, slots=True)
class MetricsValue:
    """C `struct metrics_value`, 16 bytes, of one CPU or summed."""

    packets: int
    bytes: int
    FORMAT: ClassVar[struct.Struct] = struct.Struct("<QQ")


@dataclass(frozen=True, slots=True)
class EventStats:
    """C `struct event_stats` of one CPU: what the programs tried to say there."""

    cpu: int
    emitted: int
    """Events tried, also when the ring was full: the next sequence number."""
    failed: int
    """Of these, those the perf ring refused."""
    suppressed: int
    """Not tried at all: events are switched off, or aggregated away."""
