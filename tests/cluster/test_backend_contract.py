"""What every backend promises, run against a real directory and a real etcd."""

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from ipaddress import IPv4Network

import pytest

from cluster.backend import BackendState, Deleted, IdentityEntry, Synced, Upserted
from cluster.driver import Absent, Delete, Equals, PrefixAbsent, Put, Snapshot
from cluster.errors import BackendUnavailableError, PositionLostError
from cluster.keys import STATE_PREFIX, identity_key, ip_key, node_key, reference_key
from cluster.shared import SharedState
from palomar.labels import LabelSet
from palomar.tasks import spawn
from tests.cluster.stores import (
    LEASE_TTL_S,
    Nodes,
    Recorder,
    Store,
    duration_under,
    node_entry,
    node_ip,
    pod_entry,
)
from tests.kit.wait import eventually_async

WEB = LabelSet.parse(
    ["k8s:app=web", "k8s:app.kubernetes.io/name=web/x", "k8s:io.kubernetes.pod.namespace=demo"]
)
DB = LabelSet.parse(["k8s:app=db"])


async def stored(store: Store) -> dict[str, str]:
    driver = store.driver()
    await driver.connect()
    snapshot = await driver.snapshot(STATE_PREFIX)
    await driver.close()
    return {key: value.value for key, value in snapshot.values.items()}


async def write(store: Store, *operations: Put | Delete) -> None:
    driver = store.driver()
    await driver.connect()
    await driver.transact([], operations)
    await driver.close()


async def has_ips(node: SharedState, count: int) -> None:
    await eventually_async(lambda: len(node.ips()) == count, 10)


async def outage(nodes: Nodes, *, empty: bool) -> None:
    """Take the store away until every node has noticed, then bring it back."""
    nodes.store.stop()
    for node in nodes.started:
        await eventually_async(lambda node=node: node.status().state is not BackendState.OK, 10)
    if empty:
        nodes.store.empty()
    nodes.store.start()
    for node in nodes.started:
        await eventually_async(lambda node=node: node.status().state is BackendState.OK, 15)
        assert await node.flush(10)


@pytest.fixture
async def record() -> AsyncIterator[object]:
    """Start recording a watch; stopped at the end."""
    tasks = []

    def start(watch: AsyncIterator[object]) -> list[object]:
        recorder = Recorder(watch)  # type: ignore[arg-type]  # any kind of entry
        tasks.append(spawn(recorder.run(), "recorder"))
        return recorder.events

    yield start
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_same_labels_have_the_same_number_on_every_node(nodes: Nodes) -> None:
    one, two = await nodes.start(1), await nodes.start(2)
    web = await one.allocate_identity(WEB)
    assert 256 <= web <= 65535
    assert await two.allocate_identity(WEB) == web
    assert await two.allocate_identity(DB) != web
    await eventually_async(lambda: len(one.identities()) == 2)
    assert one.identities()[web] == IdentityEntry(web, WEB)


async def test_nodes_that_race_for_the_same_labels_agree(nodes: Nodes) -> None:
    several = [await nodes.start(n) for n in range(1, 6)]
    for attempt in range(5):
        labels = LabelSet.parse([f"k8s:app=race-{attempt}"])
        numbers = await asyncio.gather(
            *(node.allocate_identity(labels) for node in several for _ in range(2))
        )
        assert len(set(numbers)) == 1
    everything = await stored(nodes.store)
    assert sum(key.startswith(f"{STATE_PREFIX}identities/v1/id/") for key in everything) == 5


