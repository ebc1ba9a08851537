"""Small numbers for the endpoints in a block: every row's source and destination by table, not by name.

Pure but for asking the names log about references it has not seen. Input: columns `*_ref` and `*_identity`;
output: codes, dense from 0, each with its FlowEndpoint. Codes are good until `reset`.
"""

import sys

import numpy as np
import numpy.typing as npt

from hubble.flowendpoint import FlowEndpoint, Names, resolve
from hubble.keycounter import distinct
from hubble.rows import Column

Codes = npt.NDArray[np.uint32]
MAX_SIDES = 1 << 18
"""More endpoints than this start the tables anew."""
_UNKNOWN = np.uint32((1 << 32) - 1)
_CODE, _IDENTITY = (0, 1) if sys.byteorder == "little" else (1, 0)
"""Halves of an entry by reference, as they lie in memory."""


class Sides:
    """Endpoints as codes."""

    def __init__(self, names: Names) -> None:
        """`names` is asked once per reference and identity that it knows."""
        self._names = names
        self.reset()

    def reset(self) -> None:
        """Forget everything: codes begin again."""
        self.endpoints: list[FlowEndpoint] = []
        """By code."""
        self._codes: dict[FlowEndpoint, int] = {}
        self._pairs: dict[int, int] = {}
        self._by_ref: npt.NDArray[np.uint64] = np.zeros(256, dtype=np.uint64)
        """Identity (above) and code + 1 of the side that a reference mostly stands for; 0: not known."""

    @property
    def is_full(self) -> bool:
        """Time for a `reset`."""
        return max(len(self.endpoints), len(self._pairs)) > MAX_SIDES

    def codes(self, refs: Column, identities: Column) -> Codes:
        """Return the endpoint's code per row."""
        highest = int(refs.max()) if len(refs) else 0
        if highest >= len(self._by_ref):
            more = highest * 2 - len(self._by_ref)
            self._by_ref = np.append(self._by_ref, np.zeros(more, dtype=np.uint64))
        halves = self._by_ref.take(refs).view(np.uint32).reshape(-1, 2)
        codes = halves[:, _CODE] - np.uint32(1)
        by_table = halves[:, _IDENTITY] == identities
        by_table &= codes != _UNKNOWN
        if not by_table.all():
            rows = np.flatnonzero(~by_table)
            pairs = refs[rows].astype(np.uint64) << np.uint64(32) | identities[rows]
            found, _ = distinct(pairs)
            known = np.array([self._code_of_pair(pair) for pair in found.tolist()], dtype=np.uint32)
            codes[rows] = known[np.searchsorted(found, pairs)]
        return codes

    def _code_of_pair(self, pair: int) -> int:
        code = self._pairs.get(pair)
        if code is not None:
            return code
        ref, identity = pair >> 32, pair & 0xFFFFFFFF
        endpoint, final = resolve(self._names, ref, identity)
        code = self._codes.setdefault(endpoint, len(self.endpoints))
        if code == len(self.endpoints):
            self.endpoints.append(endpoint)
        if final and ref and not self._by_ref[ref]:
            self._by_ref[ref] = identity << 32 | code + 1
        elif final:
            self._pairs[pair] = code
        return code
