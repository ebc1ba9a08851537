"""A pinned hash or trie as bytes; big dumps and removals go in batches, one system call each.

Not its layout (`datapath.abi`) and not how it came to be pinned (`datapath.pins`). Updates and deletes are
idempotent; a failed one raises `MapError`, which may be retried.
"""

import ctypes as ct
import os
from collections.abc import Iterator

from datapath import libbpf
from datapath.abi.mapspecs import MapSpec
from datapath.errors import MapError

BATCH = 4096
_ENOENT, _ENOSPC = 2, 28


class RawMap:
    """A pinned hash or trie as bytes."""

    def __init__(self, spec: MapSpec, fd: int) -> None:
        """Take ownership of `fd`."""
        self.spec = spec
        self.fd = fd

    def lookup(self, key: bytes) -> bytes | None:
        """Return the value under `key`; None where there is none. A trie answers with its longest match."""
        value = ct.create_string_buffer(self.spec.value_size)
        if libbpf.map_lookup_elem(self.fd, key, value) == 0:
            return value.raw
        errno = libbpf.last_errno()
        if errno == _ENOENT:
            return None
        raise self._error("lookup", errno)

    def update(self, key: bytes, value: bytes) -> None:
        """Write `value` under `key`, whether or not it is there."""
        if libbpf.map_update_elem(self.fd, key, value, 0) != 0:
            raise self._error(f"update {key.hex()}", libbpf.last_errno())

    def delete(self, key: bytes) -> bool:
        """Remove `key`; False where it was not there."""
        if libbpf.map_delete_elem(self.fd, key) == 0:
            return True
        errno = libbpf.last_errno()
        if errno == _ENOENT:
            return False
        raise self._error(f"delete {key.hex()}", errno)

    def batches(self) -> Iterator[tuple[int, bytes, bytes]]:
        """Yield (count, keys, values), each a concatenation of `count` items.

        Entries that change meanwhile may be missed or seen twice, as with any walk over a live map.
        """
        size = BATCH
        token = ct.create_string_buffer(max(4, self.spec.key_size))
        started = False
        while True:
            keys = ct.create_string_buffer(size * self.spec.key_size)
            values = ct.create_string_buffer(size * self.spec.value_size)
            count = ct.c_uint32(size)
            status = libbpf.map_lookup_batch(
                self.fd, token if started else None, token, keys, values, ct.byref(count), None
            )
            errno = 0 if status == 0 else libbpf.last_errno()
            if errno == _ENOSPC:
                size *= 2  # one hash bucket holds more than the batch
                continue
            if errno not in (0, _ENOENT):
                raise self._error("lookup batch", errno)
            started = True
            n = count.value
            if n:
                yield n, keys.raw[: n * self.spec.key_size], values.raw[: n * self.spec.value_size]
            if errno == _ENOENT:
                return

    def items(self) -> Iterator[tuple[bytes, bytes]]:
        """Yield every key with its value."""
        key_size, value_size = self.spec.key_size, self.spec.value_size
        for count, keys, values in self.batches():
            for i in range(count):
                yield (
                    keys[i * key_size : (i + 1) * key_size],
                    values[i * value_size : (i + 1) * value_size],
                )

    def delete_batch(self, keys: list[bytes]) -> int:
        """Remove `keys`; return how many were there."""
        deleted, position = 0, 0
        while position < len(keys):
            rest = keys[position:]
            count = ct.c_uint32(len(rest))
            status = libbpf.map_delete_batch(self.fd, b"".join(rest), ct.byref(count), None)
            deleted += count.value
            if status == 0:
                break
            errno = libbpf.last_errno()
            if errno != _ENOENT:
                raise self._error("delete batch", errno)
            position += count.value + 1  # the kernel stops at the first key that is gone
        return deleted

    def close(self) -> None:
        """Close the descriptor. Idempotent."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def _error(self, operation: str, errno: int) -> MapError:
        return MapError(self.spec.name, operation, errno, libbpf.reason(errno))
