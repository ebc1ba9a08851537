"""Events as tests read them: what the programs sent since the last look, as single records.

The rings are the product's (`datapath.perf`), small ones; only the taking apart is made for assertions
instead of speed. Input: the pinned `cilium_events`; output: rows of `EVENT_DTYPE`, by CPU, then by sequence.
"""

from pathlib import Path
from typing import Any

import numpy as np

from datapath.events import EVENT_DTYPE, EVENT_SIZE, SAMPLE_STRIDE
from datapath.perf import PerfRings

_RING_BYTES = 256 << 10


class EventReader:
    """Rings on every CPU of one perf event array."""

    def __init__(self, pin: Path) -> None:
        """Open the rings and put them into the map."""
        self._pin = pin
        self._rings: PerfRings | None = None
        self.lost = 0
        self.attach()

    def attach(self) -> None:
        """Put fresh rings into the map."""
        self.close()
        self._rings = PerfRings.open(self._pin, _RING_BYTES)

    def detach(self) -> None:
        """Take the rings out of the map: nobody listens."""
        assert self._rings is not None
        self._rings.detach()

    def drain(self) -> list[Any]:
        """Return what was sent since the last call; AssertionError for a sample that is none of ours."""
        assert self._rings is not None
        raw = b""
        for ring in self._rings.rings:
            samples = ring.drain(ring.head())
            assert samples.malformed == 0
            self.lost += samples.ring_lost
            for run in samples.runs:
                rows = run.view(np.uint8).reshape(-1, SAMPLE_STRIDE)
                raw += rows[:, SAMPLE_STRIDE - EVENT_SIZE :].tobytes()
            ring.release(samples)
        return list(np.frombuffer(raw, EVENT_DTYPE))

    def close(self) -> None:
        """Close the rings. Idempotent."""
        if self._rings is not None:
            self._rings.close()
            self._rings = None
