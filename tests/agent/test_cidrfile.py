"""Numbers of CIDR identities in their file: kept, and a damaged file forgotten."""

from ipaddress import IPv4Network
from pathlib import Path

import pytest

from agent.cidrfile import read_cidr_numbers, write_cidr_numbers

NUMBERS = {IPv4Network("192.0.2.0/24"): 0x1000002, IPv4Network("10.0.0.0/8"): 0x1000001}


def test_what_is_written_is_read(tmp_path: Path) -> None:
    path = tmp_path / "state" / "cidr.json"
    assert read_cidr_numbers(path) == {}
    write_cidr_numbers(path, NUMBERS)
    assert read_cidr_numbers(path) == NUMBERS


@pytest.mark.parametrize("text", ["", "[]", "{", '{"x": 1}', '{"10.0.0.0/8": "y"}', '{"10.0.0.0/8": null}'])
def test_a_damaged_file_is_forgotten(tmp_path: Path, text: str, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "cidr.json"
    path.write_text(text)
    assert read_cidr_numbers(path) == {}
    assert "numbers of CIDR identities forgotten" in caplog.text


def test_a_file_that_cannot_be_written_is_only_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("")
    write_cidr_numbers(tmp_path / "file" / "cidr.json", NUMBERS)
    assert "numbers of CIDR identities not kept" in caplog.text