async def test_keys_and_values_are_the_public_ones(nodes: Nodes) -> None:
    node = await nodes.start(1)
    web = await node.allocate_identity(WEB)
    node.upsert_ip(pod_entry(1, identity=web))
    node.publish_node(node_entry(1))
    assert await node.flush(5)
    everything = await stored(nodes.store)
    assert everything.pop(f"cilium/state/identities/v1/id/{web}") == WEB.canonical()
    assert everything.pop(f"cilium/state/identities/v1/value/{WEB.canonical()}/172.30.0.1") == str(web)
    ip = json.loads(everything.pop("cilium/state/ip/v1/default/10.1.0.5"))
    assert ip == {
        "IP": "10.1.0.5",
        "Mask": None,
        "HostIP": "172.30.0.1",
        "ID": web,
        "Key": 0,
        "Metadata": "cilium-global:default:node-1:5",
        "K8sNamespace": "demo",
        "K8sPodName": "web-5",
    }
    entry = json.loads(everything.pop("cilium/state/nodes/v1/default/node-1"))
    assert entry["IPv4AllocCIDR"] == {"IP": "10.1.0.0", "Mask": "////AA=="}
    assert not everything


async def test_a_watch_tells_everything_then_synced_then_changes(nodes: Nodes, record) -> None:
    one, two = await nodes.start(1), await nodes.start(2)
    one.publish_node(node_entry(1))
    one.upsert_ip(pod_entry(1, 5))
    await has_ips(two, 1)
    events = record(two.watch_ips())
    await eventually_async(lambda: len(events) == 2)
    one.upsert_ip(pod_entry(1, 6))
    await eventually_async(lambda: len(events) == 3)
    one.upsert_ip(pod_entry(1, 6, identity=999))
    await eventually_async(lambda: len(events) == 4)
    one.delete_ip(pod_entry(1, 6).network)
    await eventually_async(lambda: len(events) == 5)
    key = ip_key(pod_entry(1, 6).network)
    assert events == [
        Upserted(ip_key(pod_entry(1, 5).network), pod_entry(1, 5)),
        Synced(),
        Upserted(key, pod_entry(1, 6)),
        Upserted(key, pod_entry(1, 6, identity=999)),
        Deleted(key, pod_entry(1, 6, identity=999)),
    ]


async def test_nodes_see_each_other(nodes: Nodes) -> None:
    one, two = await nodes.start(1), await nodes.start(2)
    one.publish_node(node_entry(1))
    two.publish_node(node_entry(2, labels={"zone": "a"}))
    wanted = {"default/node-1": node_entry(1), "default/node-2": node_entry(2, labels={"zone": "a"})}
    await eventually_async(lambda: one.nodes() == wanted and two.nodes() == wanted)


async def test_a_number_stays_with_its_labels_after_the_last_use(nodes: Nodes) -> None:
    one, two = await nodes.start(1), await nodes.start(2)
    web = await one.allocate_identity(WEB)
    assert await one.allocate_identity(WEB) == web
    reference = reference_key(WEB, node_ip(1))
    one.release_identity(WEB)
    assert await one.flush(5)
    assert reference in await stored(nodes.store)
    one.release_identity(WEB)
    assert await one.flush(5)
    everything = await stored(nodes.store)
    assert reference not in everything
    assert everything[identity_key(web)] == WEB.canonical()
    await eventually_async(lambda: web in two.identities())
    assert await two.allocate_identity(WEB) == web


async def test_many_entries_arrive(nodes: Nodes) -> None:
    """More than one transaction and one page hold."""
    one, two = await nodes.start(1), await nodes.start(2)
    for third in range(5):
        for last in range(1, 251):
            one.upsert_ip(replace(pod_entry(1), network=IPv4Network(f"10.1.{third}.{last}")))
    assert await one.flush(30)
    await has_ips(two, 1250)
    three = await nodes.start(3)
    assert len(three.ips()) == 1250


