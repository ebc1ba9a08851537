"""Rows that tell their number, a store of them, and what a reader of it sees. For tests of the flow store."""

import shutil
from pathlib import Path

import numpy as np

from datapath.events import STORED_DTYPE
from hubble import storefile
from hubble.storereader import FlowStoreReader
from hubble.storewriter import FlowStoreWriter
from tests.kit.events import FakeClock

CAPACITY = 100
BOOT = b"this boot's id.."


def numbered(first: int, count: int) -> np.ndarray:
    """Rows whose fields all follow from their number."""
    made = np.zeros(count, dtype=STORED_DTYPE)
    made["version"] = 1
    made["seq"] = np.arange(first, first + count)
    made["time_ns"] = made["seq"] * 1000
    made["src_ref"] = made["seq"] * 3
    made["dport"] = made["seq"] % 65536
    made["type"] = made["seq"] % 251
    return made


def opened(folder: Path, capacity: int = CAPACITY, boot_id: bytes = BOOT) -> FlowStoreWriter:
    return FlowStoreWriter.open(folder, capacity, FakeClock(), boot_id)


def seqs(reader: FlowStoreReader, first: int = 0, count: int = 1 << 20) -> list[int]:
    block, _ = reader.read(first, count)
    assert block.columns["type"].tolist() == [seq % 251 for seq in block.records["seq"].tolist()]
    assert block.columns["src_ref"].tolist() == [seq * 3 for seq in block.records["seq"].tolist()]
    return block.column("seq").tolist()


def snapshot(folder: Path, to: Path) -> None:
    """What a kill -9 leaves: the file as it is now (a mapped file needs no flush for that)."""
    to.mkdir()
    shutil.copy(folder / "flows.ring", to)


def damaged(name: str, ring: Path) -> None:
    data = bytearray(ring.read_bytes())
    match name:
        case "empty":
            data = bytearray()
        case "truncated":
            data = data[: len(data) // 2]
        case "longer":
            data += bytes(4096)
        case "magic":
            data[0] ^= 1
        case "header":
            data[17] ^= 1
        case "version":
            data[8] = 99
        case "commits":
            for generation in (0, 1):
                data[storefile.commit_offset(generation) + 9] ^= 1
        case "head":
            data[storefile.HEAD_INDEX * 8 + 6] = 1
        case "intent":
            data[storefile.INTENT_INDEX * 8 + 6] = 1
        case "zeros":
            data = bytearray(len(data))
    ring.write_bytes(data)
