"""The telemetry process whole: real processes, sockets and files."""

import asyncio
import json
import socket
from collections import Counter
from pathlib import Path

import aiohttp
import pytest

from hubble.storefollower import StorePosition
from hubble.telemetry import main, read_places, write_places
from palomar.certs import Role, inspect, issue, make_ca, utc
from palomar.clock import SystemClock
from tests.kit.otlpreceiver import otlp_receiver
from tests.kit.ports import free_port
from tests.kit.telemetry import MIXED, config, flows, python_process, scrape, telemetry, total
from tests.kit.wait import eventually_async


@pytest.mark.parametrize("protocol", ["grpc", "http"])
async def test_metrics_store_and_receiver_agree_by_verdict(tmp_path: Path, protocol: str) -> None:
    """Three ways to count the same span, each in a process of its own, say the same."""
    received_file = tmp_path / "received.jsonl"
    arguments = ["--grpc", "127.0.0.1:0", "--http", "127.0.0.1:0", "--output", str(received_file)]
    async with python_process("lab.otlp", *arguments) as receiver:
        assert receiver.stdout is not None
        ports = json.loads(await asyncio.wait_for(receiver.stdout.readline(), 20))
        port = free_port()
        settings = config(
            tmp_path,
            metrics="flow drop",
            metrics_listen=f"127.0.0.1:{port}",
            otlp={
                "endpoint": f"http://127.0.0.1:{ports[f'{protocol}_port']}",
                "protocol": protocol,
                "interval_s": 0.2,
                "metrics_interval_s": 0.5,
            },
        )
        with flows(tmp_path) as source:
            source.write(*MIXED)
            async with python_process("hubble.telemetry", "--config-json", settings) as process:
                source.write(*MIXED[:4] * 50)

                async def counts() -> dict:  # type: ignore[type-arg]  # JSON
                    url = f"http://127.0.0.1:{ports['http_port']}/counts"
                    async with aiohttp.ClientSession() as session, session.get(url) as got:
                        return dict(await got.json())

                async def all_came() -> bool:
                    return (await counts())["logs"] >= source.writer.head

                async def all_answered() -> bool:
                    exported = total(await scrape(port), "palomar_otlp_exported_total", by="signal")
                    return exported["logs"] >= source.writer.head

                await eventually_async(all_came, 20)
                await eventually_async(all_answered, 20)
                from_store = source.by_verdict()
                got = await counts()
                series = await scrape(port)
                assert Counter(got["by_verdict"]) == from_store
                assert total(series, "hubble_flows_processed_total", by="verdict") == from_store
                exported = total(series, "palomar_otlp_exported_total", by="signal")
                assert exported["logs"] == source.writer.head == got["logs"]
                assert not +total(series, "palomar_otlp_dropped_total", by="reason")
                assert got["by_node"].keys() == {"worker2"}

                async def metrics_came() -> bool:
                    return (await counts())["metric_points"] > 0

                await eventually_async(metrics_came, 20)
                process.terminate()
                assert await asyncio.wait_for(process.wait(), 10) == 0
        entries = [json.loads(line) for line in received_file.read_text().splitlines()]
        newest = max(entry["time_ns"] for entry in entries if entry["signal"] == "metrics")
        points: Counter[str] = Counter()
        for entry in entries:
            if entry.get("name") == "hubble_flows_processed_total" and entry["time_ns"] == newest:
                points[entry["attributes"]["verdict"]] += entry["value"]
        assert points == from_store


async def test_restart_goes_on_where_it_stopped(tmp_path: Path) -> None:
    """Flows written while the process was away are exported once, those before not again."""
    with flows(tmp_path) as source:
        async with otlp_receiver() as receiver:
            otlp = {"endpoint": f"http://127.0.0.1:{receiver.grpc_port}", "interval_s": 0.05}
            source.write(*MIXED)
            async with telemetry(tmp_path, metrics="flow", otlp=otlp) as first:
                exporter = first.exporter
                assert exporter is not None
                # Not when they came: a batch whose answer did not come back would be sent again.
                await eventually_async(lambda: exporter.counts.exported["logs"] >= len(MIXED))
            source.write(*MIXED[:3])
            async with telemetry(tmp_path, metrics="flow", otlp=otlp) as again:
                await eventually_async(lambda: len(receiver.flows) >= len(MIXED) + 3)
                assert again.server is not None
                series = await scrape(again.server.port)
            assert total(series, "palomar_metrics_flows_total", by="") == {"": 3}
            uuids = [flow["attributes"]["palomar.flow.uuid"] for flow in receiver.flows]
            assert len(uuids) == len(set(uuids)) == len(MIXED) + 3


