"""State files: what is saved is loaded, and a damaged file is set aside, not fatal."""

from dataclasses import replace
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from agent.endpoint.model import EndpointRecord, Workload
from agent.endpoint.store import EndpointStore, StateFileError, decode, encode
from palomar.identity import EndpointId, NumericIdentity
from palomar.labels import LabelSet

RECORD = EndpointRecord(
    endpoint_id=EndpointId(7),
    container_name="web",
    netns="/run/netns/web",
    ipv4=IPv4Address("10.1.0.7"),
    host_ifname="lxc0123456789a",
    container_ifname="eth0",
    labels=LabelSet.parse(["k8s:app=web", "k8s:pod-template-hash=5"]),
    identity_labels=LabelSet.parse(["k8s:app=web"]),
    identity=NumericIdentity(4242),
    namespace="demo",
    pod="web-1",
    workload=Workload("web", "Deployment"),
    created_ns=123,
)


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    store = EndpointStore(tmp_path / "endpoints")
    plain = replace(RECORD, endpoint_id=EndpointId(3), workload=None)
    store.save(RECORD)
    store.save(plain)
    assert store.load().records == (plain, RECORD)
    store.remove(3)
    store.remove(3)
    assert store.load().records == (RECORD,)
    assert [path.name for path in store.folder.iterdir()] == ["7.json"]


def test_nothing_is_loaded_from_a_folder_that_does_not_exist(tmp_path: Path) -> None:
    assert EndpointStore(tmp_path / "none").load().records == ()


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "null", '{"version": 1}', '{"version": 99, "id": 8}', '{"version": 1, "id": "x"}']
)
def test_a_damaged_file_is_set_aside_and_the_others_are_read(tmp_path: Path, text: str) -> None:
    store = EndpointStore(tmp_path)
    store.save(RECORD)
    (tmp_path / "8.json").write_text(text)
    loaded = store.load()
    assert loaded.records == (RECORD,)
    assert loaded.corrupt == (tmp_path / "8.json.corrupt",)
    assert loaded.corrupt[0].read_text() == text
    assert store.load().corrupt == ()


def test_a_file_of_another_endpoint_is_set_aside(tmp_path: Path) -> None:
    store = EndpointStore(tmp_path)
    store.save(RECORD)
    (tmp_path / "7.json").rename(tmp_path / "9.json")
    assert store.load().corrupt == (tmp_path / "9.json.corrupt",)


def test_a_folder_that_cannot_be_written_is_an_error_with_its_path(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StateFileError, match="file"):
        EndpointStore(tmp_path / "file").save(RECORD)


def test_every_field_survives_the_encoding() -> None:
    assert decode(encode(RECORD)) == RECORD
