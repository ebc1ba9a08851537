"""peer.Peer/Notify: who is there, who came, changed and went, as the peers file says."""

import json
from pathlib import Path
from typing import Any

import pytest

from hubble.peer import PeerService, changes
from hubble.peersfile import AnnouncedPeer, parse_peers
from palomar.errors import InvalidInputError
from palomar_pb.peer import peer_pb2
from tests.kit.wait import eventually_async

ONE = AnnouncedPeer("default/one", "10.0.0.1:4244", "one.default.hubble-grpc.cilium.io")
TWO = AnnouncedPeer("default/two", "10.0.0.2:4244")


def test_changes_say_the_difference() -> None:
    """Those that left first, then by name."""
    moved = AnnouncedPeer("default/one", "10.0.0.9:4244", ONE.server_name)
    told = list(changes({"default/one": ONE, "default/two": TWO}, {"default/one": moved, "a": TWO}))
    assert [(t.name, t.type) for t in told] == [
        ("default/two", peer_pb2.PEER_DELETED),
        ("default/two", peer_pb2.PEER_ADDED),
        ("default/one", peer_pb2.PEER_UPDATED),
    ]
    assert told[2].address == "10.0.0.9:4244"
    assert told[2].tls.server_name == ONE.server_name
    assert not told[1].HasField("tls")
    assert list(changes({"default/one": ONE}, {"default/one": ONE})) == []


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("{", "peers"),
        ("{}", "peers"),
        ("[1]", "peers[0]"),
        ('[{"name": "a"}]', "peers[0].address"),
        ('[{"name": "a", "address": "b"}, {"address": "b"}]', "peers[1].name"),
        ('[{"name": "a", "address": 7}]', "peers[0].address"),
        ('[{"name": "a", "address": "b", "server_name": 7}]', "peers[0].server_name"),
    ],
)
def test_a_damaged_file_is_named_by_entry(text: str, path: str) -> None:
    """InvalidInputError with the place."""
    with pytest.raises(InvalidInputError) as caught:
        parse_peers(text)
    assert caught.value.path == path


def write(path: Path, peers: list[dict[str, Any]]) -> None:
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(peers))
    partial.replace(path)


async def test_the_file_is_followed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A missing or damaged file changes nothing; the next good one does."""
    path = tmp_path / "peers.json"
    service = PeerService(path, poll_s=0.005)
    stream = service.Notify(peer_pb2.NotifyRequest(), None)
    one = {"name": ONE.name, "address": ONE.address, "server_name": ONE.server_name}
    write(path, [one])
    added = await anext(stream)
    assert (added.name, added.type) == (ONE.name, peer_pb2.PEER_ADDED)
    path.write_text("nonsense")
    pending = anext(stream)
    task = _spawn(pending)
    await eventually_async(lambda: "peers file unusable" in caplog.text)
    path.unlink()
    assert not task.done()
    write(path, [{"name": TWO.name, "address": TWO.address}])
    assert ((await task).name, (await anext(stream)).name) == (ONE.name, TWO.name)
    await stream.aclose()
    late = service.Notify(peer_pb2.NotifyRequest(), None)
    assert (await anext(late)).name == TWO.name
    await late.aclose()


def _spawn(awaitable: Any) -> Any:
    import asyncio

    async def wait() -> Any:
        return await awaitable

    return asyncio.get_running_loop().create_task(wait())
