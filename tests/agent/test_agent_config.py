"""The agent's configuration: where values come from, what is refused and in which words."""

import re
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

import pytest
import yaml

from agent.config import AgentConfig, ConfigError, load, machine_problems, parser
from agent.configkeys import BY_NAME, KEYS
from agent.configvalues import OneOf

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "agent.md").read_text()
LEAST = {"node-ipv4": "172.30.0.1", "pod-cidr": "10.1.0.0/24", "node-name": "one"}


def from_file(
    tmp_path: Path, environ: dict[str, str] | None = None, *argv: str, **keys: object
) -> AgentConfig:
    tree = {**LEAST, **{name.replace("_", "-"): value for name, value in keys.items()}}
    path = tmp_path / "agent.yaml"
    path.write_text(yaml.safe_dump(tree))
    return load(["--config", str(path), *argv], environ or {})


def test_the_least_configuration_has_documented_defaults(tmp_path: Path) -> None:
    config = from_file(tmp_path)
    assert config.node_ipv4 == IPv4Address("172.30.0.1")
    assert config.router_ipv4 == IPv4Address("10.1.0.1")
    assert config.cluster_pod_cidr == IPv4Network("10.0.0.0/8")
    assert (config.cluster_name, config.kvstore, config.enable_policy) == ("default", "file", "default")
    assert config.paths.api_socket == Path("/run/palomar/palomar.sock")
    assert config.kvstore_dir == Path("/var/lib/palomar/kvstore")
    assert config.prometheus_serve_addr is None
    assert config.hubble_event_buffer_capacity == 1 << 20


def test_flag_beats_environment_beats_file_beats_default(tmp_path: Path) -> None:
    environ = {"PALOMAR_MTU": "1400", "PALOMAR_TUNNEL_PORT": "9000", "PALOMAR_CLUSTER_NAME": "env"}
    config = from_file(tmp_path, environ, "--mtu", "1300", mtu=1450, tunnel_port=8000, log_level="debug")
    assert (config.mtu, config.tunnel_port, config.cluster_name) == (1300, 9000, "env")
    assert (config.log_level, config.log_format) == ("debug", "text")


def test_every_key_can_come_from_every_source(tmp_path: Path) -> None:
    texts = from_file(tmp_path, etcd_endpoints=["http://a:1"], node_labels={"zone": "b"}).texts()
    assert texts.keys() == {key.name for key in KEYS}
    by_flag = load([f"--{name}={value}" for name, value in texts.items()], {})
    by_environment = load([], {f"PALOMAR_{n.upper().replace('-', '_')}": v for n, v in texts.items()})
    assert by_flag == by_environment == from_file(tmp_path, **{**texts})


def test_lists_come_as_lists_texts_or_repeated_flags(tmp_path: Path) -> None:
    wanted = ("http://a:1", "http://b:2")
    assert from_file(tmp_path, etcd_endpoints=list(wanted)).etcd_endpoints == wanted
    assert from_file(tmp_path, {"PALOMAR_ETCD_ENDPOINTS": ",".join(wanted)}).etcd_endpoints == wanted
    flags = [word for url in wanted for word in ("--etcd-endpoints", url)]
    assert from_file(tmp_path, None, *flags).etcd_endpoints == wanted


