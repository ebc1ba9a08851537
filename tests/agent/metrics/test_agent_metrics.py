"""`/metrics`: what it says, and that Prometheus' own checker accepts all of it."""

import asyncio
from asyncio.subprocess import PIPE, STDOUT
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from prometheus_client.parser import text_string_to_metric_families

from agent.ingestlink import parse_stats
from tests.agent.agentkit import Agent, config_for, policy_text, request, running

DOCUMENT = Path(__file__).resolve().parents[3] / "docs" / "metrics.md"
STATS = {
    "cpus": [
        {"cpu": 0, "emitted": 100, "stored": 90, "lost": 10, "failed": 10, "suppressed": 3},
        {"cpu": 1, "emitted": 7, "stored": 7, "lost": 0, "failed": 0, "suppressed": 0},
    ],
    "metrics": {
        "flows_processed": [["TCP", "Trace", "to-endpoint", "FORWARDED", 80]],
        "drop": [["POLICY_DENIED", "TCP", 4]],
        "tcp": [["SYN", "IPv4", 5]],
        "icmp": [["EchoRequest", "IPv4", 6]],
        "port_distribution": [["TCP", "80", 7]],
    },
    "edges": 3,
    "store": {"head": 97, "capacity": 1024, "oldest_time_ns": 1, "set_aside": 0},
}


@pytest_asyncio.fixture
async def agent(tmp_path: Path) -> AsyncIterator[Agent]:
    async with running(config_for(tmp_path)) as made:
        made.daemon.metrics.bind(made.runtime)
        made.runtime.link.stats = parse_stats(STATS, 1)
        await made.runtime.endpoints.add(request("web"))
        await made.runtime.policies.put(policy_text())
        made.daemon.metrics.observe_api("/v1/endpoint", "GET", 200, 0.01)
        made.daemon.metrics.observe_gc(0.01, ok=True)
        yield made


async def samples(agent: Agent) -> dict[str, float]:
    text = (await agent.daemon.metrics.render()).decode()
    found = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels = ",".join(f'{name}="{value}"' for name, value in sorted(sample.labels.items()))
            found[f"{sample.name}{{{labels}}}" if labels else sample.name] = sample.value
    return found


async def test_promtool_finds_nothing_wrong(agent: Agent) -> None:
    text = await agent.daemon.metrics.render()
    checker = await asyncio.create_subprocess_exec(
        "promtool", "check", "metrics", stdin=PIPE, stdout=PIPE, stderr=STDOUT
    )
    output, _ = await checker.communicate(text)
    assert (checker.returncode, output) == (0, b"")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("cilium_endpoint", 1),
        ('cilium_endpoint_state{endpoint_state="ready"}', 1),
        ('cilium_endpoint_state{endpoint_state="not-ready"}', 0),
        ('cilium_endpoint_regenerations_total{outcome="success"}', 2),
        ("cilium_policy", 1),
        ("cilium_policy_max_revision", 2),
        ('cilium_policy_change_total{outcome="success"}', 1),
        ('cilium_policy_endpoint_enforcement_status{enforcement="ingress"}', 1),
        ('cilium_identity{type="cluster_local"}', 1),
        ('cilium_identity{type="reserved"}', 10),
        ('cilium_ip_addresses{family="ipv4"}', 1),
        ('cilium_ipam_capacity{family="ipv4"}', 13),
        ('cilium_drop_count_total{direction="INGRESS",reason="Policy denied"}', 4),
        ('cilium_drop_bytes_total{direction="INGRESS",reason="Policy denied"}', 400),
        ('cilium_forward_count_total{direction="EGRESS"}', 7),
        ('cilium_forward_bytes_total{direction="EGRESS"}', 700),
        ('cilium_bpf_map_capacity{map_group="ipcache"}', 512000),
        ('cilium_endpoint_regeneration_time_stats_seconds_count{scope="load",status="success"}', 1),
        ('cilium_endpoint_regeneration_time_stats_seconds_count{scope="total",status="success"}', 1),
        (
            'hubble_flows_processed_total{protocol="TCP",subtype="to-endpoint",type="Trace",verdict="FORWARDED"}',
            80,
        ),
        ('hubble_drop_total{protocol="TCP",reason="POLICY_DENIED"}', 4),
        ('hubble_tcp_flags_total{family="IPv4",flag="SYN"}', 5),
        ('hubble_icmp_total{family="IPv4",type="EchoRequest"}', 6),
        ('hubble_port_distribution_total{port="80",protocol="TCP"}', 7),
        ('hubble_lost_events_total{source="perf_event_ring_buffer"}', 10),
        ('palomar_events_emitted_total{cpu="0"}', 100),
        ('palomar_events_stored_total{cpu="0"}', 90),
        ('palomar_events_lost_total{cpu="0"}', 10),
        ('palomar_events_lost_total{cpu="1"}', 0),
        ('palomar_kernel_events_total{cpu="0"}', 10),
        ("palomar_flow_store_flows", 97),
        ('palomar_table_rows{state="done",table="policy"}', 1),
    ],
)
async def test_a_metric_says_what_the_parts_say(agent: Agent, name: str, value: float) -> None:
    assert (await samples(agent))[name] == value


async def test_emitted_is_stored_and_lost_per_cpu(agent: Agent) -> None:
    found = await samples(agent)
    for cpu in ("0", "1"):
        emitted, stored, lost = (
            found[f'palomar_events_{word}_total{{cpu="{cpu}"}}'] for word in ("emitted", "stored", "lost")
        )
        assert emitted == stored + lost


async def test_every_metric_is_in_the_document_with_its_labels(agent: Agent) -> None:
    """docs/metrics.md has one line `| name | labels | ... |` per metric."""
    documented = {}
    for line in DOCUMENT.read_text().splitlines():
        cells = [cell.strip().strip("`") for cell in line.strip("|").split("|")]
        if line.startswith("| `") and len(cells) >= 3:
            documented[cells[0]] = {label.strip(" `") for label in cells[1].split(",") if label.strip()}
    text = (await agent.daemon.metrics.render()).decode()
    served = {}
    for family in text_string_to_metric_families(text):
        if family.name.startswith("process_"):
            continue
        name = f"{family.name}_total" if family.type == "counter" else family.name
        served[name] = {label for sample in family.samples for label in sample.labels} - {"le"}
    missing = {name: labels for name, labels in served.items() if documented.get(name, {"?"}) < labels}
    assert not {name for name in served if name not in documented}
    assert not missing
    assert not {name for name in documented if name not in served}
