"""bcc's table classes over file descriptors of pinned maps.

bcc builds its tables from modules its own compiler made; Palomar's objects come from clang, so the base
class takes the attributes from the caller instead. Used where bcc's shapes fit: arrays, program arrays and
per-CPU values. Batched and error-numbered access to hashes and tries is `maps/raw.py`'s own.
"""

import ctypes as ct
import os
from collections.abc import Mapping
from typing import Any

from bcc import BPF
from bcc.table import Array, PerCpuArray, PerCpuHash, ProgArray, TableBase

from datapath import libbpf
from datapath.abi.mapspecs import MapSpec
from datapath.errors import MapError


class _OverDescriptor(TableBase):  # type: ignore[misc]  # bcc ships no types
    """Stands in for `TableBase.__init__`, which asks a compiled module for the attributes."""

    def __init__(self, spec: MapSpec, fd: int, key: Any, leaf: Any) -> None:
        self.bpf = BPF
        self.map_id = -1
        self.map_fd = fd
        self.Key = key
        self.Leaf = leaf
        self.ttype = spec.type
        self.flags = spec.flags
        self.max_entries = spec.max_entries
        self._cbs: dict[int, Any] = {}
        self._name = spec.name


class _Array(Array, _OverDescriptor):  # type: ignore[misc]  # bcc ships no types
    pass


class _ProgArray(ProgArray, _OverDescriptor):  # type: ignore[misc]  # bcc ships no types
    pass


class _PerCpuArray(PerCpuArray, _OverDescriptor):  # type: ignore[misc]  # bcc ships no types
    pass


class _PerCpuHash(PerCpuHash, _OverDescriptor):  # type: ignore[misc]  # bcc ships no types
    pass


class NumberArray:
    """An ARRAY of u32 or u64 by index."""

    def __init__(self, spec: MapSpec, fd: int) -> None:
        """`fd` stays the caller's."""
        self._name = spec.name
        self._table = _Array(spec, fd, ct.c_uint32, ct.c_uint64 if spec.value_size == 8 else ct.c_uint32)

    def get(self, index: int) -> int:
        """Return the value at `index`."""
        return int(self._table[index].value)

    def set(self, index: int, value: int) -> None:
        """Write `value` at `index`; one atomic store for the programs that read it."""
        _write(self._name, self._table, index, self._table.Leaf(value))


class ProgramArray:
    """A PROG_ARRAY: tail call slots."""

    def __init__(self, spec: MapSpec, fd: int) -> None:
        """`fd` stays the caller's."""
        self._name = spec.name
        self._table = _ProgArray(spec, fd, ct.c_uint32, ct.c_int)

    def set(self, index: int, prog_fd: int) -> None:
        """Put a program into the slot, replacing what is there in one step."""
        _write(self._name, self._table, index, prog_fd)

    def get(self, index: int) -> int | None:
        """Return the id of the program in the slot; None where it is empty."""
        try:
            return int(self._table[index].value)
        except KeyError:
            return None

    def delete(self, index: int) -> None:
        """Empty the slot. Idempotent."""
        if self.get(index) is None:
            return
        try:
            del self._table[index]
        except KeyError as error:
            errno = ct.get_errno()
            raise MapError(self._name, "delete", errno, os.strerror(errno)) from error


def per_cpu_array(spec: MapSpec, fd: int) -> list[tuple[int, ...]]:
    """Return the first element's u64 words, one tuple per possible CPU."""
    leaf = ct.c_uint64 * (spec.value_size // 8)
    table = _PerCpuArray(spec, fd, ct.c_uint32, leaf)
    return [tuple(value) for value in table.getvalue(table.Key(0))]


def per_cpu_hash(spec: MapSpec, fd: int) -> Mapping[bytes, list[tuple[int, ...]]]:
    """Return every key with its u64 words per possible CPU."""
    leaf = ct.c_uint64 * (spec.value_size // 8)
    table = _PerCpuHash(spec, fd, ct.c_uint8 * spec.key_size, leaf)
    return {bytes(key): [tuple(value) for value in values] for key, values in table.items()}


def _write(name: str, table: Any, key: int, value: Any) -> None:
    try:
        table[key] = value
    except Exception as error:  # bcc raises nothing narrower for a failed update
        errno = ct.get_errno()
        raise MapError(name, f"update {key}", errno, libbpf.reason(errno)) from error
