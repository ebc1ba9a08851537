"""A node's configuration is checked where it is made."""

from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Any

import pytest

from datapath.config import Aggregation, DatapathConfig
from palomar.errors import InvalidInputError

GOOD = DatapathConfig(
    bpf_root=Path("/sys/fs/bpf/x"),
    node_name="one",
    node_ipv4=IPv4Address("172.30.0.1"),
    router_ipv4=IPv4Address("10.1.0.1"),
    pod_cidr=IPv4Network("10.1.0.0/24"),
    cluster_cidr=IPv4Network("10.0.0.0/8"),
)


def test_derived_paths() -> None:
    """Maps go to the field's place; objects are the shipped ones unless told otherwise."""
    assert GOOD.globals_dir == Path("/sys/fs/bpf/x/tc/globals")
    assert GOOD.objects.name == "objects"
    assert replace(GOOD, object_dir=Path("/tmp/o")).objects == Path("/tmp/o")
    assert GOOD.aggregation_level is Aggregation.MEDIUM


@pytest.mark.parametrize(
    ("change", "path"),
    [
        ({"router_ipv4": IPv4Address("10.2.0.1")}, "router_ipv4"),
        ({"cluster_cidr": IPv4Network("192.168.0.0/16")}, "pod_cidr"),
        ({"tunnel_port": 0}, "tunnel_port"),
        ({"tunnel_port": 65536}, "tunnel_port"),
        ({"mtu": 500}, "mtu"),
        ({"aggregation": "some"}, "aggregation"),
        ({"ct_tcp_max": 10}, "ct_tcp_max"),
        ({"ct_any_max": 10}, "ct_any_max"),
    ],
)
def test_what_cannot_work_is_refused(change: dict[str, Any], path: str) -> None:
    """The error names the field."""
    with pytest.raises(InvalidInputError) as caught:
        replace(GOOD, **change)
    assert caught.value.path == path