async def test_a_store_that_is_down_at_the_start_is_said_and_tried_again(nodes: Nodes) -> None:
    nodes.store.stop()
    node = await nodes.start(1, synced=False)
    await eventually_async(lambda: node.status().failures >= 2, 10)
    status = node.status()
    assert status.state is BackendState.CONNECTING
    assert not status.synced
    assert "attempts" in status.message
    with duration_under(2):
        with pytest.raises(BackendUnavailableError):
            await node.allocate_identity(DB)
        assert await node.allocate_identity(WEB, preferred=1234) == 1234
    node.upsert_ip(pod_entry(1))
    assert node.status().pending >= 2
    nodes.store.start()
    assert await node.wait_synced(30)
    assert await node.flush(5)
    assert node.status().state is BackendState.OK
    everything = await stored(nodes.store)
    assert everything[identity_key(1234)] == WEB.canonical()
    assert ip_key(pod_entry(1).network) in everything


async def test_an_outage_changes_nothing_and_is_caught_up(nodes: Nodes, record) -> None:
    one, two = await nodes.start(1), await nodes.start(2)
    web = await one.allocate_identity(WEB)
    one.publish_node(node_entry(1))
    one.upsert_ip(pod_entry(1, 5, web))
    one.upsert_ip(pod_entry(1, 6, web))
    await has_ips(two, 2)
    await eventually_async(lambda: web in two.identities() and two.nodes())
    events = record(two.watch_ips())
    nodes.store.stop()
    await eventually_async(lambda: two.status().state is BackendState.DISCONNECTED, 10)
    await eventually_async(lambda: one.status().state is BackendState.DISCONNECTED, 10)
    assert await two.allocate_identity(WEB) == web
    assert len(two.ips()) == 2
    one.delete_ip(pod_entry(1, 6).network)
    one.upsert_ip(pod_entry(1, 7, web))
    nodes.store.start()
    assert await one.flush(15)
    await eventually_async(lambda: {e.pod for e in two.ips().values()} == {"web-5", "web-7"}, 10)
    assert await two.flush(15)
    assert (await stored(nodes.store))[reference_key(WEB, node_ip(2))] == str(web)
    assert [type(e) for e in events if isinstance(e, Deleted)] == [Deleted]


async def test_a_store_that_came_back_empty_gets_everything_back_with_the_same_numbers(
    nodes: Nodes, record
) -> None:
    one, two = await nodes.start(1), await nodes.start(2)
    numbers = {labels: await one.allocate_identity(labels) for labels in (WEB, DB)}
    one.publish_node(node_entry(1))
    two.publish_node(node_entry(2))
    one.upsert_ip(pod_entry(1, 5, numbers[WEB]))
    two.upsert_ip(pod_entry(2, 5, await two.allocate_identity(DB)))
    await has_ips(one, 2)
    await has_ips(two, 2)
    await eventually_async(lambda: len(one.nodes()) == 2 and len(two.nodes()) == 2)
    watches = [record(node.watch_ips()) for node in (one, two)]
    watches += [record(node.watch_nodes()) for node in (one, two)]
    watches += [record(node.watch_identities()) for node in (one, two)]
    before = await stored(nodes.store)
    await outage(nodes, empty=True)
    assert await stored(nodes.store) == before
    await eventually_async(lambda: one.status().vanished == two.status().vanished == 0, 10)
    for events in watches:
        assert len(events) == 3
        assert not [event for event in events if isinstance(event, Deleted)]


async def test_what_a_lost_node_had_is_kept_for_a_while_when_the_store_came_back_empty(
    nodes: Nodes, record
) -> None:
    one, two = await nodes.start(1), await nodes.start(2)
    one.publish_node(node_entry(1))
    one.upsert_ip(pod_entry(1, 5, await one.allocate_identity(WEB)))
    await has_ips(two, 1)
    await eventually_async(lambda: two.nodes() and two.identities())
    events = record(two.watch_ips())
    await nodes.kill(one)
    await outage(nodes, empty=True)
    assert two.status().vanished == 3
    assert len(two.ips()) == len(two.nodes()) == len(two.identities()) == 1
    await eventually_async(lambda: isinstance(events[-1], Deleted), 10)
    await eventually_async(lambda: not two.nodes() and not two.identities())
    assert two.status().vanished == 0


