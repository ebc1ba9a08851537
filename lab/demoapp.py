"""The demo application's pods: which run where, with which labels and commands.

Pure: addresses come in, argument lists come out. Names resolve through a real DNS server
(dnsmasq) in the pod `kube-system/dns`.
"""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address

from lab.spec import WORLD_ADDRESS, NodeSpec, PodSpec

DNS_POD = "dns"


@dataclass(frozen=True, slots=True)
class App:
    """A pod and the process in it; `service` is the name under which DNS knows it."""

    pod: PodSpec
    argv: tuple[str, ...]
    service: str = ""


def _python(module: str, *arguments: str) -> tuple[str, ...]:
    return (sys.executable, "-m", f"lab.app.{module}", *arguments)


def apps(nodes: Sequence[NodeSpec]) -> list[App]:
    """The demo's applications spread over `nodes` (one to many)."""

    def place(index: int) -> str:
        return nodes[index % len(nodes)].name

    def shop(name: str, node: int, argv: tuple[str, ...], service: str = "") -> App:
        workload = name.rsplit("-", 1)[0] if name[-1].isdigit() else name
        labels = (f"k8s:app={workload}",)
        return App(PodSpec(name, "shop", place(node), labels, workload), argv, service)

    dns = PodSpec(DNS_POD, "kube-system", place(0), ("k8s:k8s-app=dns",), "dns")
    return [
        App(dns, ("dnsmasq", "--no-daemon"), "dns"),
        shop("store-1", 2, _python("store"), "store"),
        shop("api-1", 1, _python("api", "--store", "store.shop:6379"), "api"),
        shop("api-2", 2, _python("api", "--store", "store.shop:6379"), "api"),
        shop("web-1", 0, _python("web", "--api", "http://api.shop:8080"), "web"),
        shop("web-2", 1, _python("web", "--api", "http://api.shop:8080"), "web"),
        shop("client-1", 0, _python("caller", "http://web.shop:8080/", "--every", "0.5")),
        shop("intruder-1", 1, _python("caller", "tcp://store.shop:6379", "http://api.shop:8080/")),
        shop("crawler-1", 2, _python("caller", f"http://{WORLD_ADDRESS}/", f"tcp://{WORLD_ADDRESS}:443")),
    ]


def dnsmasq_argv(addresses: Mapping[str, Sequence[IPv4Address]]) -> list[str]:
    """Arguments of the DNS server that knows `addresses` (`web.shop` -> its pods)."""
    records = [
        f"--host-record={name},{address}" for name, found in sorted(addresses.items()) for address in found
    ]
    return [
        "dnsmasq",
        "--keep-in-foreground",
        "--no-resolv",
        "--no-hosts",
        "--conf-file=/dev/null",
        "--log-facility=-",
        "--pid-file=",
        "--user=root",
        "--port=53",
        *records,
    ]
