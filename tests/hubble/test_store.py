"""The flow store: rows in and out, restarts, kill -9, damage, and readers that are overtaken."""

import logging
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datapath.events import STORED_DTYPE
from hubble import store as store_module
from hubble import storefile
from hubble.accounting import CpuAccount
from hubble.errors import StoreBusyError, StoreDamagedError, StoreMissingError, StoreSpaceError
from hubble.store import KEPT_DAMAGED, FlowStoreReader, FlowStoreWriter, Loss
from tests.kit.events import FakeClock
from tests.kit.wait import eventually

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


def test_rows_read_back_with_their_hot_columns(tmp_path):
    writer = opened(tmp_path)
    writer.append(numbered(0, 30))
    reader = FlowStoreReader.open(tmp_path)
    assert (reader.head, reader.oldest, reader.capacity) == (30, 0, CAPACITY)
    assert seqs(reader) == list(range(30))
    block, overwritten = reader.read(10, 5)
    assert (block.first, len(block), overwritten) == (10, 5, 0)
    for name in storefile.HOT_COLUMNS:
        assert (block.columns[name] == block.records[name]).all(), name
    assert reader.oldest_time_ns == 0
    writer.close()


def test_after_a_lap_the_oldest_rows_are_gone_and_said_to_be(tmp_path):
    writer = opened(tmp_path)
    writer.append(numbered(0, 260))
    reader = FlowStoreReader.open(tmp_path)
    assert (reader.head, reader.oldest) == (260, 160)
    block, overwritten = reader.read(100, 100)
    assert (block.first, len(block), overwritten) == (160, 40, 60)
    assert seqs(reader, 100, 100) == list(range(160, 200))
    block, overwritten = reader.read(0, 50)
    assert (len(block), overwritten) == (0, 50)
    block, overwritten = reader.read(300, 50)
    assert (len(block), overwritten) == (0, 0)
    assert reader.oldest_time_ns == 160_000
    writer.close()


@given(
    st.lists(st.integers(0, 130), max_size=12),
    st.lists(st.tuples(st.integers(0, 700), st.integers(0, 150)), max_size=8),
)
@settings(max_examples=60, deadline=None)
def test_any_sequence_of_batches_and_reads_is_a_list_with_a_window(tmp_path_factory, batches, reads):
    folder = tmp_path_factory.mktemp("store")
    writer = opened(folder)
    reader = FlowStoreReader.open(folder)
    head = 0
    for count in batches:
        writer.append(numbered(head, count))
        head += count
        # The model: rows oldest..head, each its own number.
        oldest = max(0, head - CAPACITY)
        assert (reader.head, reader.oldest) == (head, oldest)
        for first, length in reads:
            end = min(first + length, head)
            block, overwritten = reader.read(first, length)
            expected = list(range(max(first, oldest), end))
            assert block.column("seq").tolist() == expected
            assert overwritten == max(0, min(oldest, end) - first)
    writer.close()
    shutil.rmtree(folder)


def test_rows_being_written_are_not_readable_in_either_place(tmp_path):
    writer = opened(tmp_path)
    writer.append(numbered(0, 100))
    reader = FlowStoreReader.open(tmp_path)
    block, _ = reader.read(0, 100)
    for chunk in writer.reserve(20):
        chunk.records[:] = numbered(900, len(chunk))
        chunk.fill_columns()
    assert reader.head == 100
    assert seqs(reader) == list(range(20, 100))
    # A block taken before has its columns; records asked for too late say that they are gone.
    assert block.columns["type"].tolist() == [seq % 251 for seq in range(100)]
    assert block.records["version"].tolist() == [0] * 20 + [1] * 80
    writer.commit(20)
    assert seqs(reader)[-1] == 919
    writer.close()


def test_rows_overwritten_during_the_copy_are_left_out(tmp_path, monkeypatch):
    writer = opened(tmp_path)
    writer.append(numbered(0, 100))
    reader = FlowStoreReader.open(tmp_path)
    copied = store_module._copied

    def overtaken(source, spans):
        if writer.head < 130:
            writer.append(numbered(writer.head, 30))
        return copied(source, spans)

    monkeypatch.setattr(store_module, "_copied", overtaken)
    block, overwritten = reader.read(10, 80)
    assert (block.first, overwritten, len(block)) == (30, 20, 60)
    assert block.columns["src_ref"].tolist() == [seq * 3 for seq in range(30, 90)]
    assert block.records["seq"].tolist() == list(range(30, 90))
    writer.close()


def test_a_restart_goes_on_where_it_ended(tmp_path):
    writer = opened(tmp_path)
    store_id = writer.store_id
    writer.begin_source(77, 2)
    writer.append(numbered(0, 40))
    accounts = [CpuAccount(0, 30, 2, 2, 9, 1, 32, 2), CpuAccount(1, 10, 0, 0, 0, 0, 10, 0)]
    writer.commit(0, accounts, [Loss(5000, 40, 2, 0)])
    writer.close()
    writer = opened(tmp_path)
    assert (writer.head, writer.store_id, writer.set_aside) == (40, store_id, 0)
    assert writer.accounting() == accounts
    writer.begin_source(77, 2)
    assert writer.accounting() == accounts
    writer.append(numbered(40, 10))
    reader = FlowStoreReader.open(tmp_path)
    assert seqs(reader) == list(range(50))
    assert reader.losses() == [Loss(5000, 40, 2, 0)]
    assert [account.emitted for account in reader.accounting()] == [32, 10]
    writer.close()


