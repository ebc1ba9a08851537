"""The folder of the flow store: one writer, damaged rings set aside, a full disk."""

import logging
import os

import pytest

from hubble.errors import StoreBusyError, StoreSpaceError
from hubble.storefolder import KEPT_DAMAGED
from hubble.storereader import FlowStoreReader
from tests.hubble.storerows import damaged, numbered, opened, seqs, snapshot


def test_a_second_writer_is_refused_until_the_first_is_gone(tmp_path):
    writer = opened(tmp_path)
    with pytest.raises(StoreBusyError):
        opened(tmp_path)
    writer.close()
    writer.close()
    opened(tmp_path).close()


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


def test_a_full_disk_is_an_error_with_a_remedy(tmp_path, monkeypatch):
    def full(fd: int, offset: int, length: int) -> None:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(StoreSpaceError, match="hubble-event-buffer-capacity"):
        opened(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["flows.lock"]
    monkeypatch.undo()
    opened(tmp_path).close()