async def test_a_node_that_comes_back_after_its_lease_loses_only_what_it_no_longer_has(
    nodes: Nodes, record
) -> None:
    one, two = await nodes.start(1), await nodes.start(2, grace_s=60)
    one.publish_node(node_entry(1))
    one.upsert_ip(pod_entry(1, 5))
    one.upsert_ip(pod_entry(1, 6))
    await has_ips(two, 2)
    await eventually_async(two.nodes)
    events = record(two.watch_ips())
    await nodes.kill(one)
    await eventually_async(lambda: two.status().vanished == 3, 4 * LEASE_TTL_S)
    assert len(two.ips()) == 2
    again = await nodes.start(1)
    again.upsert_ip(pod_entry(1, 5))
    again.publish_node(node_entry(1))
    await has_ips(two, 1)
    assert two.status().vanished == 0
    await eventually_async(lambda: isinstance(events[-1], Deleted))
    assert len([event for event in events if isinstance(event, Deleted)]) == 1


async def test_a_restart_within_the_lease_is_not_seen_by_others(nodes: Nodes, record) -> None:
    one, two = await nodes.start(1), await nodes.start(2)
    web = await one.allocate_identity(WEB)
    one.publish_node(node_entry(1))
    one.upsert_ip(pod_entry(1, 5, web))
    await has_ips(two, 1)
    await eventually_async(two.nodes)
    events = record(two.watch_ips())
    await nodes.kill(one)
    again = await nodes.start(1)
    assert await again.allocate_identity(WEB, preferred=web) == web
    again.upsert_ip(pod_entry(1, 5, web))
    again.publish_node(node_entry(1))
    assert await again.flush(5)
    again.upsert_ip(pod_entry(1, 9, web))
    await eventually_async(lambda: len(events) == 3, 10)
    assert [type(event) for event in events] == [Upserted, Synced, Upserted]


async def test_a_node_that_withdraws_leaves_no_leased_key(nodes: Nodes) -> None:
    node = await nodes.start(1)
    web = await node.allocate_identity(WEB)
    node.publish_node(node_entry(1))
    node.upsert_ip(pod_entry(1))
    assert await node.flush(5)
    await node.stop(withdraw=True)
    assert await stored(nodes.store) == {identity_key(web): WEB.canonical()}


async def test_keys_that_somebody_removed_are_written_again(nodes: Nodes) -> None:
    node = await nodes.start(1)
    web = await node.allocate_identity(WEB)
    node.publish_node(node_entry(1))
    node.upsert_ip(pod_entry(1))
    assert await node.flush(5)
    before = await stored(nodes.store)
    await write(nodes.store, *(Delete(key) for key in before))

    async def restored() -> bool:
        return await stored(nodes.store) == before

    await eventually_async(restored)
    assert node.identities()[web].labels == WEB


async def test_an_address_that_moved_is_not_removed_by_its_old_node(nodes: Nodes) -> None:
    one, two = await nodes.start(1), await nodes.start(2)
    one.upsert_ip(pod_entry(1))
    assert await one.flush(5)
    moved = replace(pod_entry(2), network=pod_entry(1).network)
    two.upsert_ip(moved)
    assert await two.flush(5)
    one.delete_ip(pod_entry(1).network)
    assert await one.flush(5)
    assert json.loads((await stored(nodes.store))[ip_key(moved.network)])["HostIP"] == "172.30.0.2"


