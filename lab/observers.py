"""What looks at a lab: certificates, a relay, the UI, Prometheus and an OTLP receiver.

All run in the lab's underlay namespace and reach the nodes as on a real network, the relay over mutual TLS.
`lab.forward` opens a door on this machine's loopback for each. Pure but for the certificates' files: command
lines and configuration come out, `lab.cluster` starts them.
"""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import yaml

from lab.process import palomar
from lab.spec import LabSpec, NodeSpec
from palomar.certdir import CertDirectory
from palomar.certs import RELAY_SERVER_NAME, Role
from palomar.tls import TlsFiles

HUBBLE_PORT = 4244
RELAY_PORT = 4245
UI_PORT = 8080
PROMETHEUS_PORT = 9090
OTLP_GRPC_PORT = 4317
OTLP_HTTP_PORT = 4318
AGENT_METRICS_PORT = 9962
RELAY_METRICS_PORT = 9966
TELEMETRY_METRICS_PORT = 9965
FLOW_METRICS = (
    "flow:sourceContext=workload|reserved-identity;destinationContext=workload|reserved-identity"
    " drop:sourceContext=workload|reserved-identity;destinationContext=workload|reserved-identity"
    " tcp icmp port-distribution policy flows-to-world:any-drop"
)
"""What the lab's nodes count, by workload."""
RULES = Path(__file__).resolve().parent.parent / "deploy" / "prometheus" / "rules.yaml"


@dataclass(frozen=True, slots=True)
class Observer:
    """One process that looks at the lab."""

    name: str
    argv: list[str]
    port: int
    """Where it listens on the underlay bridge's address, and what its door prefers here."""


def make_certificates(spec: LabSpec, now: datetime) -> CertDirectory:
    """Make the lab's CA and a certificate for every party."""
    directory = CertDirectory(spec.directory / "certs")
    directory.init(now)
    for node in spec.nodes:
        directory.issue(Role.AGENT, node.name, now)
    directory.issue(Role.RELAY, "relay", now)
    directory.issue(Role.UI, "ui", now)
    directory.issue(Role.CLIENT, "client", now)
    return directory


def agent_keys(spec: LabSpec, node: NodeSpec, *, telemetry: bool) -> dict[str, object]:
    """Keys by which the agent of `node` serves relays and, with `telemetry`, flow metrics and OTLP."""
    files = CertDirectory(spec.directory / "certs").files(Role.AGENT, node.name)
    keys: dict[str, object] = {
        "hubble-listen-address": f"{node.address}:{HUBBLE_PORT}",
        "hubble-tls-cert-file": str(files.cert),
        "hubble-tls-key-file": str(files.key),
        "hubble-tls-client-ca-file": str(files.ca),
    }
    if telemetry:
        keys |= {
            "hubble-metrics": FLOW_METRICS,
            "hubble-metrics-server": f"{node.address}:{TELEMETRY_METRICS_PORT}",
            "otlp-endpoint": f"http://{spec.etcd_address}:{OTLP_GRPC_PORT}",
        }
    return keys


def prometheus_config(spec: LabSpec) -> str:
    """Return Prometheus' configuration: every node, the relay and the UI."""

    def job(name: str, targets: list[str]) -> dict[str, object]:
        return {"job_name": name, "static_configs": [{"targets": targets}]}

    config: dict[str, object] = {
        "global": {"scrape_interval": "2s"},
        "scrape_configs": [
            job("palomar-agent", [f"{node.address}:{AGENT_METRICS_PORT}" for node in spec.nodes]),
            job("palomar-flows", [f"{node.address}:{TELEMETRY_METRICS_PORT}" for node in spec.nodes]),
            job("palomar-relay", [f"{spec.etcd_address}:{RELAY_METRICS_PORT}"]),
            job("palomar-ui", [f"127.0.0.1:{UI_PORT}"]),
        ],
    }
    if RULES.exists():
        config["rule_files"] = [str(RULES)]
    return yaml.safe_dump(config, sort_keys=False)


