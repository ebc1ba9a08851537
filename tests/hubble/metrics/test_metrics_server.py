"""`/metrics` over HTTP: what it serves, that promtool likes it, that Prometheus itself counts the same."""

import asyncio
import json
import re
import subprocess
from collections import Counter
from pathlib import Path
from typing import Any

import aiohttp
import yaml

from hubble.flowendpoint import FlowEndpoint
from hubble.metrics.registry import FlowMetricsRegistry
from hubble.metrics.spec import parse
from tests.kit.flows import FakeNames, record
from tests.kit.telemetry import MIXED, flows, scrape, telemetry, total
from tests.kit.wait import eventually_async

DOCUMENT = Path(__file__).resolve().parents[3] / "docs" / "flow-metrics.md"
EVERYTHING = "flow drop tcp icmp port-distribution flows-to-world policy dns"
OTLP = {"endpoint": "http://127.0.0.1:1", "metrics": False}


async def text_of(port: int) -> str:
    async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{port}/metrics") as got:
        return await got.text()


async def test_promtool_likes_what_is_served(tmp_path: Path) -> None:
    with flows(tmp_path) as source:
        source.write(*MIXED)
        async with telemetry(tmp_path, metrics=f"{EVERYTHING}:sourceContext=pod", otlp=OTLP) as running:
            assert running.server is not None
            await scrape(running.server.port)
            text = await text_of(running.server.port)
    process = await asyncio.create_subprocess_exec(
        "promtool",
        "check",
        "metrics",
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    said, _ = await process.communicate(text.encode())
    assert process.returncode == 0, said.decode()


async def test_every_family_served_is_documented_with_its_labels(tmp_path: Path) -> None:
    """docs/flow-metrics.md has one line `| name | labels | ... |` per metric, and no others."""
    documented = {
        name: [label for label in re.findall(r"`([a-z_]+)`", labels) if label not in ("port", "query")]
        for name, labels in re.findall(r"^\| `([a-z_]+)` \|([^|]*)\|", DOCUMENT.read_text(), re.MULTILINE)
    }
    with flows(tmp_path) as source:
        source.write(*MIXED)
        async with telemetry(tmp_path, metrics=EVERYTHING, otlp=OTLP) as running:
            assert running.server is not None
            await scrape(running.server.port)
            text = await text_of(running.server.port)
    families = dict(re.findall(r"^# TYPE ([a-z_]+) (counter|gauge|histogram)$", text, re.MULTILINE))
    served = {name for name in families if not name.startswith("process_")}
    assert served == documented.keys()
    registry = FlowMetricsRegistry(parse(EVERYTHING), FakeNames())
    for family in registry.totals():
        own = [label for label in family.label_names if label != "port" or "distribution" in family.name]
        expected = documented[family.name]
        if "distribution" in family.name:
            own.remove("port")
        assert sorted(own) == sorted(expected), family.name


async def test_hostile_names_stay_within_their_quotes(tmp_path: Path) -> None:
    """HTML, quotes, newlines, half a surrogate pair, a kilobyte: the text stays readable for Prometheus."""
    evil = FlowEndpoint(namespace='a"b\n<script>\\', pod="\ud800" + "x" * 1000)
    with flows(tmp_path) as source:
        ref = source.names.intern(evil)
        source.names.flush()
        source.write(record(src_ref=ref, src_identity=0))
        async with telemetry(tmp_path, metrics="flow:sourceContext=pod") as running:
            assert running.server is not None
            text = await text_of(running.server.port)
    [line] = [line for line in text.splitlines() if line.startswith("hubble_flows_processed_total{")]
    assert 'source="a\\"b\\n<script>\\\\/?' + "x" * 1000 + '"' in line


async def test_flows_overwritten_before_they_were_counted_are_said_to_be_lost(tmp_path: Path) -> None:
    with flows(tmp_path, capacity=64) as source:
        async with telemetry(tmp_path, metrics="flow") as running:
            assert running.server is not None
            await scrape(running.server.port)
            source.write(*MIXED * 20)
            series = await scrape(running.server.port)
    counted = total(series, "palomar_metrics_flows_total", by="")[""]
    lost = total(series, "hubble_lost_events_total", by="source")
    assert counted + lost["hubble_ring_buffer"] == 20 * len(MIXED)
    assert lost["hubble_ring_buffer"] >= 20 * len(MIXED) - 64


async def test_a_scrape_counts_what_was_stored_before_it(tmp_path: Path) -> None:
    """No waiting for the next look at the store: numbers agree at once."""
    with flows(tmp_path) as source:
        async with telemetry(tmp_path, metrics="flow drop") as running:
            assert running.server is not None
            for _ in range(3):
                source.write(*MIXED)
                series = await scrape(running.server.port)
                assert total(series, "hubble_flows_processed_total", by="verdict") == source.by_verdict()
            assert total(series, "hubble_metrics_http_handler_requests_total", by="code") == {"200": 2}


async def query(port: int, expression: str) -> list[dict[str, Any]]:
    url = f"http://127.0.0.1:{port}/api/v1/query"
    async with aiohttp.ClientSession() as session, session.get(url, params={"query": expression}) as got:
        return list((await got.json())["data"]["result"])


async def test_prometheus_counts_like_the_store(tmp_path: Path, unused_tcp_port: int) -> None:
    """A real Prometheus scrapes, and its own query agrees with the rows counted by verdict."""
    with flows(tmp_path) as source:
        source.write(*MIXED * 7)
        async with telemetry(tmp_path, metrics="flow") as running:
            assert running.server is not None
            settings = {
                "global": {"scrape_interval": "1s"},
                "scrape_configs": [
                    {
                        "job_name": "palomar-flows",
                        "static_configs": [{"targets": [f"127.0.0.1:{running.server.port}"]}],
                    }
                ],
            }
            (tmp_path / "prometheus.yml").write_text(yaml.safe_dump(settings))
            process = await asyncio.create_subprocess_exec(
                "prometheus",
                f"--config.file={tmp_path / 'prometheus.yml'}",
                f"--storage.tsdb.path={tmp_path / 'tsdb'}",
                f"--web.listen-address=127.0.0.1:{unused_tcp_port}",
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            try:

                async def agrees() -> bool:
                    try:
                        rows = await query(unused_tcp_port, "sum by (verdict) (hubble_flows_processed_total)")
                    except (aiohttp.ClientError, json.JSONDecodeError):
                        return False
                    found = Counter({row["metric"]["verdict"]: int(row["value"][1]) for row in rows})
                    return found == source.by_verdict()

                await eventually_async(agrees, 30, 0.2)
            finally:
                process.terminate()
                await process.wait()
