"""Every pinned map of one node: made or checked by the agent, opened as they are by the CLI.

Not what each holds (a module each) nor its attributes (`datapath.abi.mapspecs`). A map that differs from this
build's layout is refused with every difference, never reused.
"""

import os
from dataclasses import replace as replaced
from pathlib import Path

from datapath import libbpf, tables
from datapath.abi.counters import EventStats
from datapath.abi.mapspecs import GLOBAL_MAPS, POLICY_SPEC, MapSpec, MapType, policy_map_name
from datapath.errors import MapDifference, MapMismatchError
from datapath.maps.addresses import EndpointMap, IpcacheMap, TunnelMap
from datapath.maps.conntrack import ConntrackMaps
from datapath.maps.counters import MetricsMap, RuntimeConfigMap
from datapath.maps.policy import PolicyMap
from datapath.maps.raw import RawMap
from datapath.pins import create_pinned, differences, map_info, open_checked, open_pinned


class DatapathMaps:
    """Every map of one node. Made by `ensure_maps` (the agent) or `open_maps` (the CLI)."""

    def __init__(self, globals_dir: Path, maps: dict[str, RawMap], create: bool) -> None:
        """Take ownership of the descriptors in `maps`, by name."""
        self.globals_dir = globals_dir
        self._maps = maps
        self._create = create
        self._policies: dict[int, PolicyMap] = {}
        self.ipcache = IpcacheMap(maps["cilium_ipcache"])
        self.lxc = EndpointMap(maps["cilium_lxc"])
        self.tunnel = TunnelMap(maps["cilium_tunnel_map"])
        self.ct = ConntrackMaps(maps["cilium_ct4_global"], maps["cilium_ct_any4_global"])
        self.metrics = MetricsMap(maps["cilium_metrics"])
        self.runtime_config = RuntimeConfigMap(maps["cilium_runtime_config"])
        self.call_policy = _program_array(maps["cilium_call_policy"])
        self._revisions = tables.NumberArray(
            maps["palomar_policy_revision"].spec, maps["palomar_policy_revision"].fd
        )

    def raw(self, name: str) -> RawMap:
        """Return a shared map by its pin name; KeyError for an unknown one."""
        return self._maps[name]

    def policy(self, endpoint_id: int) -> PolicyMap:
        """Return the endpoint's policy map; the owner of the node creates it, empty, where it is missing.

        An empty policy map denies everything. `MapMissingError` for a reader.
        """
        known = self._policies.get(endpoint_id)
        if known is not None and known.raw.fd >= 0 and known.path.exists():
            return known
        if known is not None:
            known.raw.close()
        path = self.globals_dir / policy_map_name(endpoint_id)
        spec = replaced(POLICY_SPEC, name=path.name)
        fd = open_checked(spec, path, create=self._create)
        self._policies[endpoint_id] = PolicyMap(RawMap(spec, fd), path)
        return self._policies[endpoint_id]

    def remove_policy(self, endpoint_id: int) -> None:
        """Unpin the endpoint's policy map. Idempotent."""
        known = self._policies.pop(endpoint_id, None)
        if known is not None:
            known.remove()
        (self.globals_dir / policy_map_name(endpoint_id)).unlink(missing_ok=True)

    def policy_endpoint_ids(self) -> list[int]:
        """Return the endpoints that have a pinned policy map, in order."""
        prefix = POLICY_SPEC.name + "_"
        names = (path.name for path in self.globals_dir.glob(prefix + "*"))
        return sorted(int(n.removeprefix(prefix)) for n in names if n.removeprefix(prefix).isdigit())

    def bump_policy_revision(self, endpoint_id: int) -> int:
        """Make every live connection of the endpoint be judged anew; call it after the map changed."""
        revision = (self._revisions.get(endpoint_id) + 1) & 0xFFFFFFFF
        self._revisions.set(endpoint_id, revision)
        return revision

    def policy_revision(self, endpoint_id: int) -> int:
        """Return the endpoint's policy revision."""
        return self._revisions.get(endpoint_id)

    def event_stats(self) -> list[EventStats]:
        """Return what the programs tried to emit, one row per possible CPU."""
        raw = self._maps["palomar_event_stats"]
        rows = tables.per_cpu_array(raw.spec, raw.fd)
        return [EventStats(cpu, row[0], row[1], row[2]) for cpu, row in enumerate(rows)]

    def close(self) -> None:
        """Close every descriptor; pins stay. Idempotent."""
        for policy in self._policies.values():
            policy.raw.close()
        self._policies.clear()
        for raw in self._maps.values():
            raw.close()


def specs(ct_tcp_max: int = 131072, ct_any_max: int = 65536) -> tuple[MapSpec, ...]:
    """Return the shared maps with the configured sizes."""
    sizes = {
        "cilium_ct4_global": ct_tcp_max,
        "cilium_ct_any4_global": ct_any_max,
        "cilium_events": libbpf.possible_cpus(),
        "cilium_signals": libbpf.possible_cpus(),
    }
    return tuple(replaced(spec, max_entries=sizes.get(spec.name, spec.max_entries)) for spec in GLOBAL_MAPS)


def ensure_maps(globals_dir: Path, wanted: tuple[MapSpec, ...]) -> DatapathMaps:
    """Open the pinned maps and create the missing ones.

    Raises `MapMismatchError` naming every attribute of every map that differs, before anything is created.
    """
    globals_dir.mkdir(parents=True, exist_ok=True)
    descriptors: dict[str, int] = {}
    try:
        different: list[MapDifference] = []
        for spec in wanted:
            path = globals_dir / spec.name
            if path.exists():
                descriptors[spec.name] = open_pinned(path)
                different += differences(spec, path, descriptors[spec.name])
        if different:
            raise MapMismatchError(tuple(different))
        for spec in wanted:
            if spec.name not in descriptors:
                descriptors[spec.name] = create_pinned(spec, globals_dir / spec.name)
    except BaseException:
        for fd in descriptors.values():
            os.close(fd)
        raise
    raw = {spec.name: RawMap(spec, descriptors[spec.name]) for spec in wanted}
    return DatapathMaps(globals_dir, raw, create=True)


def open_maps(bpf_root: Path) -> DatapathMaps:
    """Open a node's pinned maps to look at them; sizes are taken as they are.

    `MapMissingError` where no agent ever ran with this root, `MapMismatchError` for another build's layout.
    """
    globals_dir = bpf_root / "tc" / "globals"
    raw: dict[str, RawMap] = {}
    try:
        for spec in GLOBAL_MAPS:
            path = globals_dir / spec.name
            fd = open_pinned(path)
            found = replaced(spec, max_entries=map_info(fd).max_entries)
            raw[spec.name] = RawMap(found, fd)
            different = differences(found, path, fd)
            if different:
                raise MapMismatchError(different)
    except BaseException:
        for opened in raw.values():
            opened.close()
        raise
    return DatapathMaps(globals_dir, raw, create=False)


def _program_array(raw: RawMap) -> tables.ProgramArray:
    assert raw.spec.type is MapType.PROG_ARRAY
    return tables.ProgramArray(raw.spec, raw.fd)
