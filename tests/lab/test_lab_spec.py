"""A lab's names and addresses follow from its name and node count, and nonsense is refused."""

import pytest

from lab.demo import seconds_to_run
from lab.demoapp import apps, dnsmasq_argv
from lab.main import parser, run
from lab.spec import CLUSTER_CIDR, UNDERLAY, LabSpec
from palomar.errors import InvalidInputError


def test_nodes_have_names_addresses_and_pod_cidrs_of_their_own() -> None:
    """Nothing collides within a lab."""
    spec = LabSpec.build("demo", 32)
    assert len({node.address for node in spec.nodes}) == 32
    assert all(node.address in UNDERLAY and node.pod_cidr.subnet_of(CLUSTER_CIDR) for node in spec.nodes)
    taken = {spec.etcd_address, spec.world_underlay_address}
    assert not taken & {node.address for node in spec.nodes}


def test_a_lab_never_owns_another_labs_namespace() -> None:
    """`demo` and `demo-2` share no prefix: the dot never occurs in a name."""
    first, second = LabSpec.build("demo", 1), LabSpec.build("demo-2", 1)
    assert not second.nodes[0].namespace.startswith(f"{first.name}.")


@pytest.mark.parametrize(
    ("name", "nodes", "text"),
    [
        ("", 1, "lab name"),
        ("Demo", 1, "lab name"),
        ("a.b", 1, "lab name"),
        ("x" * 21, 1, "lab name"),
        ("demo", 0, "1 to 32"),
        ("demo", 33, "1 to 32"),
    ],
)
def test_nonsense_is_refused(name: str, nodes: int, text: str) -> None:
    """The error names the thing and what is accepted."""
    with pytest.raises(InvalidInputError, match=text):
        LabSpec.build(name, nodes)


@pytest.mark.parametrize("nodes", [1, 2, 3, 5])
def test_the_demo_fits_on_any_number_of_nodes(nodes: int) -> None:
    """Every pod has a node that exists, and names are unique."""
    spec = LabSpec.build("demo", nodes)
    listed = apps(spec.nodes)
    names = {f"{app.pod.namespace}/{app.pod.name}" for app in listed}
    assert len(names) == len(listed) == 9
    assert {app.pod.node for app in listed} <= {node.name for node in spec.nodes}


def test_dns_knows_every_address_of_a_service() -> None:
    """One record an address."""
    argv = dnsmasq_argv({"web.shop": [UNDERLAY[5], UNDERLAY[6]]})
    assert "--host-record=web.shop,172.30.0.5" in argv
    assert "--host-record=web.shop,172.30.0.6" in argv


def test_demo_seconds() -> None:
    """Unset runs until Ctrl-C; nonsense is refused by name."""
    assert seconds_to_run(None) is None
    assert seconds_to_run("2.5") == 2.5
    for bad in ("soon", "0", "-1"):
        with pytest.raises(InvalidInputError, match="DEMO_SECONDS"):
            seconds_to_run(bad)


def test_a_lab_that_is_not_up_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    """`status`, `exec` and `env` of an unknown lab say how to start one."""
    for command in (["status"], ["env"], ["exec", "node-1", "--", "true"]):
        assert (
            run(
                [*command, "--name", "nosuch"]
                if command[0] != "exec"
                else ["exec", "--name", "nosuch", "node-1"]
            )
            == 1
        )
        assert "palomar lab up --name nosuch" in capsys.readouterr().err


def test_parser_needs_a_command() -> None:
    """`palomar lab` alone is a usage error."""
    with pytest.raises(SystemExit):
        parser().parse_args([])
