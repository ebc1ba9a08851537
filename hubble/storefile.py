"""The layout of the flow store's file: header page, two commit slots, losses log, records, hot columns.

Bytes and checks only; who writes and reads when is in `hubble.storewriter` and `hubble.storereader`.

    0        header: constants with a checksum; apart from it `intent` and `head`, one u64 each
    4096     two commit slots of 64 KiB: head and accounts together, with generation and checksum
    135168   losses log: a ring of 4,096 entries
    266240   records: capacity rows of STORED_DTYPE
    ...      hot columns, one after the other, each on a page boundary

A writer announces rows in `intent` before it touches them, so a reader that copies and then looks at `intent`
knows which of its rows may have been overwritten. It writes a commit into the slot that is not the latest:
a torn one fails its checksum and the other still holds.
"""

import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from datapath.events import STORED_DTYPE, STORED_SIZE
from hubble.accounting import CpuAccount

RING_NAME = "flows.ring"
MAGIC = b"PALOMARF"
VERSION = 1
PAGE = 4096
MIN_CAPACITY = 64
DEFAULT_CAPACITY = 1 << 20
MAX_CAPACITY = 1 << 30
MAX_CPUS = 1023

HOT_COLUMNS: dict[str, np.dtype[np.generic]] = {
    name: np.dtype(STORED_DTYPE.fields[name][0])  # type: ignore[index]  # a structured dtype has fields
    for name in (
        "time_ns",
        "src_identity",
        "dst_identity",
        "src_ref",
        "dst_ref",
        "endpoint_id",
        "sport",
        "dport",
        "type",
        "subtype",
        "verdict",
        "protocol",
        "direction",
        "drop_reason",
        "l4_flags",
        "trace_reason",
        "flags",
    )
}
"""Fields kept a second time, one array each, for scans that touch few fields of many rows."""

LOSS_DTYPE = np.dtype([("time_ns", "u8"), ("position", "u8"), ("count", "u8"), ("cpu", "u8")])
LOSS_CAPACITY = 4096
LOSSES_KEPT = LOSS_CAPACITY - MAX_CPUS
"""Entries a reader may trust: a commit under way may be overwriting one a CPU."""

_SLOT_SIZE = 64 * 1024
_SLOTS = PAGE
_LOSSES = _SLOTS + 2 * _SLOT_SIZE
RECORDS = _LOSSES + LOSS_CAPACITY * LOSS_DTYPE.itemsize
INTENT_INDEX = 128 // 8
HEAD_INDEX = 192 // 8
LOSSES_OFFSET = _LOSSES

_HEADER = struct.Struct("<8sIIQQQII")
_CRC = struct.Struct("<I")
_COMMIT = struct.Struct("<QQQQ16sII")
_ACCOUNT = struct.Struct("<8Q")


@dataclass(frozen=True, slots=True)
class Header:
    """What is fixed when the file is made."""

    capacity: int
    store_id: int
    """60 random bits."""
    created_ns: int


@dataclass(frozen=True, slots=True)
class Commit:
    """What becomes visible in one step."""

    generation: int
    head: int
    """Rows ever written."""
    losses: int
    """Loss entries ever written."""
    source_id: int
    """Which `palomar_event_stats` map the accounts are about (0: none yet)."""
    boot_id: bytes
    """16 bytes; the running kernel's while a writer is at work, all 0 after an orderly close."""
    accounts: tuple[CpuAccount, ...]


def column_offsets(capacity: int) -> dict[str, int]:
    """Return where each hot column begins."""
    offsets = {}
    at = RECORDS + capacity * STORED_SIZE
    for name, dtype in HOT_COLUMNS.items():
        at = (at + PAGE - 1) // PAGE * PAGE
        offsets[name] = at
        at += capacity * dtype.itemsize
    return offsets


def file_size(capacity: int) -> int:
    """Return the size of a whole file."""
    last = list(HOT_COLUMNS)[-1]
    end = column_offsets(capacity)[last] + capacity * HOT_COLUMNS[last].itemsize
    return (end + PAGE - 1) // PAGE * PAGE


def layout_checksum() -> int:
    """Return a number that changes when rows or columns are laid out differently."""
    text = repr(STORED_DTYPE.descr) + repr(list(HOT_COLUMNS))
    return zlib.crc32(text.encode())


def pack_header(header: Header) -> bytes:
    """Return the constants with their checksum."""
    body = _HEADER.pack(
        MAGIC, VERSION, STORED_SIZE, header.capacity, header.store_id, header.created_ns, layout_checksum(), 0
    )
    return body + _CRC.pack(zlib.crc32(body))


def parse_header(data: bytes, size: int) -> Header | str:
    """Return the header of a file of `size` bytes that begins with `data`, or what is wrong with it."""
    if len(data) < PAGE:
        return f"shorter than its header ({size} bytes)"
    magic, version, stride, capacity, store_id, created_ns, layout, _ = _HEADER.unpack_from(data)
    if magic != MAGIC:
        return "not a flow store"
    if version != VERSION:
        return f"version {version}, this build writes {VERSION}"
    if _CRC.unpack_from(data, _HEADER.size)[0] != zlib.crc32(data[: _HEADER.size]):
        return "header checksum is wrong"
    if stride != STORED_SIZE or layout != layout_checksum():
        return "its records are laid out differently"
    if not MIN_CAPACITY <= capacity <= MAX_CAPACITY:
        return f"capacity {capacity} is impossible"
    if size != file_size(capacity):
        return f"{size} bytes long, {file_size(capacity)} expected for {capacity} flows"
    return Header(capacity, store_id, created_ns)


def pack_commit(commit: Commit) -> bytes:
    """Return the bytes of a commit slot."""
    body = _COMMIT.pack(
        commit.generation,
        commit.head,
        commit.losses,
        commit.source_id,
        commit.boot_id,
        len(commit.accounts),
        0,
    ) + b"".join(
        _ACCOUNT.pack(
            account.cpu,
            account.stored,
            account.lost,
            account.failed,
            account.suppressed,
            account.malformed,
            account.next_seq,
            account.logged,
        )
        for account in commit.accounts
    )
    return _CRC.pack(zlib.crc32(body)) + body


def commit_offset(generation: int) -> int:
    """Return where the commit of `generation` stands: the slots take turns."""
    return _SLOTS + (generation & 1) * _SLOT_SIZE


def parse_commit(data: bytes) -> Commit | None:
    """Return the commit in a slot's bytes; None when it is torn or was never written."""
    generation, head, losses, source_id, boot_id, cpus, _ = _COMMIT.unpack_from(data, _CRC.size)
    end = _CRC.size + _COMMIT.size + cpus * _ACCOUNT.size
    if cpus > MAX_CPUS or _CRC.unpack_from(data)[0] != zlib.crc32(data[_CRC.size : end]):
        return None
    accounts = tuple(
        CpuAccount(*_ACCOUNT.unpack_from(data, _CRC.size + _COMMIT.size + index * _ACCOUNT.size))
        for index in range(cpus)
    )
    return Commit(generation, head, losses, source_id, boot_id, accounts)


def latest_commit(slots: Sequence[bytes]) -> Commit | None:
    """Return the newest whole commit of both slots."""
    commits = [commit for commit in map(parse_commit, slots) if commit is not None]
    return max(commits, key=lambda commit: commit.generation, default=None)


def slot_span(generation: int) -> slice:
    """Return the bytes of the file that hold the slot of `generation`."""
    return slice(commit_offset(generation), commit_offset(generation) + _SLOT_SIZE)
