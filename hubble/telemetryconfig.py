"""What the agent tells the telemetry process: the keys of `--config-json`, checked whole.

Pure. Input: JSON; output: TelemetryConfig, or an InvalidInputError that names the key and the remedy.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from hubble.exporter import config as otlp_config
from hubble.exporter.config import OtlpConfig
from hubble.metrics import spec
from hubble.metrics.registry import DEFAULT_BUDGET
from hubble.metrics.spec import MetricSpec
from palomar import jsonconfig
from palomar.errors import InvalidInputError

DEFAULT_LISTEN = "127.0.0.1:9965"
EXPORTED_BY_DEFAULT = "flow drop"
"""Flow metrics for OTLP where `metrics` names none."""
MAX_SERIES = 1_000_000


@dataclass(frozen=True, slots=True)
class TelemetryConfig:
    """The process's configuration."""

    state_dir: str
    """Holds the flow store; this process keeps its place in it in `telemetry.json`."""
    node_name: str
    cluster_name: str = "default"
    node_labels: tuple[str, ...] = ()
    metrics: str = ""
    """The `hubble-metrics` setting; empty: none are served."""
    metrics_listen: str = DEFAULT_LISTEN
    """`host:port` of `/metrics`; empty: not served."""
    metrics_max_series: int = DEFAULT_BUDGET
    """Series of one metric."""
    otlp: OtlpConfig | None = None
    """Empty or missing: nothing is exported."""
    parent_pid: int = 0
    """The agent's process id: when it is gone already, do not start. 0: not checked."""
    log_level: str = "INFO"
    log_format: str = "text"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read the JSON object; InvalidInputError names a key that is unknown, missing or wrong."""
        config = jsonconfig.decode(cls, text, {"otlp": _otlp})
        for key in ("state_dir", "node_name"):
            if not getattr(config, key):
                raise InvalidInputError("empty", key)
        if config.metrics_max_series not in range(1, MAX_SERIES + 1):
            raise InvalidInputError(
                f"{config.metrics_max_series} is not in 1..{MAX_SERIES}", "metrics_max_series"
            )
        config.specs()
        config.listener()
        return config

    def specs(self) -> tuple[MetricSpec, ...]:
        """The metrics to count."""
        exports = self.otlp is not None and self.otlp.metrics
        return spec.parse(self.metrics or (EXPORTED_BY_DEFAULT if exports else ""))

    def listener(self) -> tuple[str, int] | None:
        """Host and port of `/metrics`; None for no server."""
        if not self.metrics_listen:
            return None
        host, colon, port = self.metrics_listen.rpartition(":")
        if not colon or not host or not port.isdecimal() or int(port) > 65535:
            raise InvalidInputError(f"{self.metrics_listen!r} is not HOST:PORT", "metrics_listen")
        return host.strip("[]"), int(port)

    @property
    def node(self) -> str:
        """`cluster/node`."""
        return f"{self.cluster_name}/{self.node_name}"

    @property
    def flow_dir(self) -> Path:
        """The flow store's directory."""
        return Path(self.state_dir) / "flows"

    @property
    def place_file(self) -> Path:
        """Where this process keeps how far it has come."""
        return Path(self.state_dir) / "telemetry.json"


def _otlp(value: Any) -> OtlpConfig | None:
    return otlp_config.parse(value) if value else None
