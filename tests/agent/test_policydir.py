"""The policy directory: files come, change, go; a bad one leaves its last good version in force."""

import os
from functools import partial
from pathlib import Path

import pytest

from agent.policy.api import PolicyName
from agent.policy.parse import parse_policies
from agent.policydir import PolicyDirectory
from tests.agent.agentkit import policy_text

WEB = PolicyName("demo", "allow-web")


@pytest.fixture
def directory(tmp_path: Path) -> PolicyDirectory:
    (tmp_path / "policies").mkdir()
    return PolicyDirectory(tmp_path / "policies", partial(parse_policies, cluster="default"))


def names(directory: PolicyDirectory) -> set[str]:
    return {str(name) for name in directory.policies()[0]}


def write(directory: PolicyDirectory, name: str, text: str) -> Path:
    """Replace a file as editors do: another inode, so also a change within one tick of the clock is seen."""
    path = directory.folder / name
    partial_path = directory.folder / f".{name}.new"
    partial_path.write_text(text)
    os.replace(partial_path, path)
    return path


def test_files_come_change_and_go(directory: PolicyDirectory) -> None:
    assert not directory.scan()
    write(directory, "a.yaml", policy_text("one"))
    assert directory.scan()
    assert names(directory) == {"demo/one"}
    assert not directory.scan(), "nothing changed"
    write(directory, "a.yaml", policy_text("two"))
    write(directory, "b.json", "[]")
    assert directory.scan()
    assert names(directory) == {"demo/two"}
    (directory.folder / "a.yaml").unlink()
    assert directory.scan()
    assert names(directory) == set()


@pytest.mark.parametrize("bad", ["{", "kind: Nonsense", "\x00", policy_text().replace("ingress", "ingres")])
def test_a_bad_version_leaves_the_last_good_one_in_force(directory: PolicyDirectory, bad: str) -> None:
    path = write(directory, "a.yaml", policy_text())
    directory.scan()
    write(directory, "a.yaml", bad)
    assert directory.scan()
    assert names(directory) == {"demo/allow-web"}
    assert directory.files[path].error.startswith(f"{path}: ")
    write(directory, "a.yaml", policy_text("fixed"))
    assert directory.scan()
    assert directory.files[path].error == ""
    assert names(directory) == {"demo/fixed"}


def test_the_error_names_the_path_inside_the_document(directory: PolicyDirectory) -> None:
    path = write(directory, "a.yaml", policy_text().replace("fromEndpoints", "fromEndpoint"))
    directory.scan()
    assert "spec.ingress[0].fromEndpoint" in directory.files[path].error
    assert "did you mean fromEndpoints?" in directory.files[path].error


def test_a_file_that_is_not_utf8_or_too_big_is_an_error(directory: PolicyDirectory) -> None:
    (directory.folder / "a.yaml").write_bytes(b"\xff\xfe")
    (directory.folder / "b.yaml").write_text("#" * (5 << 20))
    directory.scan()
    errors = [file.error for _, file in sorted(directory.files.items())]
    assert "utf-8" in errors[0]
    assert "larger than" in errors[1]


def test_of_two_files_with_the_same_policy_the_first_counts(directory: PolicyDirectory) -> None:
    write(directory, "a.yaml", policy_text(peer="first"))
    write(directory, "b.yaml", policy_text(peer="second"))
    directory.scan()
    policies, conflicts = directory.policies()
    assert "first" in policies[WEB].document
    assert len(conflicts) == 1
    assert "b.yaml: demo/allow-web is in" in conflicts[0]
    assert directory.owner(WEB) == directory.folder / "a.yaml"


def test_other_and_hidden_files_are_not_looked_at(directory: PolicyDirectory) -> None:
    write(directory, "notes.txt", "{")
    (directory.folder / ".a.yaml").write_text("{")
    (directory.folder / "sub.yaml").mkdir()
    assert directory.scan(), "a folder named like a file is an error of its own"
    assert list(directory.files) == [directory.folder / "sub.yaml"]


def test_a_folder_that_goes_away_keeps_its_policies_in_force(directory: PolicyDirectory) -> None:
    write(directory, "a.yaml", policy_text())
    directory.scan()
    directory.folder.rename(directory.folder.with_name("elsewhere"))
    assert directory.scan()
    assert "create it, or leave policy-dir out" in directory.error
    assert names(directory) == {"demo/allow-web"}
    directory.folder.with_name("elsewhere").rename(directory.folder)
    assert directory.scan()
    assert directory.error == ""
