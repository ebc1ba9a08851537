"""`palomar certs`, `relay` and `watch peers` as processes, and a Hubble client's questions to them."""

import argparse
import asyncio
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from cli.main import main
from palomar.certs import Role, make_ca
from palomar.tls import TlsFiles
from relay.flags import add_flags
from relay.peers import Peer
from tests.kit.relaycluster import Cluster, Node, cluster, write_peers
from tests.kit.wait import eventually_async

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "relay.md").read_text()
ENVIRONMENT = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'proto'}", "GRPC_VERBOSITY": "NONE"}


def palomar(*words: str) -> list[str]:
    return [sys.executable, "-m", "cli.main", *words]


async def run(*words: str) -> str:
    """Run a command to its end and return what it printed."""
    process = await asyncio.create_subprocess_exec(
        *palomar(*words), env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    out, err = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode == 0, err.decode()
    return out.decode()


@asynccontextmanager
async def relay_process(*words: str) -> AsyncIterator[tuple[Any, str]]:
    """A relay and the address it got."""
    process = await asyncio.create_subprocess_exec(
        *palomar("relay", "--listen", "127.0.0.1:0", *words), env=ENVIRONMENT, stderr=subprocess.PIPE
    )
    try:
        assert process.stderr is not None
        while True:
            line = (await asyncio.wait_for(process.stderr.readline(), 30)).decode()
            assert line, "the relay ended"
            found = re.search(r"relay listens .*port=(\d+)", line)
            if found:
                break
        yield process, f"127.0.0.1:{found.group(1)}"
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


def client_flags(address: str, tls: TlsFiles) -> list[str]:
    return [
        f"--server=tls://{address}",
        f"--tls-ca-cert-files={tls.ca}",
        f"--tls-client-cert-file={tls.cert}",
        f"--tls-client-key-file={tls.key}",
        "--tls-server-name=instance.hubble-relay.cilium.io",
    ]


def server_flags(running: Cluster) -> list[str]:
    tls = running.certificates.issue(Role.RELAY, "relay")
    return [f"--tls-cert-file={tls.cert}", f"--tls-key-file={tls.key}", f"--tls-ca-file={tls.ca}"]


def peer_flags(nodes: list[Node]) -> list[str]:
    return [f"--peer={node.full_name}={node.peer.address},{node.server_name}" for node in nodes]


async def test_a_hubble_client_asks_a_relay_process(tmp_path: Path) -> None:
    """List, status, observe; SIGTERM ends it in order."""
    async with cluster(tmp_path, 2) as running:
        for node in running.nodes:
            node.emit(2)
        flags = [*server_flags(running), *peer_flags(running.nodes)]
        async with relay_process(*flags) as (process, address):
            client = client_flags(address, running.client)

            async def nodes() -> list[tuple[str, str]]:
                listed = json.loads(await run("list", "nodes", "-o", "json", *client))
                return [(node["name"], node["state"]) for node in listed]

            assert await nodes() == [("default/n1", "NODE_CONNECTED"), ("default/n2", "NODE_CONNECTED")]
            assert "Connected Nodes: 2/2" in await run("status", *client)
            shown = await run("observe", "--last", "5", "-o", "json", *client)
            flows = [json.loads(line)["flow"] for line in shown.splitlines() if '"flow"' in line]
            assert sorted(flow["node_name"] for flow in flows) == ["default/n1"] * 2 + ["default/n2"] * 2
            process.send_signal(signal.SIGTERM)
            assert await asyncio.wait_for(process.wait(), 15) == 0


async def test_watch_peers_prints_what_a_node_announces(tmp_path: Path) -> None:
    """From the node's socket, and every change."""
    async with cluster(tmp_path, 2, announced=True) as running:
        node = running.nodes[0]
        words = palomar("watch", "peers", f"--server=unix://{node.config.paths.hubble_socket}")
        process = await asyncio.create_subprocess_exec(*words, env=ENVIRONMENT, stdout=subprocess.PIPE)
        try:
            assert process.stdout is not None

            async def line() -> str:
                return (await asyncio.wait_for(process.stdout.readline(), 30)).decode()

            assert await line() == (
                f"PEER_ADDED   {node.peer.address} default/n1 (TLS.ServerName: {node.server_name})\n"
            )
            assert " default/n2 " in await line()
            write_peers(node.peers_file, [node])
            assert (await line()).startswith("PEER_DELETED")
        finally:
            process.kill()
            await process.communicate()


def test_certs_from_nothing_to_a_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """init, issue, show, renew; 1 when one does not serve."""
    folder = f"--dir={tmp_path}"
    assert main(["certs", "issue", "--role", "agent", "n1", folder]) == 1
    assert "palomar certs init" in capsys.readouterr().err
    assert main(["certs", "init", folder]) == 0
    assert main(["certs", "issue", "--role", "agent", "n1", "--san", "n1.example", folder]) == 0
    assert capsys.readouterr().out.splitlines()[1:3] == [
        f"{tmp_path}/agent-n1.crt",
        f"{tmp_path}/agent-n1.key",
    ]
    assert main(["certs", "show", folder]) == 0
    table = capsys.readouterr().out.splitlines()
    assert table[0].split("   ")[0] == "FILE"
    assert any(
        "agent-n1.crt" in row and "n1.default.hubble-grpc.cilium.io,n1.example" in row for row in table
    )
    assert main(["certs", "renew", "--all", folder]) == 0
    assert "renewed until" in capsys.readouterr().out
    (tmp_path / "agent-n1.crt").write_text("nonsense")
    assert main(["certs", "show", "-o", "json", folder]) == 1
    rows = {row["file"]: row for row in json.loads(capsys.readouterr().out)}
    assert "not a PEM certificate" in rows["agent-n1.crt"]["problem"]
    assert rows["ca.crt"]["problem"] == ""


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["--listen", "0.0.0.0:1"], "--listen: 0.0.0.0:1 without mutual TLS is refused"),
        (["--listen", "0.0.0.0:1", "--insecure-plain-text-on-loopback"], "only loopback"),
        (["--listen", "unix:///x", "--tls-cert-file", "a"], "--tls-cert-file: TLS needs"),
        (["--listen", "unix:///x", "--peer", "nonsense"], "--peer: 'nonsense': write NAME=ADDRESS"),
        (["--listen", "unix:///x", "--sort-wait-ms", "0"], "--sort-wait-ms: must be 1 to 10000"),
        (["--listen", "unix:///x", "--log-level", "loud"], "--log-level: invalid choice: 'loud'"),
        (["--listen", "unix:///x", "--log-format", "xml"], "--log-format: invalid choice: 'xml'"),
        (["--listen", "unix:///x", "--peer-service", "n:4244"], "--peer-service: n:4244 needs"),
    ],
)
def test_a_relay_that_cannot_be_meant_is_refused(
    words: list[str], problem: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The error names the flag and the remedy."""
    assert main(["relay", *words]) != 0
    assert problem in capsys.readouterr().err


def test_every_flag_is_in_the_docs() -> None:
    """docs/relay.md has a row for each, or for a few that belong together, and no flag that is none."""
    parser = argparse.ArgumentParser()
    add_flags(parser)
    flags = {option for action in parser._actions for option in action.option_strings} - {"-h", "--help"}
    rows = [line.split("|")[1] for line in PAGE.splitlines() if line.startswith("| `--")]
    assert {flag for row in rows for flag in re.findall("`(--[a-z-]+)`", row)} == flags


async def test_plain_text_on_loopback_when_told_loudly(tmp_path: Path) -> None:
    """For trying things out: no TLS anywhere, and the log shouts."""
    async with cluster(tmp_path, 1) as running:
        socket = running.nodes[0].config.paths.hubble_socket
        peer = Peer("default/n1", f"unix:{socket}")
        words = ["--insecure-plain-text-on-loopback", f"--peer={peer.name}={peer.address}"]
        async with relay_process(*words) as (_, address):
            running.nodes[0].emit(1)

            async def flow_came() -> bool:
                shown = await run("observe", "--last", "1", "-o", "json", f"--server={address}")
                return '"flow"' in shown

            await eventually_async(flow_came, timeout_s=30)


async def test_a_refused_client_is_told_whose_certificate_and_until_when(tmp_path: Path) -> None:
    """`palomar status` with an expired certificate, one of another CA, and none."""
    async with cluster(tmp_path, 1) as running:
        await running.connected()
        address = f"127.0.0.1:{running.relay.server.port}"
        tls = running.certificates.issue(Role.CLIENT, "bad")

        async def refusal(flags: list[str]) -> str:
            process = await asyncio.create_subprocess_exec(
                *palomar("status", *flags), env=ENVIRONMENT, stderr=subprocess.PIPE
            )
            _, err = await asyncio.wait_for(process.communicate(), 30)
            assert process.returncode == 1
            return err.decode()

        now = running.certificates.now
        for options in (
            {"not_before": now - timedelta(days=3), "lifetime": -timedelta(days=1)},
            {"ca": make_ca(now, name="Another CA")},
        ):
            running.certificates.spoil(tls, Role.CLIENT, "bad", **options)
            said = await refusal(client_flags(address, tls))
            assert f"it refuses the client certificate {tls.cert} (CN=bad,OU=client, valid 20" in said
        without = [flag for flag in client_flags(address, tls) if not flag.startswith("--tls-client")]
        assert "it wants a client certificate" in await refusal(without)
