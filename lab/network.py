"""Namespaces, bridge and links of a lab, built and taken away with iproute2.

Every namespace of lab `demo` is called `demo.<something>`; the dot never occurs in a lab's name, so
a prefix names exactly one lab's namespaces and nothing else.
"""

import os
import signal
from pathlib import Path

from lab.spec import UNDERLAY, WORLD_ADDRESS, WORLD_NETWORK, LabSpec
from palomar.proc import run

NETNS_DIR = Path("/run/netns")


def ip(*arguments: str, namespace: str = "") -> str:
    """Run `ip` (in `namespace`) and return what it printed; raises CommandError."""
    prefix = ["ip", "-n", namespace] if namespace else ["ip"]
    return run([*prefix, *arguments]).stdout


def namespaces(lab: str) -> list[str]:
    """Names of the lab's namespaces that exist."""
    if not NETNS_DIR.is_dir():
        return []
    return sorted(entry.name for entry in NETNS_DIR.iterdir() if entry.name.startswith(f"{lab}."))


def add_namespace(name: str) -> None:
    """Make a namespace with its loopback up and IPv6 off until Palomar carries it."""
    ip("netns", "add", name)
    ip("link", "set", "lo", "up", namespace=name)


def in_namespace(name: str, argv: list[str]) -> list[str]:
    """Argument list that runs `argv` in the network namespace `name`, and in no other new one.

    Not `ip netns exec`: that mounts a fresh /sys and hides bpffs and cgroups.
    """
    return ["nsenter", f"--net={NETNS_DIR / name}", "--", *argv]


def _join(lab: LabSpec, namespace: str, port: str, address: str) -> None:
    underlay = lab.underlay_namespace
    ip("link", "add", "eth0", "netns", namespace, "type", "veth", "peer", "name", port, "netns", underlay)
    ip("link", "set", port, "master", "br0", "up", namespace=underlay)
    ip("addr", "add", address, "dev", "eth0", namespace=namespace)
    ip("link", "set", "eth0", "up", namespace=namespace)


def build(lab: LabSpec) -> None:
    """Make the underlay bridge, the world and every node's namespace, all connected."""
    prefix = UNDERLAY.prefixlen
    add_namespace(lab.underlay_namespace)
    ip("link", "add", "br0", "type", "bridge", namespace=lab.underlay_namespace)
    ip("addr", "add", f"{lab.etcd_address}/{prefix}", "dev", "br0", namespace=lab.underlay_namespace)
    ip("link", "set", "br0", "up", namespace=lab.underlay_namespace)

    add_namespace(lab.world_namespace)
    _join(lab, lab.world_namespace, "world", f"{lab.world_underlay_address}/{prefix}")
    ip("addr", "add", f"{WORLD_ADDRESS}/32", "dev", "lo", namespace=lab.world_namespace)

    for node in lab.nodes:
        add_namespace(node.namespace)
        _join(lab, node.namespace, node.name, f"{node.address}/{prefix}")
        via = str(lab.world_underlay_address)
        ip("route", "add", str(WORLD_NETWORK), "via", via, namespace=node.namespace)


def processes(namespace: str) -> list[int]:
    """Process ids that live in `namespace`."""
    return [int(pid) for pid in ip("netns", "pids", namespace).split()]


def remove_one(name: str) -> None:
    """Kill what runs in the namespace `name` and delete it."""
    for pid in processes(name):
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
    ip("netns", "delete", name)


def remove(lab: str) -> None:
    """Take every namespace of `lab` and what runs in it away. Nothing there is no error."""
    for name in namespaces(lab):
        remove_one(name)
