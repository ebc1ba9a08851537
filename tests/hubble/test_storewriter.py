"""Writing the flow store: over restarts, and killed at any moment."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from hubble import storefile
from hubble.accounting import CpuAccount
from hubble.errors import StoreMissingError
from hubble.storemapping import Loss
from hubble.storereader import FlowStoreReader
from hubble.storewriter import FlowStoreWriter
from tests.hubble.storerows import numbered, opened, seqs, snapshot
from tests.kit.events import FakeClock
from tests.kit.wait import eventually


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
from tests.hubble.storerows import numbered
from hubble.storewriter import FlowStoreWriter
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
