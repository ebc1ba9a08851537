"""ctypes prototypes of the libbpf functions Palomar calls, and the capture of libbpf's log.

Not a loader (`loader.py`) and not typed maps (`maps/`): this file only makes C callable. The symbols
come from bcc's `libbcc.so.0`, which links `libbpf.so.1`, so nothing else is needed at run time. Function
objects are our own (`lib[name]`, never `lib.name`): bcc sets argument types on the shared attributes.
Reference: bpf/libbpf.h, bpf/bpf.h and bpf/btf.h of libbpf 1.1.
"""

import ctypes as ct
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from bcc.libbcc import lib

_VOID = ct.c_void_p
_STR = ct.c_char_p
_INT = ct.c_int
_U32 = ct.c_uint32
_U32_P = ct.POINTER(ct.c_uint32)
_SIZE_P = ct.POINTER(ct.c_size_t)


def _function(name: str, result: Any, *arguments: Any) -> Any:
    function = lib[name]
    function.restype = result
    function.argtypes = arguments
    return function


class TestRunOpts(ct.Structure):
    """`struct bpf_test_run_opts` of bpf/bpf.h."""

    __test__ = False
    _fields_ = (
        ("sz", ct.c_size_t),
        ("data_in", _VOID),
        ("data_out", _VOID),
        ("data_size_in", _U32),
        ("data_size_out", _U32),
        ("ctx_in", _VOID),
        ("ctx_out", _VOID),
        ("ctx_size_in", _U32),
        ("ctx_size_out", _U32),
        ("retval", _U32),
        ("repeat", _INT),
        ("duration", _U32),
        ("flags", _U32),
        ("cpu", _U32),
        ("batch_size", _U32),
    )


class MapCreateOpts(ct.Structure):
    """`struct bpf_map_create_opts` of bpf/bpf.h."""

    _fields_ = (
        ("sz", ct.c_size_t),
        ("btf_fd", _U32),
        ("btf_key_type_id", _U32),
        ("btf_value_type_id", _U32),
        ("btf_vmlinux_value_type_id", _U32),
        ("inner_map_fd", _U32),
        ("map_flags", _U32),
        ("map_extra", ct.c_uint64),
        ("numa_node", _U32),
        ("map_ifindex", _U32),
    )


class MapInfoStruct(ct.Structure):
    """The head of `struct bpf_map_info` of linux/bpf.h; the kernel fills what fits."""

    _fields_ = (
        ("type", _U32),
        ("id", _U32),
        ("key_size", _U32),
        ("value_size", _U32),
        ("max_entries", _U32),
        ("map_flags", _U32),
        ("name", ct.c_char * 16),
        ("ifindex", _U32),
        ("btf_vmlinux_value_type_id", _U32),
        ("netns_dev", ct.c_uint64),
        ("netns_ino", ct.c_uint64),
        ("btf_id", _U32),
        ("btf_key_type_id", _U32),
        ("btf_value_type_id", _U32),
        ("pad", _U32),
        ("map_extra", ct.c_uint64),
    )


class BtfType(ct.Structure):
    """`struct btf_type` of linux/btf.h: `info` holds kind (bits 24..28) and vlen (bits 0..15)."""

    _fields_ = (("name_off", _U32), ("info", _U32), ("size_or_type", _U32))


class BtfVarSecinfo(ct.Structure):
    """`struct btf_var_secinfo` of linux/btf.h."""

    _fields_ = (("type", _U32), ("offset", _U32), ("size", _U32))


class BtfMember(ct.Structure):
    """`struct btf_member` of linux/btf.h."""

    _fields_ = (("name_off", _U32), ("type", _U32), ("offset", _U32))


BTF_KIND_STRUCT = 4
BTF_KIND_DATASEC = 15

object_open_file = _function("bpf_object__open_file", _VOID, _STR, _VOID)
object_load = _function("bpf_object__load", _INT, _VOID)
object_close = _function("bpf_object__close", None, _VOID)
object_btf = _function("bpf_object__btf", _VOID, _VOID)
object_next_map = _function("bpf_object__next_map", _VOID, _VOID, _VOID)
object_next_program = _function("bpf_object__next_program", _VOID, _VOID, _VOID)

map_name = _function("bpf_map__name", _STR, _VOID)
map_fd = _function("bpf_map__fd", _INT, _VOID)
map_type = _function("bpf_map__type", _U32, _VOID)
map_key_size = _function("bpf_map__key_size", _U32, _VOID)
map_value_size = _function("bpf_map__value_size", _U32, _VOID)
map_max_entries = _function("bpf_map__max_entries", _U32, _VOID)
map_flags = _function("bpf_map__map_flags", _U32, _VOID)
map_is_internal = _function("bpf_map__is_internal", ct.c_bool, _VOID)
map_pin_path = _function("bpf_map__pin_path", _STR, _VOID)
map_set_pin_path = _function("bpf_map__set_pin_path", _INT, _VOID, _STR)
map_set_max_entries = _function("bpf_map__set_max_entries", _INT, _VOID, _U32)
map_reuse_fd = _function("bpf_map__reuse_fd", _INT, _VOID, _INT)
map_initial_value = _function("bpf_map__initial_value", _VOID, _VOID, _SIZE_P)

