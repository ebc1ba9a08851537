"""What only the file store can meet: damage, other processes, another boot, an unknown kind."""

import asyncio
import json
import os
import sys
from pathlib import Path

import pytest

from cluster.connect import open_backend
from cluster.driver import Put
from cluster.errors import BackendUnavailableError
from cluster.filestore import FileDriver
from cluster.shared import SharedStateConfig
from palomar.errors import InvalidInputError
from tests.cluster.stores import node_ip, pod_entry
from tests.kit.wait import eventually_async

CONFIG = SharedStateConfig("node-1", node_ip(1))

WRITER = """
import asyncio, sys
from pathlib import Path
from ipaddress import IPv4Address
from cluster.connect import open_backend
from cluster.shared import SharedStateConfig
from palomar.labels import LabelSet

async def main() -> None:
    name, directory = sys.argv[1], Path(sys.argv[2])
    node = open_backend("file", SharedStateConfig(name, IPv4Address(name)), directory=directory)
    await node.start()
    await node.wait_synced(20)
    sys.stdin.readline()
    for number in range(10):
        print(await node.allocate_identity(LabelSet.parse([f"k8s:app=a{number}"])), flush=True)
    await node.stop()

asyncio.run(main())
"""


async def test_processes_that_race_agree(tmp_path: Path) -> None:
    processes = [
        await asyncio.create_subprocess_exec(
            sys.executable,
            "-c",
            WRITER,
            f"172.30.0.{number}",
            str(tmp_path / "store"),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            cwd=Path(__file__).parents[2],
        )
        for number in (1, 2, 3)
    ]
    answers = await asyncio.gather(*(process.communicate(b"go\n") for process in processes))
    numbers = {answer for answer, _ in answers}
    assert len(numbers) == 1
    assert len(set(numbers.pop().split())) == 10


async def test_a_damaged_state_file_is_set_aside_and_written_again(tmp_path: Path) -> None:
    node = open_backend("file", CONFIG, directory=tmp_path)
    await node.start()
    node.upsert_ip(pod_entry(1))
    assert await node.flush(5)
    state = tmp_path / "state.json"
    good = json.loads(state.read_text())["keys"]
    state.write_text('{"format": 1, "keys"')

    def restored() -> bool:
        if not state.exists():  # between setting aside and writing again
            return False
        found = json.loads(state.read_text())["keys"]
        return {k: v["value"] for k, v in found.items()} == {k: v["value"] for k, v in good.items()}

    await eventually_async((tmp_path / "state.corrupt-1").exists)
    await eventually_async(restored)
    assert (tmp_path / "state.corrupt-1").read_text() == '{"format": 1, "keys"'
    await node.stop()


async def test_a_file_of_another_format_is_set_aside(tmp_path: Path) -> None:
    (tmp_path / "state.json").write_text('{"format": 99, "store": "x", "revision": 1, "keys": {}}')
    await FileDriver(tmp_path).connect()
    assert (tmp_path / "state.corrupt-1").exists()


async def test_leases_of_another_boot_have_ended(tmp_path: Path) -> None:
    driver = FileDriver(tmp_path)
    await driver.connect()
    lease = await driver.grant_lease(60)
    await driver.transact([], [Put("cilium/a", "1", lease)])
    path = tmp_path / "leases" / str(lease)
    path.write_text(json.dumps(json.loads(path.read_text()) | {"boot": "another"}))
    assert not await driver.keep_alive(lease)
    await driver.connect()
    assert not (await driver.snapshot("cilium/")).values
    assert not path.exists()


async def test_a_lease_file_that_is_damaged_counts_as_ended(tmp_path: Path) -> None:
    driver = FileDriver(tmp_path)
    await driver.connect()
    lease = await driver.grant_lease(60)
    (tmp_path / "leases" / str(lease)).write_text("{")
    (tmp_path / "leases" / "0note").write_text("not a lease")
    assert not await driver.keep_alive(lease)
    assert (tmp_path / "leases" / "0note").exists()


async def test_state_survives_a_restart(tmp_path: Path) -> None:
    first = FileDriver(tmp_path)
    await first.connect()
    await first.transact([], [Put("cilium/a", "1")])
    second = FileDriver(tmp_path)
    await second.connect()
    assert (await second.snapshot("cilium/")).values["cilium/a"].value == "1"
    assert not [name for name in os.listdir(tmp_path) if name.startswith(".")]


async def test_a_directory_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(BackendUnavailableError, match="file/store"):
        await FileDriver(tmp_path / "file" / "store").connect()


@pytest.mark.parametrize(
    ("kind", "key"), [("consul", "kvstore"), ("file", "kvstore-dir"), ("etcd", "etcd-endpoints")]
)
def test_a_backend_that_cannot_be_made_names_the_key(kind: str, key: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        open_backend(kind, CONFIG)
    assert caught.value.path == key
