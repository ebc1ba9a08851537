"""Chosen rows of a block as keys: equal keys, equal part of the flow.

Pure, vectorised. Input: rows of the flow store; output: one number (or a few octets) per row for each
part that `hubble.flowbuilder` keeps ready-made.
"""

from functools import cached_property

import numpy as np
import numpy.typing as npt

from datapath.events import EventFlag
from hubble.flowmessages import Kind
from hubble.replies import traffic_directions
from hubble.rows import Column, Mask, Rows, ip_versions
from hubble.wirebytes import number_fields, tag
from palomar.verdict import EventType

Indices = npt.NDArray[np.intp]
NS_PER_S = 1_000_000_000
ADDRESS_KEY_SIZE = 33
SECONDS, NANOS = tag(1, delimited=False), tag(2, delimited=False)
"""Fields of google.protobuf.Timestamp."""

_KIND_BITS = (
    ("type", 8),
    ("subtype", 8),
    ("verdict", 3),
    ("direction", 2),
    ("drop_reason", 8),
    ("trace_reason", 6),
    ("match_type", 3),
    ("protocol", 8),
    ("l4_flags", 8),
    ("icmp_code", 8),
    ("ip_version", 2),
)
"""How a Kind is packed into 64 bits, lowest first. Of ip_version the half (0, 2 or 3); of trace_reason not
the mark of an encrypted packet (0x80), which no flow shows."""


def pack_kinds(columns: dict[str, Column]) -> npt.NDArray[np.uint64]:
    """One number per row that says its Kind."""
    keys = np.zeros(len(columns["type"]), dtype=np.uint64)
    shift = 0
    for name, bits in _KIND_BITS:
        column = columns[name] >> 1 if name == "ip_version" else columns[name]
        keys |= (column & ((1 << bits) - 1)).astype(np.uint64) << np.uint64(shift)
        shift += bits
    return keys


def unpack_kind(key: int) -> Kind:
    """The Kind that `pack_kinds` put into `key`."""
    values = {}
    for name, bits in _KIND_BITS:
        values[name] = key & ((1 << bits) - 1)
        key >>= bits
    values["ip_version"] *= 2
    return Kind(**values)


class Batch:
    """Chosen rows of a block, as the keys their parts are kept under."""

    def __init__(self, rows: Rows, indices: Indices) -> None:
        """`indices` are row numbers within `rows`."""
        self._rows = rows
        self._indices = indices

    def __len__(self) -> int:
        """How many rows."""
        return len(self._indices)

    def column(self, name: str) -> Column:
        """A field of the record for the chosen rows."""
        return self._rows.column(name)[self._indices]

    @property
    def positions(self) -> npt.NDArray[np.intp]:
        """Positions in the store."""
        return self._indices + self._rows.first

    @cached_property
    def timestamps(self) -> list[bytes]:
        """google.protobuf.Timestamps."""
        seconds, nanos = np.divmod(self.column("time_ns"), np.uint64(NS_PER_S))
        return number_fields(((SECONDS, seconds), (NANOS, nanos)))

    @cached_property
    def ip_versions(self) -> npt.NDArray[np.uint8]:
        """4, 6 or 0."""
        return ip_versions(self)

    @cached_property
    def directions(self) -> Column:
        """The flow API's `traffic_direction`."""
        return traffic_directions(self.column("type"), self.column("trace_reason"), self.column("direction"))

    @property
    def kinds(self) -> npt.NDArray[np.uint64]:
        """See `pack_kinds`."""
        derived = {"ip_version": self.ip_versions, "direction": self.directions}
        columns = {name: self.column(name) for name, _ in _KIND_BITS if name not in derived}
        return pack_kinds(columns | derived)

    def address_keys(self) -> list[bytes]:
        """Version, source and destination as 33 octets."""
        keys = np.empty((len(self), ADDRESS_KEY_SIZE), dtype=np.uint8)
        keys[:, 0] = self.ip_versions
        keys[:, 1:17] = self.column("saddr")
        keys[:, 17:] = self.column("daddr")
        raw = keys.tobytes()
        return [raw[at : at + ADDRESS_KEY_SIZE] for at in range(0, len(raw), ADDRESS_KEY_SIZE)]

    def l4_keys(self) -> npt.NDArray[np.uint64]:
        """Ports, protocol, flags or type, and code."""
        return _joined(
            (self.column("sport"), 48),
            (self.column("dport"), 32),
            (self.column("protocol"), 16),
            (self.column("l4_flags"), 8),
            (self.column("icmp_code"), 0),
        )

    def endpoint_keys(self, side: str) -> npt.NDArray[np.uint64]:
        """Reference and identity of one side (`src` or `dst`)."""
        return _joined((self.column(f"{side}_ref"), 32), (self.column(f"{side}_identity"), 0))

    def file_keys(self) -> npt.NDArray[np.uint64]:
        """File and line of a drop; 0 otherwise."""
        keys = _joined((self.column("file"), 16), (self.column("line"), 0))
        return np.where(self.column("type") == EventType.DROP, keys, np.uint64(0))

    @cached_property
    def policy_keys(self) -> npt.NDArray[np.uint64]:
        """Cookie above a Decision."""
        return _joined(
            (self.column("policy_cookie"), 32),
            (self.directions, 16),
            (self.column("verdict"), 8),
            (self.column("drop_reason"), 0),
        )

    @cached_property
    def has_macs(self) -> Mask:
        """Rows that hold MAC addresses where others hold counters."""
        return np.asarray(self.column("flags") & EventFlag.L2_VALID > 0)

    def macs(self, row: int) -> tuple[bytes, bytes]:
        """Source and destination MAC of a row that has them."""
        at = self._indices[row : row + 1]
        words = self._rows.column("packets")[at].tobytes() + self._rows.column("bytes")[at].tobytes()
        return words[:6], words[6:12]


def _joined(*parts: tuple[Column, int]) -> npt.NDArray[np.uint64]:
    """Columns side by side in one number, each shifted left by its bits."""
    keys = np.zeros(len(parts[0][0]), dtype=np.uint64)
    for column, shift in parts:
        keys |= column.astype(np.uint64) << np.uint64(shift)
    return keys
