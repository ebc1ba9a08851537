"""From an ELF object to programs in the kernel: open, specialise, choose the maps' pins, load.

Not the place that attaches programs (`tc.py`) nor that knows which object belongs where (`endpoint.py`,
`node.py`). Input: an object built by `make bpf` and the caller's constants; output: file descriptors and
pinned maps. A pinned map is reused only when every attribute agrees; otherwise `MapMismatchError`.
"""

import ctypes as ct
import os
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from datapath import libbpf
from datapath.abi.mapspecs import MapType
from datapath.errors import (
    MapDifference,
    MapError,
    MapMismatchError,
    MapMissingError,
    ObjectError,
    VerifierError,
)
from datapath.pins import MapInfo, compare, map_info, open_pinned, pin


@dataclass(frozen=True, slots=True)
class Constant:
    """A `volatile const` of `.rodata`."""

    offset: int
    size: int


class BpfObject:
    """One ELF object: open it, set what it needs, `load`, take descriptors, `close`.

    `close` closes every descriptor; what is attached or pinned stays in the kernel.
    """

    def __init__(self, path: Path, pin_dir: Path | None = None) -> None:
        """Open `path`; maps that ask for pinning get `pin_dir/<name>`, or none without `pin_dir`."""
        self.path = path
        self._object: int | None = None
        self._loaded = False
        with libbpf.captured_log() as log:
            self._object = libbpf.object_open_file(os.fsencode(path), None)
        if not self._object:
            errno = libbpf.last_errno()
            raise ObjectError(path, f"cannot open: {libbpf.reason(errno)}", errno, "".join(log))
        self._maps = {libbpf.string(libbpf.map_name(m)): m for m in self._walk(libbpf.object_next_map)}
        self._programs = {
            libbpf.string(libbpf.program_name(p)): p for p in self._walk(libbpf.object_next_program)
        }
        self._pins: dict[str, Path] = {}
        self._created: list[Path] = []
        for name, pointer in self._maps.items():
            if libbpf.map_pin_path(pointer) is not None:
                # Our own reuse names every difference; libbpf's would only warn about the first.
                libbpf.map_set_pin_path(pointer, None)
                if pin_dir is not None:
                    self._pins[name] = pin_dir / name

    def _walk(self, following: Any) -> Iterator[int]:
        pointer = following(self._object, None)
        while pointer:
            yield pointer
            pointer = following(self._object, pointer)

    def __enter__(self) -> Self:
        """Use as a context manager to close on the way out."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close."""
        self.close()

    @property
    def map_names(self) -> list[str]:
        """Maps of the object without `.rodata` and its like."""
        return [name for name, pointer in self._maps.items() if not libbpf.map_is_internal(pointer)]

    @property
    def created_pins(self) -> list[Path]:
        """Pins that `load` made (not the reused ones)."""
        return list(self._created)

    def pin_path(self, name: str) -> Path | None:
        """Return where map `name` is or will be pinned; None where it is not."""
        return self._pins.get(name)

    def set_pin(self, name: str, path: Path | None) -> None:
        """Pin map `name` at `path` (reusing what is there), or not at all."""
        self._map(name)
        if path is None:
            self._pins.pop(name, None)
        else:
            self._pins[name] = path

    def set_max_entries(self, name: str, count: int) -> None:
        """Size map `name` before loading."""
        if libbpf.map_set_max_entries(self._map(name), count) < 0:
            raise ObjectError(self.path, f"cannot size map {name} to {count}", libbpf.last_errno())

    def constants(self) -> dict[str, Constant]:
        """Return the variables of `.rodata` by name, from the object's BTF."""
        btf = libbpf.object_btf(self._object)
        section_id = libbpf.btf_find_by_name_kind(btf, b".rodata", libbpf.BTF_KIND_DATASEC) if btf else -1
        if section_id < 0:
            return {}
        section = libbpf.btf_type_by_id(btf, section_id)
        count = section.contents.info & 0xFFFF
        entries = ct.cast(
            ct.addressof(section.contents) + ct.sizeof(libbpf.BtfType),
            ct.POINTER(libbpf.BtfVarSecinfo * count),
        ).contents
        found = {}
        for entry in entries:
            variable = libbpf.btf_type_by_id(btf, entry.type)
            name = libbpf.string(libbpf.btf_name_by_offset(btf, variable.contents.name_off))
            found[name] = Constant(entry.offset, entry.size)
        return found

    def set_constants(self, values: Mapping[str, int | bytes]) -> None:
        """Set `volatile const` variables by name: integers in host order, bytes as they are (padded with 0).

        `ObjectError` names a variable the object lacks, or a value that does not fit.
        """
        if not values:
            return
        constants = self.constants()
        data = self._rodata()
        for name, value in values.items():
            constant = constants.get(name)
            if constant is None:
                known = ", ".join(sorted(constants)) or "none"
                raise ObjectError(self.path, f"has no constant {name} (it has: {known})")
            try:
                raw = value.to_bytes(constant.size, "little") if isinstance(value, int) else value
            except OverflowError as error:
                raise ObjectError(
                    self.path, f"constant {name} holds {constant.size} bytes, not {value!r}"
                ) from error
            if len(raw) > constant.size:
                raise ObjectError(self.path, f"constant {name} holds {constant.size} bytes, not {raw.hex()}")
            ct.memmove(data + constant.offset, raw.ljust(constant.size, b"\0"), constant.size)

    def _rodata(self) -> int:
        for name, pointer in self._maps.items():
            if name.endswith(".rodata") and libbpf.map_is_internal(pointer):
                size = ct.c_size_t()
                address = libbpf.map_initial_value(pointer, ct.byref(size))
                if address:
                    return int(address)
        raise ObjectError(self.path, "has no .rodata: declare constants as `volatile const`")

    def load(self) -> None:
        """Create or reuse the maps, load the programs, pin what is new.

        Raises `MapMismatchError` before anything is created, `VerifierError` with the verifier's log.
        New pins are removed again when a later step fails.
        """
        reused = self._reuse_pinned()
        with libbpf.captured_log() as log:
            status = libbpf.object_load(self._object)
            errno = libbpf.last_errno()
        if status < 0:
            text = "".join(log)
            kind = VerifierError if "BEGIN PROG LOAD LOG" in text else ObjectError
            raise kind(self.path, f"cannot load: {libbpf.reason(errno)}", errno, text)
        self._loaded = True
        try:
            for name, path in self._pins.items():
                if name not in reused:
                    pin(self.map_fd(name), path)
                    self._created.append(path)
        except MapError:
            self.unpin_created()
            raise

    def unpin_created(self) -> None:
        """Remove the pins that `load` made."""
        for path in self._created:
            path.unlink(missing_ok=True)
        self._created.clear()

    def _reuse_pinned(self) -> set[str]:
        descriptors: dict[str, int] = {}
        differences: list[MapDifference] = []
        try:
            for name, path in self._pins.items():
                try:
                    descriptors[name] = open_pinned(path)
                except MapMissingError:
                    continue
                differences += compare(path, self._needed(name), map_info(descriptors[name]))
            if differences:
                raise MapMismatchError(tuple(differences))
            for name, fd in descriptors.items():
                if libbpf.map_reuse_fd(self._map(name), fd) < 0:
                    errno = libbpf.last_errno()
                    raise MapError(str(self._pins[name]), "reuse", errno, libbpf.reason(errno))
        finally:
            for fd in descriptors.values():
                os.close(fd)
        return set(descriptors)

    def _needed(self, name: str) -> MapInfo:
        pointer = self._map(name)
        kind, max_entries = int(libbpf.map_type(pointer)), int(libbpf.map_max_entries(pointer))
        if kind == MapType.PERF_EVENT_ARRAY and max_entries == 0:
            max_entries = libbpf.possible_cpus()
        return MapInfo(
            type=kind,
            key_size=int(libbpf.map_key_size(pointer)),
            value_size=int(libbpf.map_value_size(pointer)),
            max_entries=max_entries,
            flags=int(libbpf.map_flags(pointer)),
        )

    def map_fd(self, name: str) -> int:
        """Return the descriptor of a map of the loaded object; it lives as long as this object."""
        return self._loaded_fd(name, int(libbpf.map_fd(self._map(name))))

    def program_fd(self, name: str) -> int:
        """Return the descriptor of a program of the loaded object; it lives as long as this object."""
        pointer = self._programs.get(name)
        if pointer is None:
            raise ObjectError(self.path, f"has no program {name} (it has: {', '.join(self._programs)})")
        return self._loaded_fd(name, int(libbpf.program_fd(pointer)))

    def _loaded_fd(self, name: str, fd: int) -> int:
        if not self._loaded or fd < 0:
            raise ObjectError(self.path, f"{name} is not loaded")
        return fd

    def _map(self, name: str) -> int:
        pointer = self._maps.get(name)
        if pointer is None:
            raise ObjectError(self.path, f"has no map {name} (it has: {', '.join(self._maps)})")
        return pointer

    def struct_layout(self, name: str) -> dict[str, tuple[int, int]]:
        """Return member -> (bit offset, size in bytes) of C struct `name`, from the object's BTF.

        Used by tests that hold `datapath.abi` and the C headers together. Bit fields report their bit offset
        and a size of 0.
        """
        btf = libbpf.object_btf(self._object)
        type_id = libbpf.btf_find_by_name_kind(btf, name.encode(), libbpf.BTF_KIND_STRUCT)
        if type_id < 0:
            raise ObjectError(self.path, f"has no struct {name} in its BTF")
        kind = libbpf.btf_type_by_id(btf, type_id)
        info = kind.contents.info
        members = ct.cast(
            ct.addressof(kind.contents) + ct.sizeof(libbpf.BtfType),
            ct.POINTER(libbpf.BtfMember * (info & 0xFFFF)),
        ).contents
        layout = {}
        for member in members:
            member_name = libbpf.string(libbpf.btf_name_by_offset(btf, member.name_off))
            bits = (member.offset >> 24) if info >> 31 else 0
            offset = member.offset & 0xFFFFFF if info >> 31 else member.offset
            layout[member_name] = (offset, 0 if bits else int(libbpf.btf_resolve_size(btf, member.type)))
        return layout

    def struct_size(self, name: str) -> int:
        """Return sizeof(struct `name`) from the object's BTF."""
        btf = libbpf.object_btf(self._object)
        type_id = libbpf.btf_find_by_name_kind(btf, name.encode(), libbpf.BTF_KIND_STRUCT)
        if type_id < 0:
            raise ObjectError(self.path, f"has no struct {name} in its BTF")
        return int(libbpf.btf_type_by_id(btf, type_id).contents.size_or_type)

    def close(self) -> None:
        """Close every descriptor and free the object; what is attached or pinned stays."""
        if self._object:
            libbpf.object_close(self._object)
        self._object = None
        self._loaded = False
        self._maps, self._programs = {}, {}


def u32_be(address: int) -> int:
    """Return the integer whose bytes in memory are the big-endian `address`, for a `be32` constant."""
    return int(struct.unpack("=I", struct.pack("!I", address))[0])