def test_other_kernel_counters_begin_other_accounts(tmp_path):
    writer = opened(tmp_path)
    writer.begin_source(77, 2)
    writer.append(numbered(0, 40))
    writer.commit(0, [CpuAccount(0, 40, next_seq=40), CpuAccount(1)])
    writer.begin_source(78, 2)
    assert writer.accounting() == [CpuAccount(0), CpuAccount(1)]
    assert writer.head == 40
    writer.close()


def test_losses_are_a_bounded_log(tmp_path):
    writer = opened(tmp_path)
    reader = FlowStoreReader.open(tmp_path)
    assert reader.losses() == []
    for number in range(storefile.LOSS_CAPACITY + 50):
        writer.commit(0, losses=[Loss(number, number, 1, 0)])
    times = [loss.time_ns for loss in reader.losses()]
    last = storefile.LOSS_CAPACITY + 50
    assert times == list(range(last - storefile.LOSSES_KEPT, last))
    assert [loss.time_ns for loss in reader.losses(since_ns=last - 3)] == [last - 3, last - 2, last - 1]
    fresh, number = reader.losses_from(last - 1)
    assert ([loss.time_ns for loss in fresh], number) == ([last - 1], last)
    assert reader.losses_from(number) == ([], last)
    writer.close()


def test_a_second_writer_is_refused_until_the_first_is_gone(tmp_path):
    writer = opened(tmp_path)
    with pytest.raises(StoreBusyError):
        opened(tmp_path)
    writer.close()
    writer.close()
    opened(tmp_path).close()


def snapshot(folder: Path, to: Path) -> None:
    """What a kill -9 leaves: the file as it is now (a mapped file needs no flush for that)."""
    to.mkdir()
    shutil.copy(folder / "flows.ring", to)


def test_killed_between_rows_and_commit_the_torn_rows_never_show(tmp_path):
    writer = opened(tmp_path)
    writer.append(numbered(0, 100))
    for chunk in writer.reserve(30):
        chunk.records[:] = numbered(5000, len(chunk))
    snapshot(tmp_path, tmp_path / "killed")
    writer.close()
    again = opened(tmp_path / "killed")
    reader = FlowStoreReader.open(tmp_path / "killed")
    assert (again.head, again.oldest) == (100, 30)
    assert seqs(reader) == list(range(30, 100))
    again.append(numbered(100, 10))
    assert seqs(reader) == list(range(30, 110))
    again.append(numbered(110, 50))
    assert seqs(reader) == list(range(60, 160))
    again.close()


def test_killed_in_the_middle_of_a_commit_the_one_before_holds(tmp_path):
    writer = opened(tmp_path)
    writer.begin_source(1, 1)
    writer.append(numbered(0, 10))
    writer.commit(0, [CpuAccount(0, 10, next_seq=10)])
    snapshot(tmp_path, tmp_path / "killed")
    ring = tmp_path / "killed" / "flows.ring"
    data = bytearray(ring.read_bytes())
    slots = [bytes(data[storefile.slot_span(generation)]) for generation in (0, 1)]
    latest = storefile.latest_commit(slots)
    data[storefile.commit_offset(latest.generation) + 20] ^= 0xFF
    ring.write_bytes(data)
    writer.close()
    again = opened(tmp_path / "killed")
    assert again.set_aside == 0
    assert again.accounting() == [CpuAccount(0)]
    assert again.head == 10
    again.close()


KILLED = """
import sys
from pathlib import Path
sys.path.insert(0, {repo!r})
from tests.hubble.test_store import numbered
from hubble.store import FlowStoreWriter
from palomar.clock import SystemClock
writer = FlowStoreWriter.open(Path({folder!r}), 1000, SystemClock())
head = writer.head
while True:
    writer.append(numbered(head, 37))
    head += 37
"""


def test_kill_9_at_any_moment_leaves_a_store_of_whole_rows(tmp_path):
    repo = str(Path(__file__).resolve().parents[2])
    for _ in range(4):
        child = subprocess.Popen([sys.executable, "-c", KILLED.format(repo=repo, folder=str(tmp_path))])
        before = 0
        try:
            reader = eventually(lambda: reader_or_none(tmp_path), 10)
            before = reader.head
            assert eventually(lambda reader=reader, least=before + 3000: reader.head > least, 10)
            for _ in range(50):
                # The writer laps the ring in milliseconds: rows may go, but none is torn or of another lap.
                block, _ = reader.read(reader.head - 500, 400)
                times = block.columns["time_ns"].tolist()
                assert times == [(block.first + row) * 1000 for row in range(len(block))]
                records = block.records[block.records["version"] != 0]
                assert records["src_ref"].tolist() == (records["seq"] * 3).tolist()
        finally:
            child.send_signal(signal.SIGKILL)
            child.wait()
        writer = FlowStoreWriter.open(tmp_path, 1000, FakeClock())
        assert writer.set_aside == 0
        assert writer.head > before
        assert seqs(reader) == list(range(reader.oldest, reader.head))
        assert reader.head - reader.oldest >= 1000 - 37
        writer.close()


