"""What the programs counted by reason and line, and the switches that they read."""

from datapath import tables
from datapath.abi.counters import MetricsKey, MetricsValue
from datapath.abi.mapspecs import RuntimeConfig
from datapath.maps.raw import RawMap


class MetricsMap:
    """`cilium_metrics`: packets and bytes by drop reason (0: forwarded), direction and source line."""

    def __init__(self, raw: RawMap) -> None:
        """Wrap `raw`."""
        self.raw = raw

    def items(self) -> dict[MetricsKey, MetricsValue]:
        """Return the counters, summed over CPUs."""
        return {
            MetricsKey.unpack(key): MetricsValue(sum(v[0] for v in per_cpu), sum(v[1] for v in per_cpu))
            for key, per_cpu in tables.per_cpu_hash(self.raw.spec, self.raw.fd).items()
        }


class RuntimeConfigMap:
    """`cilium_runtime_config`: switches that running programs read."""

    def __init__(self, raw: RawMap) -> None:
        """Wrap `raw`."""
        self._array = tables.NumberArray(raw.spec, raw.fd)

    def get(self, index: int) -> int:
        """Return the value at a `RuntimeConfig` index."""
        return self._array.get(index)

    def set(self, index: int, value: int) -> None:
        """Write the value at a `RuntimeConfig` index."""
        self._array.set(index, value)

    def items(self) -> dict[RuntimeConfig, int]:
        """Return the values of the known indices."""
        return {index: self._array.get(index) for index in RuntimeConfig}
