"""The agent's configuration: one frozen value from a YAML file, the environment and flags, checked whole.

Not the keys one by one (`agent.configkeys`) nor the datapath's view of it (`datapath.config`). Input:
`load(argv, environ)`, where a flag beats an environment variable (`PALOMAR_NODE_NAME`), which beats the file
(`node-name:`), which beats the default. Output: `AgentConfig`, or one `ConfigError` with every problem, each
naming key and remedy. `machine_problems` asks this machine whether the configuration can be true here.
"""

import argparse
import errno
import os
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from difflib import get_close_matches
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Any, NoReturn

import yaml

from agent import configvalues as read
from agent.configkeys import BY_NAME, KEYS, text_of
from palomar.errors import InvalidInputError
from palomar.paths import NodePaths

ENV_PREFIX = "PALOMAR_"
MAX_SOCKET_PATH_BYTES = 107
"""`sun_path` of unix(7) without its terminating zero."""


@dataclass(frozen=True, slots=True)
class AgentConfig:
    """Everything an agent is told, all keys read and checked."""

    node_name: str
    node_ipv4: IPv4Address
    pod_cidr: IPv4Network
    cluster_name: str
    cluster_pod_cidr: IPv4Network
    device: str
    tunnel_port: int
    mtu: int
    run_dir: Path
    state_dir: Path
    bpf_root: Path
    kvstore: str
    etcd_endpoints: tuple[str, ...]
    kvstore_dir: Path
    kvstore_lease_ttl: int
    policy_dir: Path | None
    enable_policy: str
    enable_ipv4_masquerade: bool
    allow_localhost: str
    monitor_aggregation: str
    hubble_event_buffer_capacity: int
    hubble_listen_address: tuple[str, int] | None
    hubble_tls_cert_file: Path | None
    hubble_tls_key_file: Path | None
    hubble_tls_client_ca_file: Path | None
    hubble_listen_insecure: str
    hubble_metrics: str
    hubble_metrics_server: tuple[str, int] | None
    hubble_metrics_max_series: int
    otlp_endpoint: str
    otlp_protocol: str
    otlp_headers_file: Path | None
    otlp_ca_file: Path | None
    otlp_cert_file: Path | None
    otlp_key_file: Path | None
    prometheus_serve_addr: tuple[str, int] | None
    labels: tuple[str, ...]
    node_labels: tuple[tuple[str, str], ...]
    bpf_ct_global_tcp_max: int
    bpf_ct_global_any_max: int
    log_level: str
    log_format: str
    socket_group: str

    @property
    def paths(self) -> NodePaths:
        """Where this node keeps things."""
        return NodePaths(self.run_dir, self.state_dir, self.bpf_root)

    @property
    def router_ipv4(self) -> IPv4Address:
        """The pods' gateway: the first address of the pod CIDR."""
        return self.pod_cidr.network_address + 1

    def texts(self) -> dict[str, str]:
        """Every key with its value as text, as `palomar config` prints it."""
        return {f.name.replace("_", "-"): text_of(getattr(self, f.name)) for f in fields(self)}


class ConfigError(InvalidInputError):
    """The configuration cannot be used; `problems` holds one line each."""

    def __init__(self, problems: Sequence[str]) -> None:
        """Keep every problem."""
        self.problems = tuple(problems)
        super().__init__("\n".join(["configuration:", *(f"  {problem}" for problem in problems)]))


@dataclass(frozen=True, slots=True)
class _Given:
    """A value somebody wrote, and where."""

    value: Any
    origin: str


def load(argv: Sequence[str], environ: Mapping[str, str]) -> AgentConfig:
    """Read flags, environment and the file named by `--config`; raise ConfigError with every problem."""
    problems: list[str] = []
    flags, config_file = _from_flags(argv, problems)
    path = config_file or environ.get(f"{ENV_PREFIX}CONFIG", "")
    given = _from_file(Path(path), problems) if path else {}
    given |= _from_environment(environ, problems)
    given |= flags
    values = _values(given, problems)
    if not problems:
        problems += _cross_problems(values)
    if problems:
        raise ConfigError(problems)
    if values["kvstore_dir"] is None:
        values["kvstore_dir"] = values["state_dir"] / "kvstore"
    return AgentConfig(**values)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise ConfigError([message])


def parser() -> argparse.ArgumentParser:
    """Return the parser of `palomar agent`, one flag per key."""
    made = _Parser(
        prog="palomar agent",
        description="Run the agent of this node.",
        epilog="Every flag is also a key of the file (without --) and a variable, e.g. PALOMAR_NODE_NAME.",
        allow_abbrev=False,
    )
    made.add_argument("--config", metavar="FILE", default="", help="YAML file of keys (env PALOMAR_CONFIG)")
    for key in KEYS:
        made.add_argument(
            f"--{key.name}",
            action="append",
            nargs="?" if key.read is read.boolean else None,
            const="true" if key.read is read.boolean else None,
            metavar="VALUE",
            help=f"{key.help} ({key.facts})" if key.facts else key.help,
        )
    return made


def _from_flags(argv: Sequence[str], problems: list[str]) -> tuple[dict[str, _Given], str]:
    try:
        parsed, unknown = parser().parse_known_args(list(argv))
    except ConfigError as error:
        problems += error.problems
        return {}, ""
    for word in unknown:
        if word.startswith("--"):
            problems.append(
                f"{word.partition('=')[0]}: no such flag{_nearest(word.partition('=')[0][2:], '--')}"
            )
        else:
            problems.append(f"{word!r}: no argument is expected here: write --key value")
    values = vars(parsed)
    config_file = str(values.pop("config"))
    return {
        name.replace("_", "-"): _Given(texts[0] if len(texts) == 1 else texts, f"--{name.replace('_', '-')}")
        for name, texts in values.items()
        if texts
    }, config_file