program_name = _function("bpf_program__name", _STR, _VOID)
program_fd = _function("bpf_program__fd", _INT, _VOID)

btf_type_by_id = _function("btf__type_by_id", ct.POINTER(BtfType), _VOID, _U32)
btf_find_by_name_kind = _function("btf__find_by_name_kind", ct.c_int32, _VOID, _STR, _U32)
btf_name_by_offset = _function("btf__name_by_offset", _STR, _VOID, _U32)
btf_resolve_size = _function("btf__resolve_size", ct.c_int64, _VOID, _U32)

obj_pin = _function("bpf_obj_pin", _INT, _INT, _STR)
obj_get = _function("bpf_obj_get", _INT, _STR)
obj_get_info_by_fd = _function("bpf_obj_get_info_by_fd", _INT, _INT, _VOID, _U32_P)
prog_test_run_opts = _function("bpf_prog_test_run_opts", _INT, _INT, ct.POINTER(TestRunOpts))

map_create = _function("bpf_map_create", _INT, _U32, _STR, _U32, _U32, _U32, _VOID)
map_lookup_elem = _function("bpf_map_lookup_elem", _INT, _INT, _VOID, _VOID)
map_update_elem = _function("bpf_map_update_elem", _INT, _INT, _VOID, _VOID, ct.c_uint64)
map_delete_elem = _function("bpf_map_delete_elem", _INT, _INT, _VOID)
map_lookup_batch = _function("bpf_map_lookup_batch", _INT, _INT, _VOID, _VOID, _VOID, _VOID, _U32_P, _VOID)
map_delete_batch = _function("bpf_map_delete_batch", _INT, _INT, _VOID, _U32_P, _VOID)

probe_prog_type = _function("libbpf_probe_bpf_prog_type", _INT, _INT, _VOID)
probe_map_type = _function("libbpf_probe_bpf_map_type", _INT, _INT, _VOID)
probe_helper = _function("libbpf_probe_bpf_helper", _INT, _INT, _INT, _VOID)
num_possible_cpus = _function("libbpf_num_possible_cpus", _INT)
map_type_str = _function("libbpf_bpf_map_type_str", _STR, _U32)
_set_print = _function("libbpf_set_print", _VOID, _VOID)

_PRINT_FN = ct.CFUNCTYPE(_INT, _INT, _VOID, _VOID)
_libc = ct.CDLL(None)
_vasprintf = _libc["vasprintf"]
_vasprintf.restype = _INT
_vasprintf.argtypes = (ct.POINTER(_VOID), _VOID, _VOID)
_free = _libc["free"]
_free.restype = None
_free.argtypes = (_VOID,)

_captured = threading.local()


def _collect(level: int, template: int, arguments: int) -> int:
    # libbpf calls this in the thread that called libbpf. Level 2 is debug: hundreds of lines per load.
    lines: list[str] | None = getattr(_captured, "lines", None)
    if level >= 2 or lines is None:
        return 0
    text = _VOID()
    if _vasprintf(ct.byref(text), template, arguments) >= 0:
        lines.append(ct.string_at(text.value or 0).decode("utf-8", "replace"))
        _free(text)
    return 0


_print_callback = _PRINT_FN(_collect)
_set_print(ct.cast(_print_callback, _VOID))


@contextmanager
def captured_log() -> Iterator[list[str]]:
    """Collect what libbpf says in this thread (warnings and verifier logs) instead of standard error."""
    outer: list[str] | None = getattr(_captured, "lines", None)
    lines: list[str] = []
    _captured.lines = lines
    try:
        yield lines
    finally:
        _captured.lines = outer


def last_errno() -> int:
    """Return the errno of the last call made by this thread through this module."""
    return ct.get_errno()


def possible_cpus() -> int:
    """Return the number of possible CPUs, the width of per-CPU values and perf arrays."""
    return int(num_possible_cpus())


def string(pointer: bytes | None) -> str:
    """Decode a C string; empty for NULL."""
    return (pointer or b"").decode("utf-8", "replace")


def type_name(kind: int) -> str:
    """Return libbpf's word for a map type, e.g. `lpm_trie`; the number where it has none."""
    return string(map_type_str(kind)) or str(kind)


def reason(errno: int) -> str:
    """Return the system's words for an error number."""
    return f"{os.strerror(errno)} (errno {errno})"
