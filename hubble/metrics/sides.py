"""Small numbers for the endpoints in a block: every row's source and destination by table, not by name.

Pure but for asking the names log about references it has not seen. Input: columns `*_ref` and `*_identity`;
output: codes, dense from 0, each with its FlowEndpoint. Codes are good until `reset`.
"""

import numpy as np
import numpy.typing as npt

from hubble.flowendpoint import FlowEndpoint, Names, resolve
from hubble.keycounter import distinct
from hubble.rows import Column

Codes = npt.NDArray[np.int64]
MAX_SIDES = 1 << 18
"""More endpoints than this start the tables anew."""
_UNKNOWN = -1


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
        self._code_of_ref: Codes = np.full(256, _UNKNOWN, dtype=np.int64)
        self._identity_of_ref = np.zeros(256, dtype=np.uint32)

    @property
    def is_full(self) -> bool:
        """Time for a `reset`."""
        return max(len(self.endpoints), len(self._pairs)) > MAX_SIDES

    def codes(self, refs: Column, identities: Column) -> Codes:
        """Return the endpoint's code per row."""
        highest = int(refs.max()) if len(refs) else 0
        if highest >= len(self._code_of_ref):
            more = highest * 2 - len(self._code_of_ref)
            self._code_of_ref = np.append(self._code_of_ref, np.full(more, _UNKNOWN, dtype=np.int64))
            self._identity_of_ref = np.append(self._identity_of_ref, np.zeros(more, dtype=np.uint32))
        codes = self._code_of_ref.take(refs)
        by_table = (codes >= 0) & (self._identity_of_ref.take(refs) == identities)
        if not by_table.all():
            rows = np.flatnonzero(~by_table)
            pairs = refs[rows].astype(np.uint64) << np.uint64(32) | identities[rows]
            found, _ = distinct(pairs)
            known = np.array([self._code_of_pair(pair) for pair in found.tolist()], dtype=np.int64)
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
        if final and ref and self._code_of_ref[ref] == _UNKNOWN:
            self._code_of_ref[ref] = code
            self._identity_of_ref[ref] = identity
        elif final:
            self._pairs[pair] = code
        return code
