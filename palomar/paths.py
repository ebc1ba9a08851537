"""Where a node keeps things: derived from two roots so that many nodes can share one machine.

`run_dir` (default /run/palomar) holds sockets, `state_dir` (default /var/lib/palomar) what survives a
reboot, the flow store too, `bpf_root` (default /sys/fs/bpf) the pins.
"""

from dataclasses import dataclass
from pathlib import Path

SOCKET_GROUP = "palomar"
"""Whose members may use the sockets, where nothing else is said."""


@dataclass(frozen=True, slots=True)
class NodePaths:
    """Paths of one node, all derived."""

    run_dir: Path
    state_dir: Path
    bpf_root: Path

    @property
    def api_socket(self) -> Path:
        """The agent's HTTP API (unix socket, 0660)."""
        return self.run_dir / "palomar.sock"

    @property
    def hubble_socket(self) -> Path:
        """The flow server's gRPC API (unix socket, 0660)."""
        return self.run_dir / "hubble.sock"

    @property
    def ingest_socket(self) -> Path:
        """Private: the agent tells the ingest process names, it answers with counters."""
        return self.run_dir / "ingest.sock"

    @property
    def flow_dir(self) -> Path:
        """The memory-mapped flow store and its names log."""
        return self.state_dir / "flows"

    @property
    def endpoint_dir(self) -> Path:
        """One JSON file per endpoint, for restore."""
        return self.state_dir / "endpoints"

    @property
    def policy_state_dir(self) -> Path:
        """Policies imported by command, one file each."""
        return self.state_dir / "policies"

    @property
    def globals_dir(self) -> Path:
        """Pinned maps, where Cilium pins its own."""
        return self.bpf_root / "tc" / "globals"

    @property
    def lock_file(self) -> Path:
        """Held by the one agent that owns `bpf_root` (beside the run dir: bpffs holds no plain files)."""
        name = str(self.bpf_root).strip("/").replace("/", "-")
        return Path("/run") / f"palomar-bpffs-{name}.lock"
