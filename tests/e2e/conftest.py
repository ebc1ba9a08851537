"""One whole lab for the story: three nodes, the demo application, removed whatever happens."""

import os
from collections.abc import Iterator

import pytest

from lab.cluster import LabCluster
from lab.network import namespaces
from lab.spec import LabSpec


@pytest.fixture(scope="module")
def lab() -> Iterator[LabCluster]:
    """A running lab with its demo application."""
    if os.geteuid() != 0:
        pytest.skip("needs root: a lab makes network namespaces and loads eBPF programs")
    cluster = LabCluster(LabSpec.build(f"t{os.getpid()}", 3))
    cluster.up()
    try:
        yield cluster
    finally:
        cluster.down()
        assert namespaces(cluster.spec.name) == []
        assert not cluster.spec.bpf_root.exists()
