"""After a restart: the same ids, addresses and identities; what vanished is gone; nothing opens meanwhile."""

from ipaddress import IPv4Address
from pathlib import Path
from typing import cast

from agent.endpoint.model import EndpointState
from agent.endpoint.restore import regenerate_all, remove_strangers, sweep_vanished, take_over
from agent.policymaps import FakePolicyMaps
from datapath.abi.addresses import EndpointInfo, EndpointKey
from datapath.endpoint import EndpointSpec
from datapath.node import NodeDatapath
from tests.agent.agentkit import Agent, FakeNode, config_for, policy_text, request, running


async def start_again(agent: Agent) -> None:
    """What the daemon does between the maps and the watches."""
    await take_over(agent.runtime.endpoints)
    await agent.runtime.policies.load()
    await regenerate_all(agent.runtime.endpoints)


async def two_endpoints(folder: Path) -> tuple[FakeNode, dict[str, tuple[int, IPv4Address, int]]]:
    """Let an agent add two endpoints and a policy, and end; return the node it leaves behind."""
    async with running(config_for(folder)) as agent:
        await agent.runtime.policies.put(policy_text())
        items = [await agent.runtime.endpoints.add(request(name)) for name in ("web", "client")]
        facts = {i.record.container_name: (i.endpoint_id, i.record.ipv4, i.record.identity) for i in items}
        return agent.node, facts


async def test_ids_addresses_and_identities_are_the_same(tmp_path: Path) -> None:
    node, facts = await two_endpoints(tmp_path)
    async with running(config_for(tmp_path), node, load_policies=False) as agent:
        await start_again(agent)
        items = agent.runtime.endpoints.endpoints()
        assert {
            i.record.container_name: (i.endpoint_id, i.record.ipv4, i.record.identity) for i in items
        } == facts
        assert all(item.state is EndpointState.READY and item.restored for item in items)
        assert set(agent.runtime.ipam.allocations) == {item.record.ipv4 for item in items}
        newcomer = await agent.runtime.endpoints.add(request("other"))
        assert newcomer.endpoint_id not in {fact[0] for fact in facts.values()}
        assert newcomer.record.ipv4 not in {fact[1] for fact in facts.values()}


async def test_policy_maps_are_not_touched_by_a_restart_that_changes_nothing(tmp_path: Path) -> None:
    node, _ = await two_endpoints(tmp_path)
    before = {key: dict(value.entries) for key, value in node.maps.maps.items()}
    node.maps.operations.clear()
    async with running(config_for(tmp_path), node, load_policies=False) as agent:
        await start_again(agent)
        assert {key: value.entries for key, value in node.maps.maps.items()} == before
    assert node.maps.operations == []


async def test_a_policy_removed_while_no_agent_ran_is_withdrawn_without_an_empty_map(tmp_path: Path) -> None:
    node, facts = await two_endpoints(tmp_path)
    web = facts["web"][0]
    for file in (tmp_path / "state" / "policies").glob("*.json"):
        file.unlink()
    node.maps.operations.clear()
    async with running(config_for(tmp_path), node, load_policies=False) as agent:
        await start_again(agent)
        assert {(key.identity, key.egress) for key in agent.entries(web)} == {(0, True), (0, False)}
    words = [operation.split()[0] for operation in node.maps.operations]
    assert words == ["upsert", "delete", "bump"], "the new entry is there before the old one goes"


async def test_while_the_store_was_not_read_entries_of_unknown_identities_stay(tmp_path: Path) -> None:
    """The agent before knew an identity of another node; this one has not heard of it yet."""
    node, facts = await two_endpoints(tmp_path)
    web, client = facts["web"][0], facts["client"][2]
    entry = next(e for k, e in node.maps.maps[web].entries.items() if k.identity == client)
    key = next(k for k in node.maps.maps[web].entries if k.identity == client)
    stranger = type(key)(60000, key.egress, key.protocol, key.dport, key.dport_prefix_bits)
    node.maps.maps[web].entries[stranger] = entry
    async with running(config_for(tmp_path), node, load_policies=False) as agent:
        agent.runtime.sync.store_synced = False
        await start_again(agent)
        assert stranger in agent.entries(web)
        await agent.runtime.sync.set_store_synced()
        assert stranger not in agent.entries(web)
        assert key in agent.entries(web)


