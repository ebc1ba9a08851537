"""From node to pixel, on a whole lab: the relay over mutual TLS, the page, Prometheus."""

import json
import os
import signal
import subprocess
import sys
import urllib.parse
import urllib.request
from collections import Counter
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from lab.cluster import LabCluster
from lab.network import processes
from lab.observers import client_flags
from palomar.certdir import CertDirectory
from palomar.certs import Role, issue, make_ca, utc
from palomar.clock import SystemClock
from palomar.tls import TlsFiles
from tests.kit.wait import eventually

pytestmark = [pytest.mark.root, pytest.mark.bpf, pytest.mark.e2e, pytest.mark.timeout(240)]

CHROMIUM = Path("/usr/bin/chromium")
CHROMIUM_FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
ARTEFACTS = Path(__file__).resolve().parents[2] / "artefacts"


def observe(lab: LabCluster, files: TlsFiles, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Ask the relay with the certificate in `files`."""
    argv = [sys.executable, "-m", "cli.main", "observe", *arguments]
    flags = client_flags(lab.doors["relay"], files)
    return subprocess.run([*argv, *flags], capture_output=True, text=True, timeout=60, check=False)


def relayed(lab: LabCluster, *arguments: str) -> list[dict[str, Any]]:
    """Flows of all nodes as dictionaries."""
    done = observe(lab, lab.client_files(), "-o", "jsonpb", *arguments)
    assert done.returncode == 0, done.stderr
    return [json.loads(line)["flow"] for line in done.stdout.splitlines() if '"flow"' in line]


def test_the_relay_merges_every_node_in_time_order(lab: LabCluster) -> None:
    """One answer holds the flows of all three nodes, oldest first."""

    def all_nodes() -> list[dict[str, Any]]:
        found = relayed(lab, "--last", "200")
        return found if {flow["node_name"] for flow in found} == expected else []

    expected = {f"default/{node.name}" for node in lab.spec.nodes}
    found = eventually(all_nodes, 30)
    times = [flow["time"] for flow in found]
    assert times == sorted(times)


@pytest.mark.parametrize("case", ["none", "expired", "another CA"])
def test_the_relay_refuses_who_cannot_show_a_good_certificate(
    lab: LabCluster, tmp_path: Path, case: str
) -> None:
    """Without a certificate, with an expired one, with one of another CA: no flows, an error."""
    good = lab.client_files()
    if case == "none":
        argv = [sys.executable, "-m", "cli.main", "observe", "--last", "1", "--server", lab.doors["relay"]]
        argv += ["--tls-ca-cert-files", str(good.ca), "--tls-server-name", "instance.hubble-relay.cilium.io"]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    else:
        now = utc(SystemClock().wall_ns())
        ca = lab.certificates.ca() if case == "expired" else make_ca(now)
        lifetime = timedelta(minutes=-1) if case == "expired" else timedelta(days=1)
        before = now - timedelta(days=2)
        pair = issue(ca, Role.CLIENT, "x", now, lifetime=lifetime, not_before=before)
        files = TlsFiles(tmp_path / "x.crt", tmp_path / "x.key", good.ca)
        files.cert.write_bytes(pair.cert)
        files.key.write_bytes(pair.key)
        done = observe(lab, files, "--last", "1")
    assert done.returncode != 0
    assert not done.stdout
    assert done.stderr


def test_a_rotated_certificate_ends_no_stream_and_new_clients_are_served(lab: LabCluster) -> None:
    """While one client follows, every certificate is renewed; its stream goes on, new clients are served."""
    argv = [sys.executable, "-m", "cli.main", "observe", "--follow", "-o", "jsonpb"]
    flags = client_flags(lab.doors["relay"], lab.client_files())
    with subprocess.Popen(
        [*argv, *flags], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as follower:
        try:
            assert follower.stdout is not None
            assert follower.stdout.readline()
            directory = CertDirectory(lab.spec.directory / "certs")
            renewed = directory.renew(utc(SystemClock().wall_ns()), everything=True)
            assert len(renewed) >= 6
            assert eventually(lambda: relayed(lab, "--last", "5"), 20)
            start = json.loads(follower.stdout.readline())["time"]
            last = start
            while last[:19] <= start[:19]:
                last = json.loads(follower.stdout.readline())["time"]
        finally:
            follower.kill()


def test_a_node_that_goes_and_returns_is_said_and_stops_nobody(lab: LabCluster) -> None:
    """The relay's status counts it out and in again; the others' flows keep coming."""
    node = lab.spec.node("node-3")

    def connected() -> str:
        argv = [
            sys.executable,
            "-m",
            "cli.main",
            "status",
            *client_flags(lab.doors["relay"], lab.client_files()),
        ]
        out = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False).stdout
        return next((line for line in out.splitlines() if line.startswith("Connected Nodes")), "")

    assert eventually(lambda: "3/3" in connected(), 30)
    for pid in processes(node.namespace):
        argv = Path(f"/proc/{pid}/cmdline").read_bytes()
        if b"cli.main\0agent" in argv:
            os.kill(pid, signal.SIGKILL)
    assert eventually(lambda: "2/3" in connected(), 30)
    assert {flow["node_name"] for flow in relayed(lab, "--since", "2s")} >= {"default/node-1"}
    lab.start_agent(node)
    lab.wait_agent(node)
    assert eventually(lambda: "3/3" in connected(), 30)


def prometheus(lab: LabCluster, query: str) -> dict[str, float]:
    """Answer of the lab's Prometheus, by verdict."""
    url = f"http://{lab.doors['prometheus']}/api/v1/query?{urllib.parse.urlencode({'query': query})}"
    with urllib.request.urlopen(url, timeout=10) as answer:
        rows = json.load(answer)["data"]["result"]
    return {row["metric"].get("verdict", ""): float(row["value"][1]) for row in rows}


@pytest.mark.browser
def test_the_page_shows_the_demo_and_its_dropped_edges(lab: LabCluster) -> None:
    """In a real browser: workloads and the dropped edge within seconds, and the rule behind it."""
    if not CHROMIUM.exists():
        pytest.skip("Debian's chromium is not installed: make setup-test installs it")
    from playwright.sync_api import sync_playwright

    ARTEFACTS.mkdir(exist_ok=True)
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=str(CHROMIUM), args=CHROMIUM_FLAGS)
        try:
            page = browser.new_page(viewport={"width": 1600, "height": 1000})
            page.goto(f"http://{lab.doors['ui']}/")
            for name in ("web", "api", "store", "client", "intruder", "crawler", "dns"):
                page.get_by_text(name, exact=True).locator("visible=true").first.wait_for(timeout=20_000)
            dropped = page.get_by_text("intruder → store").locator("visible=true").first
            dropped.wait_for(timeout=20_000)
            dropped.click()
            page.get_by_text("store-from-api").locator("visible=true").first.wait_for(timeout=20_000)
        finally:
            for open_page in (page for context in browser.contexts for page in context.pages):
                open_page.screenshot(path=str(ARTEFACTS / "pixel.png"))
            browser.close()


