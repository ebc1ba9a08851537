"""Endpoints: added whole or not at all, found by any name, deleted as often as you like."""

from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from agent.endpoint.errors import EndpointExistsError, EndpointNotFoundError
from agent.endpoint.manager import EndpointChange
from agent.endpoint.model import TRANSITIONS, Endpoint, EndpointState, InvalidTransitionError
from agent.endpoint.statuslog import StatusLog
from agent.endpoint.store import EndpointStore, StateFileError
from agent.ipam import AddressInUseError, PoolExhaustedError
from cluster.errors import BackendUnavailableError
from datapath.errors import NamespaceMissingError
from palomar.clock import SystemClock
from palomar.errors import InvalidInputError, TransientError
from palomar.identity import NumericIdentity, Reserved
from palomar.labels import LabelSet
from tests.agent.agentkit import Agent, config_for, policy_text, request, running


@pytest_asyncio.fixture
async def agent(tmp_path: Path) -> AsyncIterator[Agent]:
    async with running(config_for(tmp_path)) as made:
        yield made


def leftovers(agent: Agent) -> list[str]:
    """Everything that an endpoint leaves while it lives."""
    runtime = agent.runtime
    found = [f"endpoint {item.endpoint_id}" for item in runtime.endpoints.endpoints()]
    found += [f"device {name}" for name in agent.node.devices]
    found += [f"program {key}" for key in agent.node.loaded]
    found += [f"policy map {key}" for key in agent.node.maps.maps]
    found += [f"address {ipv4}" for ipv4 in runtime.ipam.allocations]
    pods = [network for network in runtime.ipcache.entries() if network.subnet_of(IPv4Network("10.1.0.0/28"))]
    found += [f"ipcache {network}" for network in pods if network != IPv4Network("10.1.0.1")]
    found += [f"row {row.key}" for row in runtime.sync.table.rows() if not row.deleted]
    folder = runtime.endpoints.parts.store.folder
    found += [f"file {path.name}" for path in folder.glob("*")] if folder.is_dir() else []
    found += [f"identity {use}" for use in agent.backend._own.uses]
    return found


async def test_an_added_endpoint_is_ready_everywhere(agent: Agent) -> None:
    changes: list[tuple[int, EndpointChange]] = []
    agent.runtime.endpoints.listeners.append(lambda item, change: changes.append((item.endpoint_id, change)))
    item = await agent.runtime.endpoints.add(request("web"))
    assert item.state is EndpointState.READY
    assert item.record.ipv4 == IPv4Address("10.1.0.2")
    assert item.record.identity >= 256
    assert agent.node.loaded[item.endpoint_id] == item.record.spec()
    info = agent.runtime.ipcache.lookup(item.record.ipv4)
    assert info is not None
    assert (info.identity, info.endpoint_id, info.pod) == (item.record.identity, item.endpoint_id, "web")
    assert len(agent.entries(item.endpoint_id)) == 2, "allow everything in both directions"
    assert agent.runtime.endpoints.parts.store.load().records == (item.record,)
    assert list(item.stages_s) == [
        "namespace",
        "ipam",
        "identity",
        "connect",
        "ipcache",
        "policy",
        "load",
        "save",
    ]
    assert changes == [(item.endpoint_id, EndpointChange.CREATED)]
    assert [change.state for change in item.log.newest_first()] == [
        "ready",
        "regenerating",
        "waiting-for-identity",
    ]


async def test_endpoints_with_the_same_labels_share_an_identity(agent: Agent) -> None:
    first = await agent.runtime.endpoints.add(request("web", ("app=x",)))
    second = await agent.runtime.endpoints.add(request("client", ("app=x", "pod-template-hash=77")))
    assert first.record.identity == second.record.identity
    assert "k8s:pod-template-hash=77" in second.record.labels.texts()
    assert "k8s:pod-template-hash=77" not in second.record.identity_labels.texts()


async def test_an_endpoint_without_labels_is_init_and_closed(agent: Agent) -> None:
    item = await agent.runtime.endpoints.add(
        replace(request("web"), labels=LabelSet.parse(["reserved:init"]), namespace="", pod="")
    )
    assert item.record.identity == Reserved.INIT
    assert agent.entries(item.endpoint_id) == {}


