"""The node's connections: written by the programs; listed, swept and forgotten from here.

Bytes are `datapath.abi.conntrack`. Sweeping looks at whole batches, never at one entry by itself.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address

from datapath.abi.conntrack import CtEntry, CtKey
from datapath.maps.raw import RawMap


@dataclass(frozen=True, slots=True)
class GcCount:
    """What one pass over conntrack saw and removed."""

    seen: int
    deleted: int


class ConntrackMaps:
    """`cilium_ct4_global` (TCP) and `cilium_ct_any4_global` (the rest)."""

    def __init__(self, tcp: RawMap, other: RawMap) -> None:
        """Wrap both."""
        self.tcp = tcp
        self.other = other

    def items(self) -> Iterator[tuple[CtKey, CtEntry]]:
        """Yield every tracked connection, TCP first."""
        for raw in (self.tcp, self.other):
            for key, value in raw.items():
                yield CtKey.unpack(key), CtEntry.unpack(value)

    def get(self, key: CtKey) -> CtEntry | None:
        """Return the entry under `key`."""
        value = self._map_of(key).lookup(key.pack())
        return None if value is None else CtEntry.unpack(value)

    def delete(self, key: CtKey) -> bool:
        """Forget the connection; its next packet is judged as new."""
        return self._map_of(key).delete(key.pack())

    def forget_addresses(self, addresses: frozenset[IPv4Address]) -> int:
        """Remove every connection from or to one of `addresses`; at most 2 ms per 4,096 entries."""
        packed = {address.packed for address in addresses}
        deleted = 0
        for raw in (self.tcp, self.other):
            size = raw.spec.key_size
            gone = []
            for count, keys, _ in raw.batches():
                if any(address in keys for address in packed):  # a byte search: most batches end here
                    each = (keys[i * size : (i + 1) * size] for i in range(count))
                    gone += [key for key in each if key[0:4] in packed or key[4:8] in packed]
            if gone:
                deleted += raw.delete_batch(gone)
        return deleted

    def flush(self) -> int:
        """Forget every connection; return how many there were."""
        return sum(raw.delete_batch([key for key, _ in raw.items()]) for raw in (self.tcp, self.other))

    def gc(self, now_s: int) -> GcCount:
        """Remove entries whose lifetime ended before `now_s` (seconds of CLOCK_MONOTONIC).

        About 1 ms per 4,096 entries. An entry that a packet renews between reading and deleting is lost
        once and made again by the next packet.
        """
        seen = deleted = 0
        for raw in (self.tcp, self.other):
            for count, keys, values in list(raw.batches()):
                seen += count
                words = memoryview(values).cast("I")
                lifetimes = words[CtEntry.LIFETIME_OFFSET // 4 :: CtEntry.FORMAT.size // 4].tolist()
                size = raw.spec.key_size
                expired = [
                    keys[i * size : (i + 1) * size] for i, life in enumerate(lifetimes) if life < now_s
                ]
                if expired:
                    deleted += raw.delete_batch(expired)
        return GcCount(seen, deleted)

    def _map_of(self, key: CtKey) -> RawMap:
        return self.tcp if key.protocol == 6 else self.other