def test_prometheus_counts_what_observe_counts(lab: LabCluster) -> None:
    """Once the traffic has stopped both say the same, by verdict."""
    lab.stop_apps()
    # Counters of an agent that was killed began anew: compare a node that ran through.
    node = lab.spec.node("node-1")

    def agree() -> bool:
        counted = Counter(
            flow["verdict"] for flow in relayed(lab, "--all", "--node-name", f"default/{node.name}")
        )
        instance = f"{node.address}:9962"
        query = f'sum(hubble_flows_processed_total{{instance="{instance}"}}) by (verdict)'
        scraped = {verdict: int(value) for verdict, value in prometheus(lab, query).items() if value}
        return bool(counted) and dict(counted) == scraped

    assert eventually(agree, 40, 1.0)


def test_otlp_receives_what_a_node_stored(lab: LabCluster) -> None:
    """Once the traffic has stopped the receiver holds as many log records as the node holds flows."""
    lab.stop_apps()
    node = lab.spec.node("node-1")  # the one whose telemetry was never killed on the way

    def agree() -> bool:
        with urllib.request.urlopen(f"http://{lab.doors['otlp']}/counts", timeout=10) as answer:
            received = json.load(answer)["by_node"].get(node.name, 0)
        stored = lab.api(node).request("GET", "/v1/healthz")["palomar"]["observed"]["stored"]
        return 0 < stored == received

    assert eventually(agree, 60, 1.0)