def _from_environment(environ: Mapping[str, str], problems: list[str]) -> dict[str, _Given]:
    given = {}
    for variable, value in environ.items():
        if not variable.startswith(ENV_PREFIX) or variable == f"{ENV_PREFIX}CONFIG":
            continue
        name = variable.removeprefix(ENV_PREFIX).lower().replace("_", "-")
        if name in BY_NAME:
            given[name] = _Given(value, variable)
        elif get_close_matches(name, BY_NAME, n=1, cutoff=0.8):
            # Other commands have variables of their own (PALOMAR_SERVER): only near misses are mistakes.
            problems.append(f"{variable}: no such key{_nearest(name, ENV_PREFIX)}")
    return given


def _from_file(path: Path, problems: list[str]) -> dict[str, _Given]:
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        problems.append(f"--config {path}: {getattr(error, 'strerror', None) or error}: name a readable file")
        return {}
    except yaml.YAMLError as error:
        problems.append(f"--config {path}: no YAML: {' '.join(str(error).split())}")
        return {}
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        problems.append(f"--config {path}: write `key: value` lines, not a {type(tree).__name__}")
        return {}
    given = {}
    for name, value in tree.items():
        if name in BY_NAME:
            given[name] = _Given(value, str(path))
        else:
            problems.append(f"{name}: no such key in {path}{_nearest(str(name), '')}")
    return given


def _nearest(name: str, prefix: str) -> str:
    near = get_close_matches(name, BY_NAME, n=1, cutoff=0.5)
    if not near:
        return ": `palomar agent --help` lists them all"
    word = near[0].upper().replace("-", "_") if prefix == ENV_PREFIX else near[0]
    return f": did you mean {prefix}{word}?"


def _values(given: Mapping[str, _Given], problems: list[str]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for key in KEYS:
        found = given.get(key.name)
        if found is None and key.default is None:
            problems.append(f"{key.name}: missing: set it to the {key.help}")
            continue
        if found is None:
            found = _Given(key.usual, "default")
        try:
            values[key.name.replace("-", "_")] = key.read(found.value)
        except ValueError as error:
            problems.append(f"{key.name} (from {found.origin}): {error}")
    return values


def _hubble_problems(values: Mapping[str, Any]) -> list[str]:
    files = {
        key: values[key.replace("-", "_")]
        for key in ("hubble-tls-cert-file", "hubble-tls-key-file", "hubble-tls-client-ca-file")
    }
    if values["hubble_listen_address"] is None or values["hubble_listen_insecure"]:
        return []
    return [
        f"{key}: missing: hubble-listen-address demands mutual TLS: make it with `palomar certs`"
        for key, path in files.items()
        if path is None
    ]


def _cross_problems(values: Mapping[str, Any]) -> list[str]:
    """Find what is wrong between keys that are right one by one."""
    found = []
    pod_cidr, cluster_cidr = values["pod_cidr"], values["cluster_pod_cidr"]
    if pod_cidr.prefixlen > 30:
        found.append(f"pod-cidr: {pod_cidr} has no room for an endpoint: use a prefix of 30 bits or less")
    if not pod_cidr.subnet_of(cluster_cidr):
        found.append(
            f"pod-cidr: {pod_cidr} is not inside cluster-pod-cidr {cluster_cidr}: choose a part of it, or"
            " widen cluster-pod-cidr on every node"
        )
    if values["node_ipv4"] in pod_cidr:
        found.append(
            f"node-ipv4: {values['node_ipv4']} lies inside pod-cidr {pod_cidr}: they must not overlap"
        )
    if values["kvstore"] == "etcd" and not values["etcd_endpoints"]:
        found.append("etcd-endpoints: missing: kvstore is etcd, so name it, e.g. [http://10.0.0.1:2379]")
    found += [
        f"etcd-endpoints: {endpoint!r} is no URL: write like http://10.0.0.1:2379"
        for endpoint in values["etcd_endpoints"]
        if not endpoint.startswith(("http://", "https://"))
    ]
    found += _hubble_problems(values)
    longest = NodePaths(values["run_dir"], values["state_dir"], values["bpf_root"]).ingest_socket
    if len(os.fsencode(longest)) > MAX_SOCKET_PATH_BYTES:
        found.append(
            f"run-dir: {longest} is longer than the {MAX_SOCKET_PATH_BYTES} bytes a socket's path may have"
        )
    return found


def machine_problems(config: AgentConfig) -> list[str]:
    """Ask this machine (this network namespace) whether `node-ipv4` and `device` exist and we are root."""
    found = []
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind((str(config.node_ipv4), 0))
        except OSError as error:
            if error.errno == errno.EADDRNOTAVAIL:
                found.append(
                    f"node-ipv4: {config.node_ipv4} is no address of this machine: `ip -4 addr` lists them"
                )
    if config.device:
        try:
            socket.if_nametoindex(config.device)
        except OSError:
            found.append(
                f"device: {config.device} does not exist here: `ip link` lists devices; or leave it out"
            )
    if os.geteuid() != 0:
        found.append("the agent needs root (BPF, network devices): start it with sudo")
    return found