def observers(spec: LabSpec, directory: CertDirectory) -> list[Observer]:
    """Return what is to be started, in order."""
    address = str(spec.etcd_address)
    first = spec.nodes[0]
    return [
        Observer("otlp", _otlp_argv(address, spec.directory / "otlp.jsonl"), OTLP_HTTP_PORT),
        Observer("relay", _relay_argv(spec, first, directory.files(Role.RELAY, "relay")), RELAY_PORT),
        Observer("ui", _ui_argv(address, directory.files(Role.UI, "ui")), UI_PORT),
        Observer(
            "prometheus",
            [
                "prometheus",
                f"--config.file={spec.directory / 'prometheus.yaml'}",
                f"--storage.tsdb.path={spec.directory / 'prometheus'}",
                f"--web.listen-address={address}:{PROMETHEUS_PORT}",
                "--log.level=warn",
            ],
            PROMETHEUS_PORT,
        ),
    ]


def _relay_argv(spec: LabSpec, announcer: NodeSpec, files: TlsFiles) -> list[str]:
    return palomar(
        "relay",
        "--listen",
        f"{spec.etcd_address}:{RELAY_PORT}",
        "--peer-service",
        f"unix://{announcer.paths.hubble_socket}",
        "--tls-cert-file",
        str(files.cert),
        "--tls-key-file",
        str(files.key),
        "--tls-ca-file",
        str(files.ca),
        "--metrics-listen",
        f"{spec.etcd_address}:{RELAY_METRICS_PORT}",
    )


def client_flags(server: str, files: TlsFiles) -> list[str]:
    """Flags by which a client reaches the relay."""
    return [
        "--server",
        server,
        "--tls",
        "--tls-ca-cert-files",
        str(files.ca),
        "--tls-client-cert-file",
        str(files.cert),
        "--tls-client-key-file",
        str(files.key),
        "--tls-server-name",
        RELAY_SERVER_NAME,
    ]


def _ui_argv(address: str, files: TlsFiles) -> list[str]:
    listen = f"127.0.0.1:{UI_PORT}"
    return palomar("ui", "--listen", listen, *client_flags(f"{address}:{RELAY_PORT}", files))


def _otlp_argv(address: str, output: Path) -> list[str]:
    return [
        sys.executable,
        "-m",
        "lab.otlp",
        "--grpc",
        f"{address}:{OTLP_GRPC_PORT}",
        "--http",
        f"{address}:{OTLP_HTTP_PORT}",
        "--output",
        str(output),
    ]


def doors(spec: LabSpec) -> dict[str, tuple[int, str]]:
    """Name, preferred port on this machine's loopback and address in the lab of each door."""
    address = str(spec.etcd_address)
    return {
        "relay": (RELAY_PORT, f"{address}:{RELAY_PORT}"),
        "ui": (UI_PORT, f"127.0.0.1:{UI_PORT}"),
        "prometheus": (PROMETHEUS_PORT, f"{address}:{PROMETHEUS_PORT}"),
        "otlp": (OTLP_HTTP_PORT, f"{address}:{OTLP_HTTP_PORT}"),
    }


def environment(doors: Mapping[str, str], files: TlsFiles) -> dict[str, str]:
    """Variables that say where relay, UI, Prometheus and the OTLP receiver are, and with which files."""
    return {
        "PALOMAR_RELAY": doors["relay"],
        "PALOMAR_UI": f"http://{doors['ui']}/",
        "PALOMAR_PROMETHEUS": f"http://{doors['prometheus']}",
        "PALOMAR_OTLP_COUNTS": f"http://{doors['otlp']}/counts",
        "PALOMAR_CLIENT_CA": str(files.ca),
        "PALOMAR_CLIENT_CERT": str(files.cert),
        "PALOMAR_CLIENT_KEY": str(files.key),
    }


def relay_environment(doors: Mapping[str, str], files: TlsFiles) -> dict[str, str]:
    """Variables that make `palomar observe` and any Hubble client ask the relay."""
    return {
        "HUBBLE_SERVER": f"tls://{doors['relay']}",
        "HUBBLE_TLS_CA_CERT_FILES": str(files.ca),
        "HUBBLE_TLS_CLIENT_CERT_FILE": str(files.cert),
        "HUBBLE_TLS_CLIENT_KEY_FILE": str(files.key),
        "HUBBLE_TLS_SERVER_NAME": RELAY_SERVER_NAME,
    }


def listening(lines: Sequence[str], port: int) -> bool:
    """Tell from the lines of `ss -Htln` whether anything listens on `port`."""
    return any(f":{port} " in line for line in lines)