def reader_or_none(folder: Path) -> FlowStoreReader | None:
    try:
        return FlowStoreReader.open(folder)
    except StoreMissingError:
        return None


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


@pytest.mark.parametrize(
    "name",
    ["empty", "truncated", "longer", "magic", "header", "version", "commits", "head", "intent", "zeros"],
)
def test_a_damaged_file_is_set_aside_with_a_warning_and_a_new_one_begins(tmp_path, name, caplog):
    writer = opened(tmp_path)
    writer.append(numbered(0, 30))
    writer.close()
    damaged(name, tmp_path / "flows.ring")
    as_damaged = (tmp_path / "flows.ring").read_bytes()
    with caplog.at_level(logging.WARNING):
        writer = opened(tmp_path)
    assert (writer.head, writer.set_aside) == (0, 1)
    assert (tmp_path / "flows.corrupt-1").read_bytes() == as_damaged
    assert [record.message for record in caplog.records] == ["flow store set aside"]
    writer.append(numbered(0, 5))
    assert seqs(FlowStoreReader.open(tmp_path)) == list(range(5))
    writer.close()


def test_another_capacity_sets_the_old_file_aside(tmp_path):
    opened(tmp_path, 100).close()
    writer = opened(tmp_path, 200)
    assert (writer.capacity, writer.set_aside) == (200, 1)
    writer.close()


def test_a_machine_that_stopped_in_the_middle_leaves_a_file_nobody_trusts(tmp_path):
    writer = opened(tmp_path)
    writer.append(numbered(0, 30))
    snapshot(tmp_path, tmp_path / "crashed")
    writer.close()
    again = opened(tmp_path / "crashed", boot_id=b"the next boot...")
    assert (again.head, again.set_aside) == (0, 1)
    again.close()
    # An orderly end is no crash, whatever the boot.
    again = opened(tmp_path, boot_id=b"the next boot...")
    assert (again.head, again.set_aside) == (30, 0)
    again.close()


def test_a_crash_after_an_orderly_restart_is_noticed_too(tmp_path):
    opened(tmp_path).close()
    writer = opened(tmp_path)
    snapshot(tmp_path, tmp_path / "crashed")
    writer.close()
    again = opened(tmp_path / "crashed", boot_id=b"the next boot...")
    assert again.set_aside == 1
    again.close()


def test_only_the_last_damaged_files_are_kept(tmp_path):
    for _ in range(KEPT_DAMAGED + 3):
        opened(tmp_path).close()
        damaged("zeros", tmp_path / "flows.ring")
    writer = opened(tmp_path)
    assert writer.set_aside == KEPT_DAMAGED
    names = sorted(path.name for path in tmp_path.glob("flows.corrupt-*"))
    assert names == [f"flows.corrupt-{number}" for number in (4, 5, 6)]
    writer.close()


def test_a_reader_notices_that_the_file_was_replaced(tmp_path):
    opened(tmp_path).close()
    reader = FlowStoreReader.open(tmp_path)
    assert not reader.is_replaced()
    damaged("zeros", tmp_path / "flows.ring")
    writer = opened(tmp_path)
    assert reader.is_replaced()
    assert FlowStoreReader.open(tmp_path).store_id == writer.store_id
    writer.close()


def test_a_reader_names_what_is_missing_or_damaged(tmp_path):
    with pytest.raises(StoreMissingError, match="is the ingest running"):
        FlowStoreReader.open(tmp_path)
    (tmp_path / "flows.ring").write_bytes(b"nonsense")
    with pytest.raises(StoreDamagedError, match="shorter than its header"):
        FlowStoreReader.open(tmp_path)


def test_a_full_disk_is_an_error_with_a_remedy(tmp_path, monkeypatch):
    def full(fd: int, offset: int, length: int) -> None:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(StoreSpaceError, match="hubble-event-buffer-capacity"):
        opened(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["flows.lock"]
    monkeypatch.undo()
    opened(tmp_path).close()


def test_followers_wait_for_rows(tmp_path):
    writer = opened(tmp_path)
    reader = FlowStoreReader.open(tmp_path)
    assert not reader.wait(0, 0.01)
    writer.append(numbered(0, 1))
    assert reader.wait(0, 0.01)
    writer.close()


def test_references_of_stored_rows_are_known(tmp_path):
    writer = opened(tmp_path)
    assert writer.used_refs() == set()
    writer.append(numbered(0, 150))
    assert writer.used_refs() == {number * 3 for number in range(50, 150)}
    writer.close()


def test_more_rows_at_once_than_readers_can_bear_are_refused(tmp_path):
    writer = opened(tmp_path)
    with pytest.raises(ValueError, match="at most"):
        writer.reserve(writer.max_batch + 1)
    writer.close()
