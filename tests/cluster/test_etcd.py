"""What only etcd can do wrong: hang, sit behind another endpoint, be written as an odd address."""

import signal

import pytest

from cluster.backend import BackendState
from cluster.connect import open_backend
from cluster.errors import BackendUnavailableError
from cluster.etcd import EtcdDriver, parse_endpoint
from cluster.shared import SharedState, SharedStateConfig
from palomar.errors import InvalidInputError
from tests.cluster.stores import LEASE_TTL_S, EtcdStore, node_ip, pod_entry
from tests.kit.ports import free_port
from tests.kit.wait import eventually_async

CONFIG = SharedStateConfig("node-1", node_ip(1), LEASE_TTL_S)


async def test_a_store_that_hangs_is_noticed_and_used_again(etcd: EtcdStore) -> None:
    node = SharedState(etcd.driver(), CONFIG)
    await node.start()
    assert await node.wait_synced(10)
    etcd.signal(signal.SIGSTOP)
    node.upsert_ip(pod_entry(1))
    await eventually_async(lambda: node.status().state is BackendState.DISCONNECTED, 10)
    assert "DEADLINE" in node.status().message or "Deadline" in node.status().message
    etcd.signal(signal.SIGCONT)
    assert await node.flush(15)
    assert node.status().state is BackendState.OK
    await node.stop()


async def test_the_next_endpoint_is_tried(etcd: EtcdStore) -> None:
    dead = f"127.0.0.1:{free_port()}"
    node = open_backend("etcd", CONFIG, etcd_endpoints=[dead, f"http://{etcd.endpoint}"])
    await node.start()
    assert await node.wait_synced(10)
    assert node.status().backend == f"etcd {etcd.endpoint}"
    await node.stop()


async def test_nobody_listening_is_one_error() -> None:
    driver = EtcdDriver([f"127.0.0.1:{free_port()}"], timeout_s=1.0)
    with pytest.raises(BackendUnavailableError, match="connect"):
        await driver.connect()
    await driver.close()
    with pytest.raises(BackendUnavailableError, match="not connected"):
        await driver.snapshot("cilium/")


@pytest.mark.parametrize(
    ("text", "endpoint"),
    [
        ("127.0.0.1:2379", ("127.0.0.1", 2379)),
        ("http://etcd.local:2379/", ("etcd.local", 2379)),
        ("[::1]:2379", ("[::1]", 2379)),
    ],
)
def test_an_endpoint_is_host_and_port(text: str, endpoint: tuple[str, int]) -> None:
    assert parse_endpoint(text) == endpoint


@pytest.mark.parametrize(
    "text", ["", "etcd", "etcd:0", "etcd:70000", "https://etcd:2379", "a b:1:2", "::1:2379"]
)
def test_another_endpoint_is_refused_with_its_key(text: str) -> None:
    with pytest.raises(InvalidInputError, match="etcd-endpoints"):
        parse_endpoint(text)
