"""Identities on a node: numbers of the cluster, those of others, a replaced number carried through."""

import asyncio
from collections.abc import AsyncIterator
from ipaddress import IPv4Address
from pathlib import Path

import pytest_asyncio

from agent.identity.cache import IdentityCache
from agent.identity.labelfilter import LabelFilter
from agent.nodeidentity import NodeIdentities
from cluster.connect import open_backend
from cluster.shared import SharedState, SharedStateConfig
from palomar.identity import NumericIdentity, Reserved
from palomar.labels import LabelSet
from tests.kit.wait import eventually_async

WEB, API = LabelSet.parse(["k8s:app=web"]), LabelSet.parse(["k8s:app=api"])


def backend_of(folder: Path, node: str, address: str) -> SharedState:
    config = SharedStateConfig(node, IPv4Address(address), 15)
    return open_backend("file", config, directory=folder / "kvstore")


@pytest_asyncio.fixture
async def identities(tmp_path: Path) -> AsyncIterator[NodeIdentities]:
    backend = backend_of(tmp_path, "one", "172.30.0.1")
    await backend.start()
    assert await backend.wait_synced(5)
    made = NodeIdentities(backend, IdentityCache(), LabelFilter())
    await made.start()
    yield made
    await made.stop()
    await backend.stop()


async def test_the_same_labels_have_the_same_number_and_are_known_at_once(identities: NodeIdentities) -> None:
    number = await identities.acquire(WEB)
    assert await identities.acquire(WEB) == number
    assert identities.cache.labels(number) == WEB
    identities.release(WEB)
    identities.release(WEB)
    identities.release(WEB)


async def test_reserved_labels_need_no_store(identities: NodeIdentities) -> None:
    assert await identities.acquire(LabelSet.parse(["reserved:init"])) == Reserved.INIT
    identities.release(LabelSet.parse(["reserved:init"]))


def test_only_security_relevant_labels_count_and_none_is_init() -> None:
    class NoBackend:
        def on_identity_moved(self, listener: object) -> None:
            pass

    identities = NodeIdentities(NoBackend(), IdentityCache(), LabelFilter())  # type: ignore[arg-type]  # nothing else is called
    labels = LabelSet.parse(["k8s:app=web", "k8s:pod-template-hash=1"])
    assert identities.security_relevant(labels) == WEB
    assert identities.security_relevant(LabelSet.parse(["k8s:pod-template-hash=1"])).texts() == [
        "reserved:init"
    ]


async def test_identities_of_other_nodes_come_and_go(identities: NodeIdentities, tmp_path: Path) -> None:
    other = backend_of(tmp_path, "two", "172.30.0.2")
    await other.start()
    assert await other.wait_synced(5)
    number = await other.allocate_identity(API)
    await eventually_async(lambda: identities.cache.labels(number) == API)
    await other.stop()


async def test_a_replaced_number_is_known_before_and_the_old_one_forgotten_after(
    identities: NodeIdentities,
) -> None:
    old = await identities.acquire(WEB)
    new = NumericIdentity(old + 1)
    seen: list[tuple[bool, bool]] = []
    done = asyncio.Event()

    async def moved(labels: LabelSet, number: NumericIdentity) -> None:
        cache = identities.cache
        seen.append((cache.labels(number) == labels == WEB, cache.labels(old) == WEB))
        done.set()

    identities.moved = moved
    identities._identity_moved(WEB, old, new)
    await asyncio.wait_for(done.wait(), 3)
    assert seen == [(True, True)]
    await eventually_async(lambda: identities.cache.labels(old) is None)
    assert identities.cache.labels(new) == WEB


async def test_a_replaced_number_that_nobody_uses_here_is_not_ours(identities: NodeIdentities) -> None:
    identities._identity_moved(API, NumericIdentity(300), NumericIdentity(301))
    assert identities.cache.labels(301) is None
