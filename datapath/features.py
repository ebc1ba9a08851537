"""What this kernel can do, found out by trying it, and what Palomar cannot do without.

Not versions: each probe loads, creates or attaches the real thing and takes it away again. Probes that need
devices run in a namespace of their own. About 10 ms in all.
"""

import contextlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pyroute2
from pyroute2.netlink.exceptions import NetlinkError as PyrouteError

from datapath import libbpf, netns
from datapath.abi.mapspecs import MapType
from datapath.errors import FeatureMissingError
from palomar.errors import PalomarError

_PROG_TYPE_SCHED_CLS = 3
_HELPERS = {
    "perf_event_output": 25,
    "skb_set_tunnel_key": 21,
    "skb_get_tunnel_key": 20,
    "redirect": 23,
    "redirect_peer": 155,
    "ktime_get_ns": 5,
    "tail_call": 12,
}
"""Numbers of `enum bpf_func_id` of linux/bpf.h."""


_NEWER = "use a kernel of 5.10 or later"


@dataclass(frozen=True, slots=True)
class Feature:
    """One thing the kernel may lack."""

    name: str
    present: bool
    required: bool
    detail: str
    """What was tried, or the kernel's answer."""
    remedy: str


def probe() -> list[Feature]:
    """Try every feature; nothing is left behind."""
    found = [
        _asked(
            "BPF programs of type sched_cls",
            libbpf.probe_prog_type(_PROG_TYPE_SCHED_CLS, None),
            "run as root with CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON on a kernel with CONFIG_BPF_SYSCALL",
        )
    ]
    found += [
        _asked(f"BPF maps of type {kind.name.lower()}", libbpf.probe_map_type(int(kind), None), _NEWER)
        for kind in MapType
    ]
    found += [
        _asked(f"the BPF helper {name}", libbpf.probe_helper(_PROG_TYPE_SCHED_CLS, number, None), _NEWER)
        for name, number in _HELPERS.items()
    ]
    btf = Path("/sys/kernel/btf/vmlinux").exists()
    found.append(
        Feature("kernel BTF", btf, False, "/sys/kernel/btf/vmlinux", "build with CONFIG_DEBUG_INFO_BTF")
    )
    cgroup2 = "cgroup2" in Path("/proc/filesystems").read_text()
    found.append(Feature("cgroup2", cgroup2, False, "/proc/filesystems", "build with CONFIG_CGROUPS"))
    found += _device_features()
    return found


def require() -> list[Feature]:
    """Return what `probe` found, or raise `FeatureMissingError` for the first required thing missing."""
    found = probe()
    check(found)
    return found


def check(found: list[Feature]) -> None:
    """Raise `FeatureMissingError` for the first required feature of `found` that is missing."""
    for feature in found:
        if feature.required and not feature.present:
            raise FeatureMissingError(feature.name, feature.detail, feature.remedy)


def _asked(name: str, answer: int, remedy: str) -> Feature:
    detail = "probed" if answer >= 0 else os.strerror(-answer)
    return Feature(name, answer == 1, True, detail, remedy)


def _device_features() -> list[Feature]:
    tries: list[tuple[str, str, Callable[[pyroute2.IPRoute], None]]] = [
        ("veth devices", "build with CONFIG_VETH or load the module veth", _try_veth),
        ("clsact", "build with CONFIG_NET_SCH_INGRESS and CONFIG_NET_CLS_BPF", _try_clsact),
        ("VXLAN devices with external keys", "build with CONFIG_VXLAN or load vxlan", _try_vxlan),
    ]

    def body() -> list[Feature]:
        with contextlib.closing(pyroute2.IPRoute()) as ipr:
            return [_tried(name, remedy, fn, ipr) for name, remedy, fn in tries]

    try:
        return netns.run_in_new(body)
    except PalomarError as error:
        return [Feature("network namespaces", False, True, str(error), "run as root with CAP_SYS_ADMIN")]


def _tried(name: str, remedy: str, fn: Callable[[pyroute2.IPRoute], None], ipr: pyroute2.IPRoute) -> Feature:
    try:
        fn(ipr)
    except PyrouteError as error:
        return Feature(name, False, True, os.strerror(error.code), remedy)
    return Feature(name, True, True, "tried", remedy)


def _try_veth(ipr: pyroute2.IPRoute) -> None:
    ipr.link("add", ifname="probe0", kind="veth", peer={"ifname": "probe1"})


def _try_clsact(ipr: pyroute2.IPRoute) -> None:
    ipr.tc("add", "clsact", ipr.link_lookup(ifname="lo")[0])


def _try_vxlan(ipr: pyroute2.IPRoute) -> None:
    ipr.link("add", ifname="probe2", kind="vxlan", vxlan_collect_metadata=True, vxlan_port=8472)