async def test_endpoints_whose_device_or_namespace_vanished_are_cleaned_up(tmp_path: Path) -> None:
    node, facts = await two_endpoints(tmp_path)
    node.destroy_namespace("/run/netns/web")
    async with running(config_for(tmp_path), node, load_policies=False) as agent:
        report = await take_over(agent.runtime.endpoints)
        assert (report.restored, report.vanished, report.failed) == (1, 1, 0)
        assert [item.record.container_name for item in agent.runtime.endpoints.endpoints()] == ["client"]
        assert facts["web"][0] not in node.loaded
        assert facts["web"][0] not in node.maps.maps
        assert [r.container_name for r in agent.runtime.endpoints.parts.store.load().records] == ["client"]
    node.namespaces.discard("/run/netns/client")
    async with running(config_for(tmp_path), node, load_policies=False) as agent:
        report = await take_over(agent.runtime.endpoints)
        assert report.vanished == 1, "the device is there, the namespace's name is not"
        assert not node.devices


async def test_an_endpoint_whose_namespace_goes_while_the_agent_runs_is_swept(tmp_path: Path) -> None:
    async with running(config_for(tmp_path)) as agent:
        manager = agent.runtime.endpoints
        for name in ("web", "client"):
            await manager.add(request(name))
        assert await sweep_vanished(manager) == 0
        agent.node.destroy_namespace("/run/netns/web")
        assert await sweep_vanished(manager) == 1
        assert [item.record.container_name for item in manager.endpoints()] == ["client"]
        assert len(agent.runtime.ipam.allocations) == 1


async def test_a_damaged_state_file_costs_only_its_endpoint(tmp_path: Path) -> None:
    node, facts = await two_endpoints(tmp_path)
    web = facts["web"][0]
    (tmp_path / "state" / "endpoints" / f"{web}.json").write_text("{")
    async with running(config_for(tmp_path), node, load_policies=False) as agent:
        report = await take_over(agent.runtime.endpoints)
        assert (report.restored, report.corrupt) == (1, 1)


class StrangeNode(FakeNode):
    """A node on which an add was killed midway: a map of endpoint 9, and a device of nobody."""

    def __init__(self) -> None:
        super().__init__({"/run/netns/web", "/run/netns/other"}, Path("/none"))
        self.maps.lxc = self  # type: ignore[assignment]  # only `items` is asked

    def items(self) -> list[tuple[EndpointKey, EndpointInfo]]:
        devices = {device.ifname: device for device in self.devices.values()}
        device = devices.get("lxcstranger")
        if device is None:
            return []
        info = EndpointInfo(device.ifindex, 9, device.mac, device.host_mac)
        return [(EndpointKey(IPv4Address("10.1.0.9")), info)]


def test_strangers_are_removed_and_the_known_stay() -> None:
    node = StrangeNode()
    for endpoint_id, name, netns in ((1, "lxcknown", "web"), (9, "lxcstranger", "other")):
        spec = request(netns)
        node.connect(EndpointSpec(endpoint_id, 5, IPv4Address("10.1.0.9"), spec.netns, name))
        cast(FakePolicyMaps, node.maps).policy(endpoint_id)
    node.connect(EndpointSpec(8, 5, IPv4Address("10.1.0.8"), "/run/netns/web", "lxclonely", "eth1"))
    assert remove_strangers(cast(NodeDatapath, node), {1: "lxcknown"}) == 2
    assert set(node.devices) == {"lxcknown"}
    assert set(node.maps.maps) == {1}
    assert remove_strangers(cast(NodeDatapath, node), {1: "lxcknown"}) == 0