@pytest.mark.parametrize("name", ["1", "container-name:web", "pod-name:demo/web", "ipv4:10.1.0.2"])
async def test_an_endpoint_is_found_by_any_of_its_names(agent: Agent, name: str) -> None:
    item = await agent.runtime.endpoints.add(request("web"))
    assert agent.runtime.endpoints.find(name) is item


@pytest.mark.parametrize("name", ["7", "container-name:x", "pod-name:demo/x", "ipv4:10.1.0.9"])
async def test_an_unknown_name_is_not_found(agent: Agent, name: str) -> None:
    with pytest.raises(EndpointNotFoundError, match=name):
        agent.runtime.endpoints.find(name)


@pytest.mark.parametrize("name", ["web", "-1", "mac:00", "", "1.5"])
async def test_a_name_of_another_form_is_bad_input(agent: Agent, name: str) -> None:
    with pytest.raises(InvalidInputError, match="container-name:NAME"):
        agent.runtime.endpoints.find(name)


async def test_adding_twice_is_refused_by_name_and_by_namespace(agent: Agent) -> None:
    await agent.runtime.endpoints.add(request("web"))
    with pytest.raises(EndpointExistsError, match="container web has endpoint 1 already"):
        await agent.runtime.endpoints.add(request("web", netns="/run/netns/other"))
    agent.namespaces.paths.add("/proc/42/ns/net")
    agent.namespaces.aliases["/proc/42/ns/net"] = "/run/netns/web"
    with pytest.raises(EndpointExistsError, match="namespace /proc/42/ns/net has endpoint 1"):
        await agent.runtime.endpoints.add(request("client", netns="/proc/42/ns/net"))
    assert len(agent.runtime.endpoints.endpoints()) == 1


async def test_a_missing_namespace_is_refused_and_nothing_is_left(agent: Agent) -> None:
    with pytest.raises(NamespaceMissingError, match="/run/netns/nowhere"):
        await agent.runtime.endpoints.add(request("nowhere"))
    assert leftovers(agent) == []


async def test_an_exhausted_pool_is_refused_and_nothing_is_left(agent: Agent) -> None:
    ipam = agent.runtime.ipam
    taken = [ipam.allocate(str(index)) for index in range(ipam.capacity)]
    with pytest.raises(PoolExhaustedError):
        await agent.runtime.endpoints.add(request("web"))
    for ipv4 in taken:
        ipam.release(ipv4)
    assert leftovers(agent) == []


class Unavailable:
    """Identities whose store is away."""

    def __init__(self, real: Any) -> None:
        self.real = real

    def security_relevant(self, labels: LabelSet) -> LabelSet:
        return self.real.security_relevant(labels)

    async def acquire(self, labels: LabelSet, preferred: int | None = None) -> NumericIdentity:
        raise BackendUnavailableError("etcd", "allocate", "down")

    def release(self, labels: LabelSet) -> None:
        self.real.release(labels)


def break_identity(agent: Agent) -> Callable[[], None]:
    manager = agent.runtime.endpoints
    before = manager.parts
    manager.parts = replace(before, identities=Unavailable(before.identities))

    def repair() -> None:
        manager.parts = before

    return repair


def break_datapath(operation: str) -> Callable[[Agent], Callable[[], None]]:
    def break_it(agent: Agent) -> Callable[[], None]:
        def before(name: str) -> None:
            if name == operation:
                raise TransientError(f"{operation} fails")

        agent.node.before = before

        def repair() -> None:
            agent.node.before = lambda name: None

        return repair

    return break_it


def break_policy_map(agent: Agent) -> Callable[[], None]:
    policy_map = agent.node.maps.policy(1)
    policy_map.broken = True

    def repair() -> None:
        policy_map.broken = False

    return repair


def break_store(agent: Agent) -> Callable[[], None]:
    manager = agent.runtime.endpoints
    before = manager.parts
    file = before.store.folder.parent / "file"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("")
    manager.parts = replace(before, store=EndpointStore(file))

    def repair() -> None:
        manager.parts = before

    return repair