async def test_a_number_that_belongs_to_others_by_now_is_replaced(nodes: Nodes) -> None:
    nodes.store.start()
    await write(nodes.store, Put(identity_key(1234), DB.canonical()))
    nodes.store.stop()
    node = await nodes.start(1, synced=False)
    moves = []
    node.on_identity_moved(lambda *move: moves.append(move))
    assert await node.allocate_identity(WEB, preferred=1234) == 1234
    nodes.store.start()
    assert await node.wait_synced(30)
    assert await node.flush(5)
    [(labels, old, new)] = moves
    assert (labels, old) == (WEB, 1234)
    assert await node.allocate_identity(WEB) == new != 1234
    everything = await stored(nodes.store)
    assert everything[identity_key(1234)] == DB.canonical()
    assert everything[identity_key(new)] == WEB.canonical()
    assert everything[reference_key(WEB, node_ip(1))] == str(new)


async def test_values_that_cannot_be_read_are_counted_and_passed_over(nodes: Nodes) -> None:
    node = await nodes.start(1)
    await write(
        nodes.store,
        Put(f"{STATE_PREFIX}ip/v1/default/10.9.0.1", "{"),
        Put(f"{STATE_PREFIX}ip/v1/default/10.9.0.2", '{"IP":"10.9.0.2"}'),
        Put(f"{STATE_PREFIX}identities/v1/id/x", "k8s:a=b;"),
        Put(node_key("default", "odd"), "[]"),
        Put(f"{STATE_PREFIX}services/v1/default/demo/web", "{}"),
    )
    await eventually_async(lambda: node.status().malformed == 4)
    node.upsert_ip(pod_entry(1))
    await has_ips(node, 1)
    await write(nodes.store, Delete(f"{STATE_PREFIX}ip/v1/default/10.9.0.1"))
    await eventually_async(lambda: node.status().malformed == 3)


async def test_transactions_check_all_conditions_and_write_all_or_nothing(store: Store) -> None:
    driver = store.driver()
    await driver.connect()
    assert await driver.transact(
        [Absent("cilium/a"), PrefixAbsent("cilium/p/")], [Put("cilium/a", "1"), Put("cilium/b", "2")]
    )
    assert not await driver.transact([Absent("cilium/a")], [Put("cilium/c", "3")])
    assert not await driver.transact([Equals("cilium/a", "1"), Equals("cilium/b", "x")], [Delete("cilium/a")])
    assert not await driver.transact([Equals("cilium/none", "")], [Put("cilium/c", "3")])
    assert not await driver.transact([PrefixAbsent("cilium/")], [Put("cilium/c", "3")])
    assert await driver.transact([Equals("cilium/a", "1")], [Delete("cilium/a"), Put("cilium/b", "4")])
    found = await driver.snapshot("cilium/")
    assert {key: value.value for key, value in found.values.items()} == {"cilium/b": "4"}
    await driver.close()


async def test_keys_of_a_lease_end_with_it(store: Store) -> None:
    driver = store.driver()
    await driver.connect()
    lease = await driver.grant_lease(LEASE_TTL_S)
    assert await driver.transact([], [Put("cilium/leased", "1", lease), Put("cilium/free", "2")])
    position = await driver.snapshot("cilium/")
    watch = driver.watch("cilium/", position)
    batch = await asyncio.wait_for(anext(watch), 15)
    assert [(change.key, change.value) for change in batch.changes] == [("cilium/leased", None)]
    assert not await driver.keep_alive(lease)
    await driver.revoke_lease(lease)
    with pytest.raises(BackendUnavailableError):
        await driver.transact([], [Put("cilium/leased", "1", lease)])
    await watch.aclose()  # type: ignore[attr-defined]  # both are generators
    await driver.close()


async def test_a_watch_from_a_position_that_is_gone_says_so(store: Store) -> None:
    driver = store.driver()
    await driver.connect()
    for value in "123":
        await driver.transact([], [Put("cilium/a", value)])
    position = await driver.snapshot("cilium/")
    if hasattr(store, "endpoint"):
        await driver._client.compact(position.revision)  # type: ignore[attr-defined]  # only etcd compacts
    with pytest.raises(PositionLostError):
        await anext(driver.watch("cilium/", Snapshot(1, {})))
    await driver.close()
