"""Names for flows: every address bound to who it is, anew when that changes, unbound when it is nobody."""

from collections.abc import AsyncIterator
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Any

import pytest_asyncio

from agent.agentevents import LOG_NAME
from agent.ipcache import IpInfo, Source
from palomar.identity import NumericIdentity
from palomar.labels import LabelSet
from tests.agent.agentkit import Agent, config_for, request, running

REMOTE = IPv4Network("10.2.0.9")
NODE = IPv4Address("172.30.0.2")


@pytest_asyncio.fixture
async def agent(tmp_path: Path) -> AsyncIterator[Agent]:
    async with running(config_for(tmp_path)) as made:
        yield made


def bound(agent: Agent, ip: str) -> dict[str, Any] | None:
    fact = agent.runtime.link._facts.get(("bind", ip))
    return None if fact is None else fact["endpoint"]


async def test_a_local_endpoint_is_bound_with_labels_and_workload_until_it_goes(agent: Agent) -> None:
    wish = request("web", workload={"name": "web", "kind": "Deployment"})
    item = await agent.runtime.endpoints.add(wish)
    assert bound(agent, "10.1.0.2") == {
        "id": item.endpoint_id,
        "identity": item.record.identity,
        "cluster": "default",
        "namespace": "demo",
        "pod": "web",
        "labels": item.record.identity_labels.texts(),
        "workloads": [{"name": "web", "kind": "Deployment"}],
    }
    assert item.device is not None
    assert ("interface", str(item.device.ifindex)) in agent.runtime.link._facts
    await agent.runtime.endpoints.delete(item)
    assert bound(agent, "10.1.0.2") is None


async def test_a_remote_pod_is_named_and_gets_its_labels_when_they_are_known(agent: Agent) -> None:
    names = agent.runtime.ipcache._listeners[0].__self__  # type: ignore[attr-defined]  # the bound method's FlowNames
    info = IpInfo(NumericIdentity(777), NODE, Source.REMOTE, "blue/two", "shop", "api-1")
    names.address_changed(REMOTE, None, info)
    found = bound(agent, "10.2.0.9")
    assert found is not None
    assert (found["id"], found["cluster"], found["pod"], found["labels"]) == (0, "blue", "api-1", [])
    agent.runtime.identities.cache.update({777: LabelSet.parse(["k8s:app=api"])})
    found = bound(agent, "10.2.0.9")
    assert found is not None
    assert found["labels"] == ["k8s:app=api"]
    names.address_changed(REMOTE, info, None)
    assert bound(agent, "10.2.0.9") is None
    agent.runtime.identities.cache.update({777: LabelSet.parse(["k8s:app=other"])})
    assert bound(agent, "10.2.0.9") is None


async def test_hosts_are_bound_and_prefixes_of_policies_and_the_world_are_not(agent: Agent) -> None:
    host = bound(agent, "127.0.0.1")
    assert host is not None
    assert host["labels"] == ["reserved:host"]
    names = agent.runtime.ipcache._listeners[0].__self__  # type: ignore[attr-defined]  # the bound method's FlowNames
    names.address_changed(
        IPv4Network("192.0.2.1"), None, IpInfo(NumericIdentity(0x1000001), None, Source.CIDR)
    )
    assert bound(agent, "192.0.2.1") is None
    assert bound(agent, "0.0.0.0") is None


async def test_every_change_is_an_agent_event_but_a_restored_endpoint_is_not_created_again(
    agent: Agent,
) -> None:
    item = await agent.runtime.endpoints.add(request("web"))
    await agent.runtime.endpoints.regenerate(item, "test")
    await agent.runtime.endpoints.delete(item)
    text = (agent.runtime.config.paths.flow_dir / LOG_NAME).read_text()
    assert text.count("ENDPOINT_CREATED") == 1
    assert text.count("ENDPOINT_DELETED") == 1
    assert '"cidr":"10.1.0.2/32"' in text
    assert "IPCACHE_DELETED" in text


async def test_reserved_identities_are_told_from_the_start(agent: Agent) -> None:
    facts = agent.runtime.link._facts
    assert facts["identity", "2"]["labels"] == ["reserved:world"]
    assert facts["identity", "1"]["labels"] == ["reserved:host"]