@pytest.mark.parametrize(
    ("break_it", "error"),
    [
        (break_identity, BackendUnavailableError),
        (break_datapath("connect"), TransientError),
        (break_policy_map, TransientError),
        (break_datapath("load"), TransientError),
        (break_store, StateFileError),
    ],
    ids=["identity", "connect", "policy", "load", "save"],
)
async def test_a_failure_at_any_stage_leaves_nothing_and_the_next_add_works(
    agent: Agent, break_it: Callable[[Agent], Callable[[], None]], error: type[Exception]
) -> None:
    repair = break_it(agent)
    with pytest.raises(error):
        await agent.runtime.endpoints.add(request("web"))
    repair()
    assert leftovers(agent) == []
    item = await agent.runtime.endpoints.add(request("web"))
    assert item.state is EndpointState.READY


async def test_a_wished_address_is_given_or_refused(agent: Agent) -> None:
    item = await agent.runtime.endpoints.add(request("web", addressing={"ipv4": "10.1.0.9"}))
    assert str(item.record.ipv4) == "10.1.0.9"
    with pytest.raises(AddressInUseError, match="in use by demo/web"):
        await agent.runtime.endpoints.add(request("client", addressing={"ipv4": "10.1.0.9"}))


async def test_deleting_leaves_nothing_and_may_be_repeated(agent: Agent) -> None:
    item = await agent.runtime.endpoints.add(request("web"))
    await agent.runtime.endpoints.delete(item)
    await agent.runtime.endpoints.delete(item)
    assert item.state is EndpointState.DISCONNECTED
    assert leftovers(agent) == []
    again = await agent.runtime.endpoints.add(request("web"))
    assert again.endpoint_id == 2, "an id comes again as late as possible"


async def test_a_delete_that_failed_is_finished_by_the_next_one(agent: Agent) -> None:
    item = await agent.runtime.endpoints.add(request("web"))
    repair = break_datapath("disconnect")(agent)
    with pytest.raises(TransientError):
        await agent.runtime.endpoints.delete(item)
    assert item.state is EndpointState.DISCONNECTING
    repair()
    await agent.runtime.endpoints.delete(item)
    assert leftovers(agent) == []


async def test_a_moved_identity_reaches_programs_maps_and_file(agent: Agent) -> None:
    item = await agent.runtime.endpoints.add(request("web"))
    loads = agent.node.loads
    new = NumericIdentity(item.record.identity + 1)
    await agent.runtime.endpoints.identity_moved(item.record.identity_labels, new)
    assert item.record.identity == new
    assert agent.node.loads == loads + 1
    assert agent.node.loaded[item.endpoint_id].identity == new
    info = agent.runtime.ipcache.lookup(item.record.ipv4)
    assert info is not None
    assert info.identity == new
    assert agent.runtime.endpoints.parts.store.load().records[0].identity == new


async def test_a_regeneration_that_fails_is_not_ready_and_the_next_is(agent: Agent) -> None:
    item = await agent.runtime.endpoints.add(request("web"))
    repair = break_datapath("load")(agent)
    with pytest.raises(TransientError):
        await agent.runtime.endpoints.regenerate(item, "try")
    assert item.state is EndpointState.NOT_READY
    repair()
    await agent.runtime.endpoints.regenerate(item, "again")
    assert item.state is EndpointState.READY


async def test_policies_bind_to_endpoints_that_come_later(agent: Agent) -> None:
    await agent.runtime.policies.put(policy_text())
    web = await agent.runtime.endpoints.add(request("web"))
    client = await agent.runtime.endpoints.add(request("client"))
    keys = {(key.identity, key.egress, key.dport) for key in agent.entries(web.endpoint_id)}
    assert keys == {(0, True, 0), (client.record.identity, False, 80)}


def test_only_the_known_transitions_are_possible(tmp_path: Path) -> None:
    for before, allowed in TRANSITIONS.items():
        for after in EndpointState:
            item = Endpoint(record=None, state=before, log=StatusLog(SystemClock()))  # type: ignore[arg-type]  # the record is not looked at
            item.record = type("Record", (), {"endpoint_id": 1})()  # type: ignore[assignment]  # only the id is
            if after is before or after in allowed:
                item.go(after, "test")
                assert item.state is after
            else:
                with pytest.raises(InvalidTransitionError, match=f"{after} cannot follow {before}"):
                    item.go(after, "test")
