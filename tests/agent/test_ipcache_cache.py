"""The ipcache of two nodes on a real file store, writing to maps in memory."""

import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

import pytest

from agent.ipcache import EndpointAddress, IpCache, IpInfo, Source
from agent.ipcache.target import FakeIpMaps
from agent.nodes import NodeDiscovery, local_node_entry
from cluster.backend import BackendState, IpEntry, endpoint_metadata
from cluster.filestore import FileDriver
from cluster.shared import SharedState, SharedStateConfig
from datapath.abi.addresses import IpcacheEntry
from palomar.identity import MIN_LOCAL_IDENTITY, NumericIdentity, Reserved
from tests.kit.wait import eventually_async

WORLD = IPv4Network("0.0.0.0/0")


def node_ip(number: int) -> IPv4Address:
    return IPv4Address(f"172.30.0.{number}")


def net(text: str) -> IPv4Network:
    return IPv4Network(text)


def pod(node: int, last: int = 5, identity: int = 4242) -> EndpointAddress:
    return EndpointAddress(
        IPv4Address(f"10.{node}.0.{last}"), NumericIdentity(identity), last, "demo", f"web-{last}"
    )


def published(node: int, last: int = 5, identity: int = 4242, host: int | None = None) -> IpEntry:
    return IpEntry(
        net(f"10.{node}.0.{last}"),
        node_ip(host or node),
        NumericIdentity(identity),
        metadata=endpoint_metadata("default", f"node-{host or node}", last),
        namespace="demo",
        pod=f"web-{last}",
    )


@dataclass
class Node:
    number: int
    backend: SharedState
    nodes: NodeDiscovery
    ipcache: IpCache
    maps: FakeIpMaps

    def has(self, network: str, identity: int | None, tunnel: int | None = None) -> bool:
        wanted = None if identity is None else IpcacheEntry(identity, node_ip(tunnel) if tunnel else None)
        return self.maps.ipcache.entries.get(net(network)) == wanted


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "store"


@pytest.fixture
async def start(directory: Path) -> AsyncIterator[Callable]:
    """Start a node; all are stopped at the end."""
    async with AsyncExitStack() as stack:

        async def start(number: int, maps: FakeIpMaps | None = None, grace_s: float = 0.05) -> Node:
            config = SharedStateConfig(f"node-{number}", node_ip(number), 2, 60)
            backend = SharedState(FileDriver(directory, poll_s=0.01), config)
            local = local_node_entry(
                f"node-{number}",
                "default",
                node_ip(number),
                IPv4Address(f"10.{number}.0.1"),
                net(f"10.{number}.0.0/24"),
            )
            nodes = NodeDiscovery(backend, local)
            maps = maps or FakeIpMaps()
            ipcache = IpCache(maps, backend, nodes, prune_grace_s=grace_s)
            for component in (backend, nodes, ipcache):
                await component.start()
                stack.push_async_callback(component.stop)
            return Node(number, backend, nodes, ipcache, maps)

        yield start


async def test_world_and_host_are_there_from_the_start(start: Callable) -> None:
    one = await start(1)
    await eventually_async(lambda: len(one.maps.ipcache.entries) == 3)
    assert one.has("0.0.0.0/0", 2)
    assert one.has("172.30.0.1/32", 1)
    assert one.has("10.1.0.1/32", 1)
    assert one.maps.tunnel.entries == {}
    assert one.ipcache.lookup(IPv4Address("8.8.8.8")) == IpInfo(
        NumericIdentity(Reserved.WORLD), None, Source.WORLD
    )


async def test_endpoints_and_nodes_reach_the_other_node(start: Callable) -> None:
    one, two = await start(1), await start(2)
    one.ipcache.upsert_endpoint(pod(1))
    one.ipcache.endpoints_restored()
    await eventually_async(lambda: one.has("10.1.0.5/32", 4242, tunnel=1))
    await eventually_async(lambda: two.has("10.1.0.5/32", 4242, tunnel=1))
    await eventually_async(lambda: two.has("172.30.0.1/32", Reserved.REMOTE_NODE))
    assert two.has("10.1.0.1/32", Reserved.REMOTE_NODE, tunnel=1)
    assert two.maps.tunnel.entries == {IPv4Address("10.1.0.0"): node_ip(1)}
    assert two.ipcache.lookup(IPv4Address("10.1.0.5")) == IpInfo(
        identity=NumericIdentity(4242),
        tunnel_endpoint=node_ip(1),
        source=Source.REMOTE,
        node="default/node-1",
        namespace="demo",
        pod="web-5",
    )
    one.ipcache.upsert_endpoint(pod(1, identity=777))
    await eventually_async(lambda: two.has("10.1.0.5/32", 777, tunnel=1))
    one.ipcache.delete_endpoint(pod(1).ipv4)
    await eventually_async(lambda: two.has("10.1.0.5/32", None) and one.has("10.1.0.5/32", None))


