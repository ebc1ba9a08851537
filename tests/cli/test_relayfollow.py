"""`observe --follow` of a relay over mutual TLS: connections that age, a relay that is killed.

Real nodes, real relays, the real command; every flow of every node is shown, and shown once.
"""

import asyncio
import re
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from pathlib import Path

import pytest

from palomar.certs import Role
from palomar.tls import ConnectionAge
from relay.grpcserver import RelayServer
from tests.cli.nodeserver import Command
from tests.kit.relaycluster import NS_PER_S, Cluster, ShiftedClock, cluster
from tests.kit.wait import eventually_async

EMIT_S = 0.01
LINE = re.compile(r"\[default/(n\d)\]: \S*client-\S+?:(\d+) ")


class Source:
    """Makes flows on every node, a few at a time, until it is stopped."""

    def __init__(self, running: Cluster) -> None:
        self._running = running
        self.made: Counter[tuple[str, int]] = Counter()

    async def run(self) -> None:
        for node in self._running.nodes:
            node.emit()  # number 0: a line shows no port 0
        while True:
            for node in self._running.nodes:
                self.made.update((node.name, number) for number in node.emit(3))
            await asyncio.sleep(EMIT_S)


@asynccontextmanager
async def flows(running: Cluster) -> AsyncIterator[Source]:
    """Flows are made while the block runs."""
    source = Source(running)
    task = asyncio.get_running_loop().create_task(source.run())
    try:
        yield source
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@contextmanager
def follower(running: Cluster, port: int, *words: str) -> Iterator[Command]:
    """`palomar observe --follow` of the relay at `port`."""
    tls = running.client
    command = Command(
        "observe",
        "--follow",
        "--print-node-name",
        f"--server=tls://127.0.0.1:{port}",
        f"--tls-ca-cert-files={tls.ca}",
        f"--tls-client-cert-file={tls.cert}",
        f"--tls-client-key-file={tls.key}",
        "--tls-server-name=instance.hubble-relay.cilium.io",
        *words,
    )
    try:
        yield command
    finally:
        command.close()


@asynccontextmanager
async def relay_process(running: Cluster, port: int = 0) -> AsyncIterator[int]:
    """A relay as a process of its own, killed at the end; its port."""
    tls = running.certificates.directory.files(Role.RELAY, "relay")
    command = Command(
        "relay",
        f"--listen=127.0.0.1:{port}",
        *(f"--peer={node.full_name}={node.peer.address},{node.server_name}" for node in running.nodes),
        f"--tls-cert-file={tls.cert}",
        f"--tls-key-file={tls.key}",
        f"--tls-ca-file={tls.ca}",
    )
    try:
        line = await eventually_async(lambda: command.said(r"relay listens .*port=\d+"), timeout_s=60)
        yield int(line[0].rpartition("port=")[2].split()[0])
    finally:
        command.close()


class Shown:
    """The flows a command has printed, read line by line once: the nodes live in this event loop too."""

    def __init__(self, command: Command) -> None:
        self._command = command
        self._read = 0
        self._flows: Counter[tuple[str, int]] = Counter()

    def flows(self) -> Counter[tuple[str, int]]:
        lines = self._command.out[self._read :]
        self._read += len(lines)
        self._flows.update((found[1], int(found[2])) for found in map(LINE.search, lines) if found)
        return self._flows


async def comes(command: Command, pattern: str, times: int = 1) -> None:
    await eventually_async(lambda: len(command.said(pattern)) >= times, timeout_s=60)


async def same(shown: Shown, source: Source, command: Command) -> None:
    """Wait until all flows that were made are shown, and no other, and none twice."""

    def is_same() -> bool:
        seen = shown.flows()
        missing, repeated = source.made.total() - seen.total(), seen - source.made
        assert not missing, f"missing {missing}, repeated {len(repeated)} {list(repeated)[:9]}: {command.err}"
        assert seen == source.made
        return True

    await eventually_async(is_same, timeout_s=60, interval_s=0.1)


async def more(source: Source) -> None:
    """Wait until there are some more flows."""
    before = source.made.total()
    await eventually_async(lambda: source.made.total() > before + 200, timeout_s=60)


def alternate(command: Command) -> bool:
    """One line when the connection is lost, one when it is resumed, none besides; it may be lost just now."""
    words = [line.split()[0] for line in command.said("^(connection lost|resumed)")]
    return words == (["connection", "resumed"] * len(words))[: len(words)]


async def test_connections_that_age_lose_and_repeat_nothing(tmp_path: Path) -> None:
    """The relay ends each after two seconds; the command goes on on the next."""
    async with cluster(tmp_path, 2, capacity=65_536) as running:
        await running.connected()
        tls = running.certificates.directory.files(Role.RELAY, "relay")
        ageing = RelayServer(
            "127.0.0.1:0", tls, running.relay.core, age=ConnectionAge(age_s=2.0, grace_s=0.5)
        )
        await ageing.start()
        try:
            with follower(running, ageing.port, "--since=1h") as command:
                async with flows(running) as source:
                    await comes(command, "^resumed after", 2)
                await same(Shown(command), source, command)
                assert alternate(command)
        finally:
            await ageing.stop()


@pytest.mark.parametrize(
    ("node_away", "behind_s"),
    [(False, 0), (True, 0), (False, 20)],
    ids=["alone", "with a node", "clocks apart"],
)
async def test_a_relay_that_is_killed_loses_and_repeats_nothing(
    tmp_path: Path, node_away: bool, behind_s: int
) -> None:
    """Twice, with flows made while there is none; also where a node is away then, or its clock is behind."""
    async with cluster(tmp_path, 2, capacity=65_536) as running, AsyncExitStack() as relays:
        clock = running.nodes[1].clock
        assert isinstance(clock, ShiftedClock)
        clock.offset_ns = -behind_s * NS_PER_S
        port = await relays.enter_async_context(relay_process(running))
        with follower(running, port, "--since=1h") as command:
            async with flows(running) as source:
                shown = Shown(command)
                await eventually_async(lambda: len({name for name, _ in shown.flows()}) == 2, timeout_s=60)
                for times in (1, 2):
                    if node_away:
                        await running.nodes[1].stop()
                        await comes(command, "^NODE_UNAVAILABLE: default/n2", times)
                    await relays.aclose()
                    await comes(command, "^connection lost", times)
                    await more(source)
                    await relays.enter_async_context(relay_process(running, port))
                    await comes(command, "^resumed after", times)
                    if node_away:
                        await more(source)
                        await running.nodes[1].start()
                    await more(source)
            await same(Shown(command), source, command)
            assert alternate(command)