async def test_process_waits_for_a_store_and_for_its_port(tmp_path: Path) -> None:
    """It may start before the ingest, and while another still holds the port."""
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port = holder.getsockname()[1]
        settings = config(tmp_path, metrics="flow", metrics_listen=f"127.0.0.1:{port}")
        async with python_process("hubble.telemetry", "--config-json", settings) as process:
            assert process.stderr is not None
            line = await asyncio.wait_for(process.stderr.readline(), 20)
            assert b"cannot listen yet" in line
            holder.close()

            async def answers() -> bool:
                try:
                    return bool(await scrape(port))
                except aiohttp.ClientConnectionError:
                    return False

            await eventually_async(answers, 10)
            with flows(tmp_path) as source:
                source.write(*MIXED)

                async def counted() -> bool:
                    series = await scrape(port)
                    return total(series, "palomar_metrics_flows_total", by="")[""] == len(MIXED)

                await eventually_async(counted, 10)
            process.terminate()
            assert await asyncio.wait_for(process.wait(), 10) == 0


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ("{", "config-json"),
        ("[]", "config-json"),
        ('{"state_dir": "/x"}', "node_name"),
        ('{"state_dir": "/x", "node_name": "n", "metrix": ""}', "metrix"),
        ('{"state_dir": "/x", "node_name": "n", "metrics": "flows"}', "hubble-metrics.flows"),
        ('{"state_dir": "/x", "node_name": "n", "metrics_listen": "9965"}', "metrics_listen"),
        ('{"state_dir": "/x", "node_name": "n", "metrics_max_series": 0}', "metrics_max_series"),
        ('{"state_dir": "/x", "node_name": "n", "otlp": {"endpoint": "collector:4317"}}', "otlp.endpoint"),
        (
            '{"state_dir": "/x", "node_name": "n", "otlp": {"endpoint": "http://c", "timeout_s": NaN}}',
            "otlp.timeout_s",
        ),
    ],
)
def test_bad_configuration_is_named_and_ends_the_process(
    values: str, named: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--config-json", values]) == 2
    assert f"hubble.telemetry: {named}: " in capsys.readouterr().err


def test_damaged_place_file_is_no_place(tmp_path: Path) -> None:
    path = tmp_path / "telemetry.json"
    assert read_places(path) == {}
    places = {"metrics": StorePosition(5, 7)}
    write_places(path, places)
    assert read_places(path) == places
    for damaged in ("", "[1]", '{"metrics": 3}', '{"metrics": {"store_id": "x", "position": 1}}', "\x00"):
        path.write_text(damaged)
        assert read_places(path) == {}


async def test_a_part_that_fails_ends_the_process_so_that_it_is_started_again(tmp_path: Path) -> None:
    """A state directory that is a file: nothing can work, and the supervisor must hear of it."""
    (tmp_path / "flows").write_text("no directory")
    settings = config(tmp_path, metrics="flow")
    async with python_process("hubble.telemetry", "--config-json", settings) as process:
        _, errors = await asyncio.wait_for(process.communicate(), 20)
        assert process.returncode == 1, errors


async def test_the_exports_certificates_have_the_gauge_that_all_others_have(tmp_path: Path) -> None:
    """One of the client certificate and one of the collector's CA, by file; none where there is no TLS."""
    clock = SystemClock()
    now = utc(clock.wall_ns())
    authority = make_ca(now)
    client = issue(authority, Role.CLIENT, "node", now)
    files = {name: tmp_path / f"{name}.pem" for name in ("ca_file", "cert_file", "key_file")}
    for path, content in zip(files.values(), (authority.cert, client.cert, client.key), strict=True):
        path.write_bytes(content)
    secured = {"endpoint": "https://127.0.0.1:1", **{name: str(path) for name, path in files.items()}}
    left_s: dict[str, float] = {}
    for otlp in (secured, {"endpoint": "http://127.0.0.1:1"}):
        async with telemetry(tmp_path, otlp=otlp) as running:
            assert running.server is not None
            series = await scrape(running.server.port)
        left_s = {
            dict(labels)["file"]: value
            for (name, labels), value in series.items()
            if name == "palomar_certificate_expiry_seconds"
        }
        if otlp is secured:
            assert left_s.keys() == {str(files["ca_file"]), str(files["cert_file"])}
            for key, pem in (("ca_file", authority.cert), ("cert_file", client.cert)):
                ends = (inspect(pem).not_after - now).total_seconds()
                assert ends - 60 < left_s[str(files[key])] <= ends
    assert not left_s