async def test_a_local_endpoint_beats_what_another_node_says(start: Callable) -> None:
    one, two = await start(1), await start(2)
    one.ipcache.upsert_endpoint(pod(1))
    await eventually_async(lambda: two.has("10.1.0.5/32", 4242, tunnel=1))
    two.backend.upsert_ip(published(1, identity=999, host=2))
    await eventually_async(lambda: one.backend.ips()[net("10.1.0.5")].identity == 999)
    two.backend.upsert_ip(published(1, last=6, host=2))
    await eventually_async(lambda: one.has("10.1.0.6/32", 4242, tunnel=2))
    assert one.has("10.1.0.5/32", 4242, tunnel=1)
    one.ipcache.delete_endpoint(pod(1).ipv4)
    await eventually_async(lambda: one.has("10.1.0.5/32", 999, tunnel=2))


async def test_node_local_identities_and_own_stale_addresses_of_the_store_are_ignored(
    start: Callable,
) -> None:
    one, two = await start(1), await start(2)
    two.backend.upsert_ip(published(1, last=7, host=1))
    two.backend.upsert_ip(published(2, last=8, identity=MIN_LOCAL_IDENTITY))
    two.backend.upsert_ip(published(2, last=9))
    await eventually_async(lambda: one.has("10.2.0.9/32", 4242, tunnel=2))
    assert one.has("10.1.0.7/32", None)
    assert one.has("10.2.0.8/32", None)


async def test_cidrs_of_policies_stand_beneath_endpoints_and_nodes(start: Callable) -> None:
    one = await start(1)
    one.ipcache.upsert_endpoint(pod(1))
    outside, inside = NumericIdentity(MIN_LOCAL_IDENTITY), NumericIdentity(MIN_LOCAL_IDENTITY + 1)
    one.ipcache.set_cidrs({net("192.0.2.0/24"): outside, net("10.1.0.5/32"): inside})
    await eventually_async(lambda: one.has("192.0.2.0/24", outside))
    assert one.has("10.1.0.5/32", 4242, tunnel=1)
    one.ipcache.delete_endpoint(pod(1).ipv4)
    await eventually_async(lambda: one.has("10.1.0.5/32", inside))
    one.ipcache.set_cidrs({net("10.1.0.5/32"): inside})
    await eventually_async(lambda: one.has("192.0.2.0/24", None))
    assert one.has("10.1.0.5/32", inside)


async def test_listeners_hear_what_is_known_and_every_change(start: Callable) -> None:
    one = await start(1)
    one.ipcache.upsert_endpoint(pod(1))
    heard = []
    one.ipcache.listen(lambda *change: heard.append(change))
    assert {network for network, before, _ in heard if before is None} == set(one.ipcache.entries())
    known = len(heard)
    one.ipcache.upsert_endpoint(pod(1))
    assert len(heard) == known
    one.ipcache.upsert_endpoint(pod(1, identity=9))
    network, before, after = heard[-1]
    assert (network, before.identity, after.identity, after.endpoint_id) == (net("10.1.0.5"), 4242, 9, 5)
    one.ipcache.delete_endpoint(pod(1).ipv4)
    assert heard[-1] == (network, after, None)


def stranded() -> FakeIpMaps:
    """Maps as a former run of node 1 left them."""
    maps = FakeIpMaps()
    maps.ipcache.upsert(net("10.1.0.9/32"), 5000, node_ip(1))
    maps.ipcache.upsert(net("192.0.2.0/24"), MIN_LOCAL_IDENTITY, None)
    maps.ipcache.upsert(net("10.2.0.5/32"), 4242, node_ip(2))
    maps.ipcache.upsert(net("10.9.0.5/32"), 4242, node_ip(9))
    maps.tunnel.upsert(net("10.9.0.0/24"), node_ip(9))
    return maps


LEFT = {net("10.1.0.9/32"), net("192.0.2.0/24"), net("10.2.0.5/32"), net("10.9.0.5/32")}


