"""Which maps there are, with the attributes a pinned one must have, and the names of their pins.

Pure. Source: docs/abi.md; tests/datapath/abi/test_abi_mapspecs.py compares the table with the objects.
"""

from dataclasses import dataclass
from enum import IntEnum

ENDPOINT_ID_MAX = 65535


class MapType(IntEnum):
    """`enum bpf_map_type` of linux/bpf.h, those in use."""

    HASH = 1
    ARRAY = 2
    PROG_ARRAY = 3
    PERF_EVENT_ARRAY = 4
    PERCPU_HASH = 5
    PERCPU_ARRAY = 6
    LRU_HASH = 9
    LPM_TRIE = 11


NO_PREALLOC = 1
"""BPF_F_NO_PREALLOC."""


@dataclass(frozen=True, slots=True)
class MapSpec:
    """Attributes of a map; a pinned one must agree with every one of them."""

    name: str
    type: MapType
    key_size: int
    value_size: int
    max_entries: int
    """0: the number of possible CPUs."""
    flags: int = 0


POLICY_SPEC = MapSpec("cilium_policy_v2", MapType.LPM_TRIE, 12, 12, 16384, NO_PREALLOC)
"""One per endpoint, pinned as `policy_map_name(id)`."""

GLOBAL_MAPS: tuple[MapSpec, ...] = (
    MapSpec("cilium_ipcache", MapType.LPM_TRIE, 24, 12, 512000, NO_PREALLOC),
    MapSpec("cilium_lxc", MapType.HASH, 20, 48, 65536, NO_PREALLOC),
    MapSpec("cilium_tunnel_map", MapType.HASH, 20, 20, 65536, NO_PREALLOC),
    MapSpec("cilium_ct4_global", MapType.LRU_HASH, 14, 64, 131072),
    MapSpec("cilium_ct_any4_global", MapType.LRU_HASH, 14, 64, 65536),
    MapSpec("cilium_metrics", MapType.PERCPU_HASH, 8, 16, 65536, NO_PREALLOC),
    MapSpec("cilium_call_policy", MapType.PROG_ARRAY, 4, 4, 65536),
    MapSpec("cilium_events", MapType.PERF_EVENT_ARRAY, 4, 4, 0),
    MapSpec("cilium_signals", MapType.PERF_EVENT_ARRAY, 4, 4, 0),
    MapSpec("cilium_runtime_config", MapType.ARRAY, 4, 8, 256),
    MapSpec("palomar_policy_revision", MapType.ARRAY, 4, 4, 65536),
    MapSpec("palomar_event_stats", MapType.PERCPU_ARRAY, 4, 24, 1),
)
"""Every map shared by a node's programs."""


def policy_map_name(endpoint_id: int) -> str:
    """Return the pin name of an endpoint's policy map."""
    return f"{POLICY_SPEC.name}_{endpoint_id:05d}"


def calls_map_name(owner: int | str) -> str:
    """Return the pin name of a tail call map: an endpoint id or `netdev_00007`, `overlay_00007`."""
    return f"cilium_calls_{owner:05d}" if isinstance(owner, int) else f"cilium_calls_{owner}"


class RuntimeConfig(IntEnum):
    """Indices of `cilium_runtime_config` that Palomar uses (0 and 1 are the field's)."""

    UTIME_OFFSET = 0
    AGENT_LIVENESS = 1
    AGGREGATION = 16
    REPORT_INTERVAL_NS = 17
    EVENTS_OFF = 18
    AUDIT_MODE = 19
