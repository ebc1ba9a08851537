"""Identities known here and addresses given out."""

from collections.abc import Iterator

from prometheus_client.core import Metric

from agent.metrics.family import gauges
from agent.runtime import Runtime
from palomar.identity import is_local_scope, reserved_name


def addresses(runtime: Runtime) -> Iterator[Metric]:
    """Identities by kind, addresses in use and those there are."""
    kinds = {"reserved": 0, "cluster_local": 0, "node_local": 0}
    for number in runtime.identities.cache.as_mapping():
        kind = "node_local" if is_local_scope(number) else "cluster_local"
        kinds["reserved" if reserved_name(number) else kind] += 1
    yield gauges(
        "cilium_identity",
        "Identities known here, by kind.",
        ["type"],
        (([kind], count) for kind, count in kinds.items()),
    )
    used, capacity = len(runtime.ipam.allocations), runtime.ipam.capacity
    yield gauges("cilium_ip_addresses", "Addresses in use.", ["family"], [(["ipv4"], used)])
    yield gauges(
        "cilium_ipam_capacity", "Addresses that endpoints can have.", ["family"], [(["ipv4"], capacity)]
    )
