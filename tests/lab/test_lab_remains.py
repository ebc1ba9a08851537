"""A lab whose owner was killed is known as such; taken ports are named with who holds them."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from lab import cluster, forward
from lab.cluster import LabCluster
from lab.process import mark_lives, process_mark
from lab.spec import LabSpec
from tests.kit.wait import eventually


def test_a_process_is_known_by_more_than_its_number() -> None:
    """Its number and when it was started; nothing once it is gone, though not yet waited for."""
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    mark = process_mark(process.pid)
    assert mark_lives(mark)
    assert mark.startswith(f"{process.pid}@")
    assert not mark_lives(f"{process.pid}@1")
    process.kill()
    eventually(lambda: process_mark(process.pid) == "")
    assert not mark_lives(mark)
    process.communicate()
    assert not mark_lives(mark)
    assert not mark_lives("")
    assert not mark_lives("nonsense")


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LabCluster:
    monkeypatch.setattr("lab.spec.LABS_DIR", tmp_path)
    made = LabCluster(LabSpec.build("remains", 1))
    made.spec.directory.mkdir()
    return made


@pytest.mark.parametrize(
    ("owner", "died"),
    [(process_mark(os.getpid()), False), (f"{os.getpid()}@1", True), ("", False)],
)
def test_only_a_lab_of_a_dead_owner_may_be_taken_away_unasked(
    lab: LabCluster, owner: str, died: bool
) -> None:
    """One that `palomar lab up` made has no owner and stays."""
    (lab.spec.directory / "lab.json").write_text(json.dumps({"owner": owner}))
    assert lab.owner_died() is died


@pytest.mark.parametrize("content", [None, "", "nonsense", "{}"])
def test_a_state_that_says_nothing_is_nobodys(lab: LabCluster, content: str | None) -> None:
    """Killed before it was written, or written by an older version."""
    if content is not None:
        (lab.spec.directory / "lab.json").write_text(content)
    assert not lab.owner_died()
    assert lab.exists()


def test_who_holds_a_port_is_told() -> None:
    """The process's name and number; nothing where nobody does."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        assert forward.holder(port).startswith(f" by process {os.getpid()} (")
        taken = forward.bind(port)
        assert taken.getsockname()[1] != port
        taken.close()
    assert forward.holder(port) == ""


def test_the_state_file_is_where_the_command_looks(lab: LabCluster) -> None:
    """`owner_died` reads what `_save` writes."""
    lab.owner = "1@1"
    lab._save()
    assert json.loads((lab.spec.directory / "lab.json").read_text())["owner"] == "1@1"
    assert lab.owner_died()
    assert cluster.LabCluster.load("remains").spec == LabSpec.build("remains", 1)
