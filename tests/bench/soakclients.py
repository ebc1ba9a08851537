"""The relay's clients during the soak besides the page server: some stay, one hangs, many leave.

A process of its own. A batch follower reads all; `palomar observe --follow` reads all by the public API;
a third follows and never reads; every second another comes with a connection of its own, asks for the
newest flows and leaves, in the middle of its answer every other time. Input: the relay's port, the
certificates, and standard input, whose end ends everything; output: a line of counts for each line asked.
"""

import argparse
import asyncio
import json
import random
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import grpc

from palomar.certs import RELAY_SERVER_NAME, Role
from palomar.tls import TlsFiles
from palomar_pb.observer import observer_pb2, observer_pb2_grpc
from palomar_pb.palomar.v1 import batch_pb2, batch_pb2_grpc
from relay.nodestream import BATCHES_METHOD, PLAIN_METHOD
from tests.kit.relaycluster import Certificates, client_channel

REPO = Path(__file__).resolve().parents[2]
COME_EVERY_S = 1.0
LEAST_ASKED, MOST_ASKED = 5, 60
"""Newest flows that a client asks for; each of the 20 nodes gives as many."""
LEAVE_AFTER = 100
"""Responses after which a client leaves in the middle."""
TIMEOUT_S = 30.0


@dataclass
class Counts:
    """What the clients had."""

    followed: int = 0
    """Responses of the batch follower."""
    observed: int = 0
    """Lines of `palomar observe --follow`."""
    came: int = 0
    """Clients that came and left."""
    failed: int = 0
    """Of them, with an error."""
    answered: int = 0
    """Responses they had."""


def server_flags(port: int, tls: TlsFiles) -> list[str]:
    """Return the flags that lead any of our commands to the relay."""
    flags = ["--server", f"tls://127.0.0.1:{port}", "--tls-server-name", RELAY_SERVER_NAME]
    flags += ["--tls-ca-cert-files", str(tls.ca)]
    return [*flags, "--tls-client-cert-file", str(tls.cert), "--tls-client-key-file", str(tls.key)]


class Clients:
    """All of them."""

    def __init__(self, port: int, tls: TlsFiles) -> None:
        self._port = port
        self._tls = tls
        self._rng = random.Random(3)
        self.counts = Counts()

    def _channel(self) -> grpc.aio.Channel:
        return client_channel(self._port, self._tls)

    async def follow(self) -> None:
        """Read all by the batched stream."""
        async with self._channel() as channel:
            call: Any = channel.unary_stream(
                BATCHES_METHOD,
                request_serializer=observer_pb2.GetFlowsRequest.SerializeToString,
                response_deserializer=batch_pb2.FlowBatchBytes.FromString,
            )(observer_pb2.GetFlowsRequest(follow=True))
            async for batch in call:
                self.counts.followed += len(batch.responses)

    async def hang(self) -> None:
        """Follow and never read."""
        async with self._channel() as channel:
            call: Any = channel.unary_stream(
                PLAIN_METHOD, request_serializer=observer_pb2.GetFlowsRequest.SerializeToString
            )(observer_pb2.GetFlowsRequest(follow=True))
            await call.initial_metadata()
            await call.wait_for_connection()
            await asyncio.Event().wait()

    async def observe(self) -> None:
        """Count the lines of `palomar observe --follow`."""
        argv = [sys.executable, "-m", "cli.main", "observe", "--follow", *server_flags(self._port, self._tls)]
        process = await asyncio.create_subprocess_exec(*argv, cwd=REPO, stdout=asyncio.subprocess.PIPE)
        assert process.stdout is not None
        try:
            while data := await process.stdout.read(1 << 16):
                self.counts.observed += data.count(b"\n")
            raise SystemExit("palomar observe --follow ended")
        finally:
            if process.returncode is None:
                process.terminate()
                await process.wait()

    async def come_and_go(self) -> None:
        """Another client each second, at most as many at once as take TIMEOUT_S."""
        async with asyncio.TaskGroup() as visits:
            while True:
                visits.create_task(self._visit(), name="a client that leaves")
                await asyncio.sleep(COME_EVERY_S)

    async def _visit(self) -> None:
        turn, self.counts.came = self.counts.came, self.counts.came + 1
        request = observer_pb2.GetFlowsRequest(
            number=self._rng.randint(LEAST_ASKED, MOST_ASKED), follow=turn % 2 == 1
        )
        try:
            async with asyncio.timeout(TIMEOUT_S), self._channel() as channel:
                stub: Any = (
                    batch_pb2_grpc.FlowBatchesStub if turn % 4 < 2 else observer_pb2_grpc.ObserverStub
                )(channel)
                had = 0
                async for message in stub.GetFlows(request):
                    had += len(message.responses) if turn % 4 < 2 else 1
                    if request.follow and had >= LEAVE_AFTER:
                        break
                self.counts.answered += had
        except (TimeoutError, grpc.aio.AioRpcError):
            self.counts.failed += 1


async def run(port: int, folder: Path) -> None:
    """Be all of them until standard input ends."""
    clients = Clients(port, Certificates(folder / "certs").directory.files(Role.CLIENT, "someone"))
    async with asyncio.TaskGroup() as parties:
        tasks = [
            parties.create_task(one(), name=one.__name__)
            for one in (clients.follow, clients.hang, clients.observe, clients.come_and_go)
        ]
        while await asyncio.to_thread(sys.stdin.readline):
            print(json.dumps(asdict(clients.counts)), flush=True)
        for task in tasks:
            task.cancel()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("port", type=int)
    parser.add_argument("folder", type=Path)
    args = parser.parse_args()
    asyncio.run(run(args.port, args.folder))
