"""The kernel's maps as the field's BPFMap: keys and values as texts. Blocks: call in the datapath thread.

Not for tools that want bytes: `bpftool map dump pinned` and `palomar bpf` read the pins themselves.
"""

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

from datapath.abi.mapspecs import POLICY_SPEC, policy_map_name
from datapath.maps.node import DatapathMaps
from palomar.errors import PermanentError

MAX_ENTRIES = 20_000
"""Of one map in one answer."""
NAMES = (
    "cilium_ipcache",
    "cilium_lxc",
    "cilium_tunnel_map",
    "cilium_ct4_global",
    "cilium_ct_any4_global",
    "cilium_metrics",
    "cilium_runtime_config",
)


class UnknownMapError(PermanentError):
    """No map of that name can be listed."""

    def __init__(self, name: str) -> None:
        """Keep the name."""
        self.name = name
        super().__init__(f"no map {name}: `GET /v1/map` names those that can be listed")


def map_list(maps: DatapathMaps) -> dict[str, Any]:
    """Return a BPFMapList without the entries."""
    names = [*NAMES, *(policy_map_name(key) for key in maps.policy_endpoint_ids())]
    return {"maps": [{"path": str(maps.globals_dir / name)} for name in names]}


def map_dump(maps: DatapathMaps, name: str) -> dict[str, Any]:
    """Return a BPFMap with its entries, at most MAX_ENTRIES. Raises UnknownMapError, MapError."""
    pairs = islice(_pairs(maps, name), MAX_ENTRIES)
    cache = [{"key": str(key), "value": str(value), "desired-action": "ok"} for key, value in pairs]
    return {"path": str(maps.globals_dir / name), "cache": sorted(cache, key=lambda item: item["key"])}


def _pairs(maps: DatapathMaps, name: str) -> Iterable[tuple[object, object]]:
    match name:
        case "cilium_ipcache":
            return ((key.net, value) for key, value in maps.ipcache.items())
        case "cilium_lxc":
            return ((key.ipv4, value) for key, value in maps.lxc.items())
        case "cilium_tunnel_map":
            return ((key.prefix, value.node_ipv4) for key, value in maps.tunnel.items())
        case "cilium_ct4_global":
            return ((key, value) for key, value in maps.ct.items() if key.protocol == 6)
        case "cilium_ct_any4_global":
            return ((key, value) for key, value in maps.ct.items() if key.protocol != 6)
        case "cilium_metrics":
            return maps.metrics.items().items()
        case "cilium_runtime_config":
            return ((key.name, value) for key, value in maps.runtime_config.items().items())
    return _policy(maps, name)


def _policy(maps: DatapathMaps, name: str) -> Iterator[tuple[object, object]]:
    number = name.removeprefix(f"{POLICY_SPEC.name}_")
    if not number.isdigit() or int(number) not in maps.policy_endpoint_ids():
        raise UnknownMapError(name)
    yield from maps.policy(int(number)).items().items()
