"""This node among the others, over a real file store."""

from collections.abc import AsyncIterator
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

import pytest

from agent.nodes import NodeDiscovery, local_node_entry
from cluster.backend import NodeEntry
from cluster.filestore import FileDriver
from cluster.shared import SharedState, SharedStateConfig
from tests.kit.wait import eventually_async


def entry(number: int) -> NodeEntry:
    return local_node_entry(
        f"node-{number}",
        "default",
        IPv4Address(f"172.30.0.{number}"),
        IPv4Address(f"10.{number}.0.1"),
        IPv4Network(f"10.{number}.0.0/24"),
    )


@pytest.fixture
async def pair(tmp_path: Path) -> AsyncIterator[list[NodeDiscovery]]:
    """Two nodes on one store, discovering."""
    backends, made = [], []
    for number in (1, 2):
        config = SharedStateConfig(f"node-{number}", IPv4Address(f"172.30.0.{number}"), 2, 0.2)
        backends.append(SharedState(FileDriver(tmp_path, poll_s=0.01), config))
        made.append(NodeDiscovery(backends[-1], entry(number)))
        await backends[-1].start()
        await made[-1].start()
    yield made
    for discovery, backend in zip(made, backends, strict=True):
        await discovery.stop()
        await backend.stop()


async def test_nodes_that_publish_find_each_other(pair: list[NodeDiscovery]) -> None:
    one, two = pair
    await eventually_async(lambda: one.synced and two.synced)
    assert one.nodes() == [entry(1)]
    one.publish()
    two.publish()
    await eventually_async(lambda: len(one.nodes()) == len(two.nodes()) == 2)
    assert one.nodes() == [entry(1), entry(2)]
    assert two.nodes() == [entry(2), entry(1)]


async def test_listeners_hear_of_the_others_only(pair: list[NodeDiscovery]) -> None:
    one, two = pair
    heard, synced = [], []
    one.listen(lambda *change: heard.append(change), lambda: synced.append("early"))
    await eventually_async(lambda: one.synced)
    one.publish()
    two.publish()
    await eventually_async(lambda: heard)
    changed = replace(two.local, labels={"zone": "a"})
    NodeDiscovery(two._backend, changed).publish()
    await eventually_async(lambda: len(heard) == 2)
    late = []
    one.listen(lambda *change: late.append(change), lambda: synced.append("late"))
    assert heard == [(None, entry(2)), (entry(2), changed)]
    assert late == [(None, changed)]
    assert synced == ["early", "late"]
    await two._backend.stop(withdraw=True)
    await eventually_async(lambda: heard[-1] == late[-1] == (changed, None))
    assert one.nodes() == [entry(1)]
