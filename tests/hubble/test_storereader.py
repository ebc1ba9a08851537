"""Reading the flow store: whole rows only, also when the writer laps the reader."""

import shutil

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hubble import storefile, storereader
from hubble.errors import StoreDamagedError, StoreMissingError
from hubble.storemapping import Loss
from hubble.storereader import FlowStoreReader
from tests.hubble.storerows import CAPACITY, damaged, numbered, opened, seqs


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


def test_a_field_of_a_large_block_is_copied_without_its_records(tmp_path, monkeypatch):
    """It says what the records say: around the end of the ring, and zeros for what is gone by then."""
    monkeypatch.setattr(storereader, "SCANNED_ROWS", 10)
    writer = opened(tmp_path)
    writer.append(numbered(0, 150))
    reader = FlowStoreReader.open(tmp_path)
    block, _ = reader.read(60, 80)
    assert block.column("seq").tolist() == list(range(60, 140))
    writer.append(numbered(150, 20))
    assert block.column("seq").tolist() == list(range(60, 140))
    assert block.column("version").tolist() == [0] * 10 + [1] * 70
    assert block.column("saddr").shape == (80, 16)
    assert block.records["seq"].tolist() == [0] * 10 + list(range(70, 140))
    few, _ = reader.read(70, 10)
    assert few.column("seq").base is few.records
    writer.close()


def test_rows_overwritten_during_the_copy_are_left_out(tmp_path, monkeypatch):
    writer = opened(tmp_path)
    writer.append(numbered(0, 100))
    reader = FlowStoreReader.open(tmp_path)
    copied = storereader._copied

    def overtaken(source, spans):
        if writer.head < 130:
            writer.append(numbered(writer.head, 30))
        return copied(source, spans)

    monkeypatch.setattr(storereader, "_copied", overtaken)
    block, overwritten = reader.read(10, 80)
    assert (block.first, overwritten, len(block)) == (30, 20, 60)
    assert block.columns["src_ref"].tolist() == [seq * 3 for seq in range(30, 90)]
    assert block.records["seq"].tolist() == list(range(30, 90))
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