async def test_strangers_go_after_restore_and_sync_those_behind_nodes_later(start: Callable) -> None:
    two = await start(2)
    two.ipcache.upsert_endpoint(pod(2))
    two.ipcache.endpoints_restored()
    assert await two.backend.flush(5)
    maps = stranded()
    one = await start(1, maps, grace_s=0.5)
    await eventually_async(lambda: one.has("172.30.0.2/32", Reserved.REMOTE_NODE))
    assert maps.ipcache.entries.keys() >= LEFT
    one.ipcache.endpoints_restored()
    await eventually_async(lambda: net("10.1.0.9/32") not in maps.ipcache.entries)
    assert net("192.0.2.0/24") not in maps.ipcache.entries
    assert one.has("10.9.0.5/32", 4242, tunnel=9)
    assert not one.ipcache.pruned
    await eventually_async(lambda: one.ipcache.pruned)
    assert one.has("10.9.0.5/32", None)
    assert one.has("10.2.0.5/32", 4242, tunnel=2)
    assert maps.tunnel.entries == {IPv4Address("10.2.0.0"): node_ip(2)}


def take_away(directory: Path) -> None:
    """Put a plain file in the store's place; a node at work may make the directory anew in between."""
    while not directory.is_file():
        shutil.rmtree(directory, ignore_errors=True)
        with suppress(IsADirectoryError):
            directory.write_text("not a directory")


def bring_back_empty(directory: Path) -> None:
    directory.unlink()


async def test_nothing_is_pruned_before_the_store_was_read(start: Callable, directory: Path) -> None:
    take_away(directory)
    maps = stranded()
    one = await start(1, maps)
    one.ipcache.upsert_endpoint(pod(1))
    one.ipcache.endpoints_restored()
    await eventually_async(lambda: one.backend.status().failures >= 2)
    assert one.has("10.1.0.5/32", 4242, tunnel=1)
    assert maps.ipcache.entries.keys() >= LEFT
    bring_back_empty(directory)
    await eventually_async(lambda: one.ipcache.pruned, 15)
    assert not maps.ipcache.entries.keys() & LEFT


async def test_everything_stays_while_the_store_is_away_and_when_it_comes_back_empty(
    start: Callable, directory: Path
) -> None:
    one, two = await start(1), await start(2)
    for node in (one, two):
        node.ipcache.upsert_endpoint(pod(node.number))
        node.ipcache.endpoints_restored()
    await eventually_async(lambda: one.has("10.2.0.5/32", 4242, tunnel=2) and one.ipcache.pruned)
    await eventually_async(lambda: one.has("172.30.0.2/32", Reserved.REMOTE_NODE))
    before = dict(one.maps.ipcache.entries)
    changes = []
    one.ipcache.listen(lambda _, old, __: changes.append(old))
    del changes[:]
    take_away(directory)
    await eventually_async(lambda: one.backend.status().state is BackendState.DISCONNECTED, 10)
    await eventually_async(lambda: two.backend.status().state is BackendState.DISCONNECTED, 10)
    assert one.maps.ipcache.entries == before
    bring_back_empty(directory)
    assert await one.backend.flush(15)
    assert await two.backend.flush(15)
    await eventually_async(lambda: one.backend.status().vanished == 0)
    assert one.maps.ipcache.entries == before
    assert changes == []


async def test_a_failing_map_is_tried_again(start: Callable) -> None:
    maps = FakeIpMaps()
    maps.ipcache.broken = True
    one = await start(1, maps)
    await eventually_async(lambda: one.ipcache.errors == 3)
    maps.ipcache.broken = False
    await eventually_async(lambda: one.ipcache.errors == 0)
    assert len(maps.ipcache.entries) == 3


async def test_an_older_node_comes_back_when_the_newer_one_leaves(start: Callable) -> None:
    one, two = await start(1), await start(2)
    two.ipcache.endpoints_restored()
    await eventually_async(lambda: one.maps.tunnel.entries == {IPv4Address("10.2.0.0"): node_ip(2)})
    newer = local_node_entry("node-3", "default", node_ip(3), IPv4Address("10.2.0.1"), net("10.2.0.0/24"))
    two.backend.publish_node(newer)
    await eventually_async(lambda: one.maps.tunnel.entries == {IPv4Address("10.2.0.0"): node_ip(3)})
    assert one.has("10.2.0.1/32", Reserved.REMOTE_NODE, tunnel=3)
    one.ipcache._node_changed(newer, None)
    await eventually_async(lambda: one.has("10.2.0.1/32", Reserved.REMOTE_NODE, tunnel=2))
    await eventually_async(lambda: one.maps.tunnel.entries == {IPv4Address("10.2.0.0"): node_ip(2)})
