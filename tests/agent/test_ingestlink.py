"""The ingest socket: everything known on connecting, then changes; counters come back."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from agent.ingestlink import STALE_NS, IngestLink
from palomar.clock import SystemClock
from tests.kit.wait import eventually_async

STATS = {
    "op": "stats",
    "cpus": [{"cpu": 0, "emitted": 10, "stored": 8, "lost": 2, "failed": 1, "suppressed": 4, "malformed": 0}],
    "metrics": {"drop": [["POLICY_DENIED", "TCP", 3]]},
    "edges": 5,
    "store": {"head": 8, "capacity": 1024, "oldest_time_ns": 17, "set_aside": 0},
    "first": True,
}


class Clock(SystemClock):
    now_ns = 10**9

    def monotonic_ns(self) -> int:
        return self.now_ns


class Client:
    """Plays the ingest process."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def next(self) -> dict[str, Any]:
        return dict(json.loads(await asyncio.wait_for(self.reader.readline(), 3)))

    async def until_synced(self) -> list[dict[str, Any]]:
        found = []
        while (message := await self.next())["op"] != "synced":
            found.append(message)
        return found

    async def say(self, text: str) -> None:
        self.writer.write(text.encode() + b"\n")
        await self.writer.drain()


@pytest_asyncio.fixture
async def link(tmp_path: Path) -> AsyncIterator[IngestLink]:
    made = IngestLink(tmp_path / "run" / "ingest.sock", Clock())
    await made.start()
    yield made
    await made.stop()


async def connect(link: IngestLink) -> Client:
    return Client(*await asyncio.open_unix_connection(str(link.path)))


def bind(link: IngestLink, ip: str, pod: str = "web-1") -> None:
    link.bind(
        ip,
        endpoint_id=7,
        identity=4242,
        cluster="default",
        namespace="demo",
        pod=pod,
        labels=["k8s:app=web"],
        workload=("web", "Deployment"),
    )


async def test_a_client_gets_all_facts_then_synced_then_changes(link: IngestLink) -> None:
    bind(link, "10.1.0.5")
    link.identity(4242, ["k8s:app=web"])
    link.interface(7, "lxc0")
    link.policy(77, [{"name": "allow-web"}], deny=False)
    link.default_deny(7, 78, 0)
    client = await connect(link)
    snapshot = await client.until_synced()
    assert [message["op"] for message in snapshot] == [
        "bind",
        "identity",
        "interface",
        "policy",
        "default_deny",
    ]
    assert snapshot[0] == {
        "op": "bind",
        "ip": "10.1.0.5",
        "endpoint": {
            "id": 7,
            "identity": 4242,
            "cluster": "default",
            "namespace": "demo",
            "pod": "web-1",
            "labels": ["k8s:app=web"],
            "workloads": [{"name": "web", "kind": "Deployment"}],
        },
    }
    bind(link, "10.1.0.5", "web-2")
    assert (await client.next())["endpoint"]["pod"] == "web-2"
    link.unbind("10.1.0.5")
    assert await client.next() == {"op": "unbind", "ip": "10.1.0.5"}
    client.writer.close()


async def test_what_is_said_twice_is_told_once_and_what_is_gone_not_to_newcomers(link: IngestLink) -> None:
    bind(link, "10.1.0.5")
    bind(link, "10.1.0.5")
    bind(link, "10.1.0.6")
    link.unbind("10.1.0.6")
    link.unbind("10.1.0.7")
    link.policy(77, [], deny=True)
    link.forget_policy(77)
    client = await connect(link)
    assert [message["ip"] for message in await client.until_synced()] == ["10.1.0.5"]
    client.writer.close()


async def test_counters_are_kept_and_grow_old(link: IngestLink) -> None:
    clock = link._clock
    assert isinstance(clock, Clock)
    client = await connect(link)
    await client.say(json.dumps(STATS))
    await eventually_async(lambda: link.stats.received_ns)
    assert (link.stats.emitted, link.stats.stored, link.stats.lost, link.stats.edges) == (10, 8, 2, 5)
    assert link.stats.store["capacity"] == 1024
    assert not link.stats_are_stale()
    clock.now_ns += STALE_NS + 1
    assert link.stats_are_stale()
    client.writer.close()


@pytest.mark.parametrize(
    "line", ["{", "[]", '{"op":"other"}', '{"op":"stats"}', '{"op":"stats","cpus":[{}]}']
)
async def test_nonsense_is_counted_and_the_connection_goes_on(link: IngestLink, line: str) -> None:
    client = await connect(link)
    await client.say(line)
    await client.say(json.dumps(STATS))
    await eventually_async(lambda: link.stats.received_ns)
    assert link.malformed == 1
    client.writer.close()


async def test_a_client_that_does_not_read_costs_no_memory_and_gets_the_newest(link: IngestLink) -> None:
    client = await connect(link)
    await client.until_synced()
    for number in range(20_000):
        bind(link, "10.1.0.5", f"pod-{number}-{'x' * 200}")
    (waiting,) = link._clients
    assert len(waiting.dirty) <= 1
    bind(link, "10.1.0.5", "last")
    async with asyncio.timeout(5):
        while (await client.next())["endpoint"]["pod"] != "last":
            pass
    client.writer.close()


async def test_the_ingest_may_come_and_go(link: IngestLink) -> None:
    for _ in range(3):
        client = await connect(link)
        await client.until_synced()
        assert link.connected
        client.writer.close()
        await eventually_async(lambda: not link.connected)


async def test_the_socket_is_for_this_user_only_and_goes_with_the_agent(tmp_path: Path) -> None:
    link = IngestLink(tmp_path / "ingest.sock", SystemClock())
    (tmp_path / "ingest.sock").write_text("left by an agent that was killed")
    await link.start()
    assert link.path.stat().st_mode & 0o777 == 0o600
    client = await connect(link)
    await client.until_synced()
    await link.stop()
    assert await client.reader.read() == b""
    assert not link.path.exists()
    client.writer.close()
