"""The policies in force, and those that are not."""

from collections.abc import Iterator

from prometheus_client.core import Metric

from agent.metrics.family import counters, gauge
from agent.runtime import Runtime


def policies(runtime: Runtime) -> Iterator[Metric]:
    """Policies, their changes, and the map entries those cost."""
    sync = runtime.sync
    yield gauge("cilium_policy", "Policies in force.", len(sync.engine.repository.policies()))
    yield gauge("cilium_policy_max_revision", "Revision of the policies in force.", sync.engine.revision)
    yield counters(
        "cilium_policy_change",
        "Changes of policies by outcome.",
        ["outcome"],
        [(["success"], sync.counts.changes_ok), (["failure"], sync.counts.changes_failed)],
    )
    yield gauge(
        "palomar_policy_files_rejected",
        "Policy files that are not in force as they are.",
        len(runtime.policies.errors()),
    )
    yield counters(
        "palomar_policy_map_entries",
        "Entries written to and removed from policy maps.",
        ["operation"],
        [(["write"], sync.counts.entries_written), (["remove"], sync.counts.entries_removed)],
    )