def test_a_boolean_flag_needs_no_value(tmp_path: Path) -> None:
    assert from_file(
        tmp_path, None, "--enable-ipv4-masquerade", enable_ipv4_masquerade=False
    ).enable_ipv4_masquerade
    assert not from_file(tmp_path, None, "--enable-ipv4-masquerade=false").enable_ipv4_masquerade


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"pod_cdir": "10.1.0.0/24"}, "pod-cdir: no such key in"),
        ({"pod_cdir": "10.1.0.0/24"}, "did you mean pod-cidr?"),
        ({"pod_cidr": "10.1.0.7/24"}, "write 10.1.0.0/24"),
        ({"pod_cidr": "10.1.0.0/33"}, "no IPv4 network"),
        ({"pod_cidr": "10.1.0.0/31"}, "has no room for an endpoint"),
        ({"pod_cidr": "192.168.0.0/24"}, "not inside cluster-pod-cidr 10.0.0.0/8"),
        ({"node_ipv4": "10.1.0.9"}, "lies inside pod-cidr"),
        ({"node_ipv4": "0.0.0.0"}, "no address of a host"),
        ({"node_ipv4": "300.1.1.1"}, "no IPv4 address"),
        ({"node_name": "a/b"}, "no name"),
        ({"tunnel_port": 70000}, "no number from 1 to 65535"),
        ({"tunnel_port": True}, "no number from 1 to 65535"),
        ({"mtu": 1000}, "below 1280"),
        ({"kvstore": "consul"}, "none of file, etcd"),
        ({"kvstore": "etcd"}, "etcd-endpoints: missing"),
        ({"etcd_endpoints": ["127.0.0.1:2379"]}, "is no URL"),
        ({"enable_policy": "sometimes"}, "none of default, always, never"),
        ({"enable_ipv4_masquerade": "maybe"}, "neither true nor false"),
        ({"run_dir": "run"}, "no absolute path"),
        ({"run_dir": "/" + "x" * 120}, "bytes a socket's path may have"),
        ({"prometheus_serve_addr": "9962"}, "no listening address"),
        ({"prometheus_serve_addr": "127.0.0.1:99999"}, "no listening address"),
        ({"node_labels": "zone"}, "write key=value"),
        ({"monitor_aggregation": "high"}, "none of none, low, medium, maximum"),
        ({"hubble_event_buffer_capacity": 10}, "no number from 1024"),
        ({"node_name": ["a", "b"]}, "is not one value"),
    ],
)
def test_a_bad_value_is_named_with_the_remedy(tmp_path: Path, keys: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        from_file(tmp_path, **keys)
    assert any(words in problem for problem in caught.value.problems), caught.value.problems
    assert next(iter(keys)).replace("_", "-")[:5] in str(caught.value)


def test_all_problems_are_said_at_once_with_where_they_come_from(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        from_file(tmp_path, {"PALOMAR_MTU": "x"}, "--tunnel-port", "0", pod_cidr="nonsense")
    text = str(caught.value)
    assert len(caught.value.problems) == 3
    assert "mtu (from PALOMAR_MTU)" in text
    assert "tunnel-port (from --tunnel-port)" in text
    assert f"pod-cidr (from {tmp_path / 'agent.yaml'})" in text


def test_missing_keys_are_named() -> None:
    with pytest.raises(ConfigError) as caught:
        load([], {})
    assert [problem.split(":")[0] for problem in caught.value.problems] == ["node-ipv4", "pod-cidr"]


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--node-nam", "one"], "did you mean --node-name?"),
        (["--pod-cidr"], "expected one argument"),
        (["surplus"], "no argument is expected here"),
        (["--config", "/nonexistent.yaml"], "name a readable file"),
    ],
)
def test_a_mistyped_flag_is_refused(argv: list[str], words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(argv, {})
    assert any(words in problem for problem in caught.value.problems), caught.value.problems


def test_a_mistyped_variable_is_refused_and_a_foreign_one_is_not(tmp_path: Path) -> None:
    assert from_file(tmp_path, {"PALOMAR_SERVER": "x", "PALOMAR_NODE_COUNT": "3"}).node_name == "one"
    with pytest.raises(ConfigError, match="did you mean PALOMAR_NODE_NAME"):
        from_file(tmp_path, {"PALOMAR_NODE_NAM": "x"})


@pytest.mark.parametrize(("text", "words"), [("- a\n", "not a list"), ("a: [", "no YAML"), ("\x00", "YAML")])
def test_a_file_that_is_no_mapping_is_refused(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "agent.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=words):
        load(["--config", str(path)], {})


def test_the_machine_must_have_the_address_and_the_device(tmp_path: Path) -> None:
    here = from_file(tmp_path, node_ipv4="127.0.0.1", device="lo")
    assert not [problem for problem in machine_problems(here) if "root" not in problem]
    elsewhere = from_file(tmp_path, node_ipv4="198.51.100.77", device="nosuchdev0")
    problems = machine_problems(elsewhere)
    assert any(p.startswith("node-ipv4: 198.51.100.77 is no address of this machine") for p in problems)
    assert any(p.startswith("device: nosuchdev0 does not exist") for p in problems)


def test_help_names_every_key() -> None:
    text = parser().format_help()
    assert all(f"--{key.name} " in text for key in KEYS)


@pytest.mark.parametrize(
    ("key", "facts"),
    [
        ("node-ipv4", "required"),
        ("kvstore", "file, etcd; default: file"),
        ("tunnel-port", "default: 8472"),
        ("enable-ipv4-masquerade", "default: true"),
        ("policy-dir", ""),
        ("hubble-listen-insecure", ""),
    ],
)
def test_help_says_what_a_key_may_be_and_its_default(key: str, facts: str) -> None:
    assert BY_NAME[key].facts == facts


def test_every_key_and_its_default_is_in_the_docs() -> None:
    """docs/agent.md has a row for each, or for a few that belong together, and no key that is none."""
    rows = [line.split("|")[1:3] for line in PAGE.splitlines() if line.startswith("| `")]
    told = {name: default.strip() for names, default in rows for name in re.findall("`([^`]+)`", names)}
    assert told.keys() == BY_NAME.keys()
    for key in KEYS:
        if isinstance(key.default, int | str) and key.default not in ("", True):
            assert str(key.default) in told[key.name], key.name
    assert all(word in PAGE for key in KEYS if isinstance(key.read, OneOf) for word in key.read.words)


def test_the_example_in_the_docs_is_a_configuration(tmp_path: Path) -> None:
    [example] = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    path = tmp_path / "agent.yaml"
    path.write_text(example)
    config = load(["--config", str(path)], {})
    assert (config.node_name, config.hubble_listen_address) == ("node-1", ("192.0.2.11", 4244))
