"""The endpoints: how many, in what state, and how their policy maps fare."""

from collections.abc import Iterator

from prometheus_client.core import Metric

from agent.endpoint.model import EndpointState
from agent.metrics.family import counters, gauge, gauges
from agent.runtime import Runtime


def endpoints(runtime: Runtime) -> Iterator[Metric]:
    """Endpoints by state and enforcement, and their regenerations."""
    items = runtime.endpoints.endpoints()
    yield gauge("cilium_endpoint", "Endpoints of this node.", len(items))
    yield gauges(
        "cilium_endpoint_state",
        "Endpoints by state.",
        ["endpoint_state"],
        (([str(state)], sum(item.state is state for item in items)) for state in EndpointState),
    )
    counts = runtime.sync.counts
    yield counters(
        "cilium_endpoint_regenerations",
        "Policy maps written after a change, by outcome.",
        ["outcome"],
        [(["success"], counts.regenerations_ok), (["fail"], counts.regenerations_failed)],
    )
    enforced = [
        policy.enforced
        for policy in (runtime.sync.policy_of(item.endpoint_id) for item in items)
        if policy is not None
    ]
    yield gauges(
        "cilium_policy_endpoint_enforcement_status",
        "Endpoints by the directions in which policy is enforced.",
        ["enforcement"],
        (([word], enforced.count(word)) for word in ("none", "ingress", "egress", "both")),
    )
