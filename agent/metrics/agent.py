"""The agent itself: version, start, controllers, tables of wishes, certificates, child processes."""

from collections.abc import Iterator
from platform import machine

from prometheus_client.core import Metric

from agent.metrics.family import counters, gauge, gauges
from agent.runtime import Runtime
from agent.supervisor import ChildState
from palomar.table import RowState


def lifecycle(runtime: Runtime) -> Iterator[Metric]:
    """Version, stages of the start, controllers, nodes."""
    version = [([runtime.version, "", machine()], 1)]
    yield gauges("cilium_version", "Version of the agent.", ["version", "revision", "arch"], version)
    yield gauges(
        "cilium_agent_bootstrap_seconds",
        "Duration of each stage of the agent's start.",
        ["scope", "outcome"],
        (([stage, "success"], seconds) for stage, seconds in runtime.bootstrap.durations_s.items()),
    )
    statuses = [controller.status for controller in runtime.controllers]
    runs = [
        (["success"], sum(status.successes for status in statuses)),
        (["failure"], sum(status.failures for status in statuses)),
    ]
    yield counters("cilium_controllers_runs", "Runs of controllers by outcome.", ["status"], runs)
    failing = sum(bool(status.consecutive_failures) for status in statuses)
    yield gauge("cilium_controllers_failing", "Controllers whose last run failed.", failing)
    yield gauge("cilium_nodes_all_num", "Nodes of the cluster, this one too.", len(runtime.nodes.nodes()))


def tables(runtime: Runtime) -> Iterator[Metric]:
    """How far the wishes are."""
    rows = []
    for table in (runtime.sync.table, runtime.ipcache.table, runtime.ipcache.tunnel_table):
        states = [row.state for row in table.rows()]
        rows += [([table.name, state.value], states.count(state)) for state in RowState]
    yield gauges("palomar_table_rows", "Wishes by table and by how far they are.", ["table", "state"], rows)


def certificates(runtime: Runtime) -> Iterator[Metric]:
    """How long the flow server's certificates are good for."""
    yield gauges(
        "palomar_certificate_expiry_seconds",
        "Time until a certificate ends; negative afterwards.",
        ["file"],
        (([certificate.file], certificate.seconds_left) for certificate in runtime.certificates),
    )


def processes(runtime: Runtime) -> Iterator[Metric]:
    """The child processes."""
    children = runtime.processes()
    yield gauges(
        "palomar_process_up",
        "Whether a child process runs.",
        ["process"],
        (([child.name], child.state is ChildState.RUNNING) for child in children),
    )
    yield counters(
        "palomar_process_restarts",
        "How often a child process was started again.",
        ["process"],
        (([child.name], child.restarts) for child in children),
    )
    yield counters(
        "cilium_subprocess_start",
        "How often a child process was started.",
        ["subsystem"],
        (([child.name], child.restarts + 1) for child in children),
    )
