"""Programs on devices: clsact and one `bpf` filter per direction, replaced in one step.

Not loading (`loader.py`). Priority 1, handle 1, direct action, protocol all. The filter's name is what
`tc filter show` and `bpftool net show` print, e.g. `bpf_lxc.o:[from-container]`.
"""

import os
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

from pyroute2.netlink.exceptions import NetlinkError as PyrouteError

from datapath.errors import NetlinkError
from datapath.link import Netlink, request

_EEXIST = 17
_GONE = (2, 19, 22)
"""ENOENT, ENODEV, EINVAL (no clsact): nothing to remove."""
_ETH_P_ALL_BE = 3 << 8
_HANDLE = 1
_PRIORITY = 1


class Hook(IntEnum):
    """TC_H_CLSACT parents of linux/pkt_sched.h: ingress is what the device received."""

    INGRESS = 0xFFFFFFF2
    EGRESS = 0xFFFFFFF3


@dataclass(frozen=True, slots=True)
class Filter:
    """A program on a device."""

    ifindex: int
    hook: Hook
    name: str


def filter_name(object_name: str, program: str) -> str:
    """Return `bpf_lxc.o:[from-container]` for `bpf_lxc.o` and `cil_from_container`."""
    return f"{object_name}:[{program.removeprefix('cil_').replace('_', '-')}]"


def attach(netlink: Netlink, ifindex: int, hook: Hook, prog_fd: int, name: str) -> None:
    """Put the program on the device, atomically in place of the one that is there."""
    try:
        netlink.ipr.tc("add", "clsact", ifindex)
    except PyrouteError as error:
        if error.code != _EEXIST:
            raise NetlinkError(
                f"add clsact to device {ifindex}", error.code, os.strerror(error.code)
            ) from error
    with request(f"attach {name} to device {ifindex} {hook.name.lower()}"):
        netlink.ipr.tc(
            "replace-filter",
            "bpf",
            ifindex,
            _HANDLE,
            fd=prog_fd,
            name=name,
            parent=int(hook),
            direct_action=True,
            prio=_PRIORITY,
            protocol=3,
        )


def detach(netlink: Netlink, ifindex: int, hook: Hook) -> bool:
    """Take our filter off; False where there was none. Idempotent."""
    try:
        netlink.ipr.tc("del-filter", "bpf", ifindex, _HANDLE, parent=int(hook), prio=_PRIORITY, protocol=3)
    except PyrouteError as error:
        if error.code in _GONE:
            return False
        raise NetlinkError(
            f"detach from device {ifindex} {hook.name.lower()}", error.code, os.strerror(error.code)
        ) from error
    return True


def filters(netlink: Netlink, ifindex: int) -> list[Filter]:
    """Return the bpf filters of a device, ingress first."""
    found = []
    for hook in Hook:
        try:
            messages = list(netlink.ipr.get_filters(index=ifindex, parent=int(hook)))
        except PyrouteError as error:
            if error.code in _GONE:
                continue
            raise NetlinkError(
                f"list filters of device {ifindex}", error.code, os.strerror(error.code)
            ) from error
        names = (_name_of(message) for message in messages)
        found += [Filter(ifindex, hook, name) for name in names if name]
    return found


def _name_of(message: Any) -> str:
    options = message.get_attr("TCA_OPTIONS")
    return (options.get_attr("TCA_BPF_NAME") if options else None) or ""
