"""The keys of the agent's configuration: how each is read, its default and what it is for.

Not where values come from nor what they mean to one another (`agent.config`), not the readers
(`agent.configvalues`). `docs/agent.md` lists the same keys; a test compares.
"""

import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from agent import configvalues as read
from palomar.paths import SOCKET_GROUP


@dataclass(frozen=True, slots=True)
class Key:
    """One configuration key."""

    name: str
    read: Callable[[Any], Any]
    """Turns a text or a YAML value into the field's; ValueError says what to write instead."""
    default: Any
    """None: the key must be given. Read like any other value otherwise."""
    help: str

    @property
    def usual(self) -> Any:
        """The default as it is here: a machine's name is asked of the machine."""
        return self.default() if callable(self.default) else self.default

    @property
    def facts(self) -> str:
        """What it may be, where few words serve, and its default; empty where there is neither."""
        if self.default is None:
            return "required"
        default = text_of(self.usual)
        if not default:
            return ""
        may = f"{', '.join(self.read.words)}; " if isinstance(self.read, read.OneOf) else ""
        return f"{may}default: {default}"


def text_of(value: Any) -> str:
    """Return a value as people write it."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        if len(value) == 2 and isinstance(value[1], int):
            return f"{value[0]}:{value[1]}"
        return ",".join("=".join(item) if isinstance(item, tuple) else str(item) for item in value)
    return str(value)


KEYS = (
    Key("node-name", read.name, socket.gethostname, "name of this node, unique in the cluster"),
    Key("node-ipv4", read.ipv4, None, "address of this machine at which other nodes reach it"),
    Key("pod-cidr", read.network, None, "network this node's endpoints get addresses from"),
    Key("cluster-name", read.name, "default", "name of the cluster"),
    Key("cluster-pod-cidr", read.network, "10.0.0.0/8", "network that holds every node's pod-cidr"),
    Key("device", read.text, "", "underlay device (empty: the one that holds node-ipv4)"),
    Key("tunnel-port", read.number(1, 65535), 8472, "UDP port of the VXLAN overlay"),
    Key("mtu", read.mtu, 0, "of endpoints' devices (0: the underlay's less 50)"),
    Key("run-dir", read.path, "/run/palomar", "sockets"),
    Key("state-dir", read.path, "/var/lib/palomar", "endpoints, imported policies, flows"),
    Key("bpf-root", read.path, "/sys/fs/bpf", "folder of pinned maps on a BPF file system"),
    Key("kvstore", read.OneOf("file", "etcd"), "file", "what the nodes share state in"),
    Key("etcd-endpoints", read.texts, (), "with kvstore etcd: URLs such as http://10.0.0.1:2379"),
    Key("kvstore-dir", read.optional_path, "", "with kvstore file: its folder (state-dir/kvstore)"),
    Key("kvstore-lease-ttl", read.number(3, 3600), 15, "seconds that this node's keys outlive it"),
    Key("policy-dir", read.optional_path, "", "watched folder of CiliumNetworkPolicy files"),
    Key("enable-policy", read.OneOf("default", "always", "never"), "default", "when policy is enforced"),
    Key("enable-ipv4-masquerade", read.boolean, True, "pods reach the world with this node's address"),
    Key(
        "allow-localhost",
        read.OneOf("auto", "always", "policy"),
        "auto",
        "whether this node always reaches its endpoints",
    ),
    Key(
        "monitor-aggregation",
        read.OneOf("none", "low", "medium", "maximum"),
        "medium",
        "how much the kernel summarises traces",
    ),
    Key("hubble-event-buffer-capacity", read.number(1024, 1 << 26), 1 << 20, "flows the node's store keeps"),
    Key(
        "hubble-listen-address",
        read.listen_address,
        "",
        "host:port of the flow server for relays (empty: off)",
    ),
    Key("hubble-tls-cert-file", read.optional_path, "", "its certificate, PEM"),
    Key("hubble-tls-key-file", read.optional_path, "", "the certificate's private key, PEM"),
    Key("hubble-tls-client-ca-file", read.optional_path, "", "CA of the clients it admits, PEM"),
    Key(
        "hubble-listen-insecure",
        read.OneOf("", "plain-text-on-loopback"),
        "",
        "plain-text-on-loopback: no TLS, on a loopback address only",
    ),
    Key("hubble-metrics", read.text, "", "flow metrics: name:option=value;... name ... (empty: none)"),
    Key("hubble-metrics-server", read.listen_address, "127.0.0.1:9965", "host:port that serves them"),
    Key("hubble-metrics-max-series", read.number(1, 1_000_000), 10_000, "series of one flow metric"),
    Key(
        "otlp-endpoint", read.text, "", "collector of flows and flow metrics: http://host:4317 (empty: none)"
    ),
    Key("otlp-protocol", read.OneOf("grpc", "http"), "grpc", "how the collector is spoken to"),
    Key("otlp-headers-file", read.optional_path, "", "headers for the collector, `name: value` a line"),
    Key("otlp-ca-file", read.optional_path, "", "CA of the collector, PEM"),
    Key("otlp-cert-file", read.optional_path, "", "certificate shown to the collector, PEM"),
    Key("otlp-key-file", read.optional_path, "", "its private key, PEM"),
    Key("prometheus-serve-addr", read.listen_address, "", "host:port that serves /metrics (empty: off)"),
    Key("labels", read.texts, (), "filters that say which labels make an identity"),
    Key("node-labels", read.label_map, (), "labels of this node: key=value,..."),
    Key("bpf-ct-global-tcp-max", read.number(1024, 1 << 24), 131072, "TCP connections tracked"),
    Key("bpf-ct-global-any-max", read.number(1024, 1 << 24), 65536, "other connections tracked"),
    Key("log-level", read.OneOf("debug", "info", "warning", "error"), "info", "least level that is logged"),
    Key("log-format", read.OneOf("text", "json"), "text", "text for people, JSON lines for machines"),
    Key("socket-group", read.text, SOCKET_GROUP, "group that may use the sockets, where it exists"),
)
BY_NAME = {key.name: key for key in KEYS}
