"""Stores and nodes as fixtures."""

import shutil
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.cluster.stores import EtcdStore, FileStore, Nodes, Store


@pytest.fixture
def etcd(tmp_path: Path) -> Iterator[EtcdStore]:
    """A running etcd."""
    if shutil.which("etcd") is None:
        pytest.fail("etcd is not installed: make setup-test")
    store = EtcdStore(tmp_path)
    store.start()
    yield store
    store.stop()


@pytest.fixture(params=["file", "etcd"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    """Each kind of store, running."""
    if request.param == "etcd":
        yield request.getfixturevalue("etcd")
    else:
        yield FileStore(tmp_path)


@pytest.fixture
async def nodes(store: Store) -> AsyncIterator[Nodes]:
    """Nodes on each kind of store."""
    made = Nodes(store)
    yield made
    for node in made.started:
        await node.stop()
