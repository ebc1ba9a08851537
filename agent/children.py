"""What the agent's child processes are told: ingest, flow server and, where it is wanted, telemetry.

Pure but for the check of the telemetry keys. Input: the configuration; output: a command line per child for
the supervisor. What the children do is theirs (`hubble.ingest`, `hubble.server`, `hubble.telemetry`).
"""

import json
import os
import sys
from pathlib import Path
from typing import Any

from agent.config import AgentConfig
from agent.supervisor import ChildSpec


def child_specs(config: AgentConfig, parent_pid: int, python_path: str) -> list[ChildSpec]:
    """Return the children to keep running; raises InvalidInputError for telemetry keys it cannot mean."""
    children = [
        ("ingest", "hubble.ingest", _ingest(config)),
        ("flow-server", "hubble.server", _server(config)),
    ]
    telemetry = _telemetry(config)
    if telemetry:
        children.append(("telemetry", "hubble.telemetry", telemetry))
    shared = {
        "parent_pid": parent_pid,
        "log_level": config.log_level.upper(),
        "log_format": config.log_format,
    }
    environment = (("PYTHONPATH", python_path),)
    return [
        ChildSpec(
            name,
            (sys.executable, "-m", module, "--config-json", json.dumps(facts | shared)),
            environment,
        )
        for name, module, facts in children
    ]


def _ingest(config: AgentConfig) -> dict[str, Any]:
    paths = config.paths
    return {
        "flow_dir": str(paths.flow_dir),
        "globals_dir": str(paths.globals_dir),
        "socket": str(paths.ingest_socket),
        "capacity": config.hubble_event_buffer_capacity,
    }


def _node(config: AgentConfig) -> dict[str, Any]:
    return {
        "state_dir": str(config.paths.state_dir),
        "node_name": config.node_name,
        "cluster_name": config.cluster_name,
        "node_labels": [f"{key}={value}" for key, value in config.node_labels],
    }


def _server(config: AgentConfig) -> dict[str, Any]:
    facts = _node(config) | {"run_dir": str(config.paths.run_dir), "socket_group": config.socket_group}
    if config.hubble_listen_address is None:
        return facts
    files = {
        "tls_cert_file": config.hubble_tls_cert_file,
        "tls_key_file": config.hubble_tls_key_file,
        "tls_ca_file": config.hubble_tls_client_ca_file,
    }
    return {
        **facts,
        "listen_address": "{}:{}".format(*config.hubble_listen_address),
        "listen_insecure": config.hubble_listen_insecure,
        **{key: str(path) for key, path in files.items() if path is not None},
    }


def _telemetry(config: AgentConfig) -> dict[str, Any]:
    """Empty where neither flow metrics nor an OTLP endpoint are configured."""
    if not config.hubble_metrics and not config.otlp_endpoint:
        return {}
    listen = config.hubble_metrics_server if config.hubble_metrics else None
    files = {
        "headers_file": config.otlp_headers_file,
        "ca_file": config.otlp_ca_file,
        "cert_file": config.otlp_cert_file,
        "key_file": config.otlp_key_file,
    }
    otlp = {
        "endpoint": config.otlp_endpoint,
        "protocol": config.otlp_protocol,
        **{key: str(path) for key, path in files.items() if path is not None},
    }
    facts = {
        **_node(config),
        "metrics": config.hubble_metrics,
        "metrics_listen": "{}:{}".format(*listen) if listen is not None else "",
        "metrics_max_series": config.hubble_metrics_max_series,
        "otlp": otlp if config.otlp_endpoint else None,
    }
    # Here, not above: it loads numpy, 20 MB that an agent without telemetry does not need.
    from hubble.telemetryconfig import TelemetryConfig

    TelemetryConfig.parse(json.dumps(facts))
    return facts


def python_path(before: str) -> str:
    """Let a child import what this process imports, also from a checkout that is not installed."""
    root = Path(__file__).resolve().parent.parent
    return os.pathsep.join(filter(None, [str(root), str(root / "proto"), before]))
