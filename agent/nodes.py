"""Node discovery: publishes this node and keeps a table of all nodes of the cluster.

What it is not: it decides nothing about addresses or tunnels (`agent.ipcache` does, as a listener).
Input: `NodeEntry` events of a `cluster.backend.Backend`. Output: the table for the API, and listeners.

    nodes = NodeDiscovery(backend, local_node_entry(...))
    await nodes.start()          # follows the others
    nodes.publish()              # after restored endpoints were published; IpCache does it
    await nodes.stop()
"""

import logging
from asyncio import CancelledError, Task
from collections.abc import Callable, Mapping
from contextlib import suppress
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

from cluster.backend import AddressType, Backend, Deleted, NodeAddress, NodeEntry, Upserted
from palomar.tasks import spawn

logger = logging.getLogger(__name__)

NodeListener = Callable[[NodeEntry | None, NodeEntry | None], None]
"""Called with the entry before (None: new) and after (None: gone)."""

BOOT_ID_FILE = Path("/proc/sys/kernel/random/boot_id")


def boot_id() -> str:
    """Return the kernel's id of this boot; empty where it has none."""
    try:
        return BOOT_ID_FILE.read_text().strip()
    except OSError:
        return ""


def local_node_entry(
    node_name: str,
    cluster_name: str,
    node_ipv4: IPv4Address,
    router_ipv4: IPv4Address,
    pod_cidr: IPv4Network,
    labels: Mapping[str, str] | None = None,
    boot_id: str = "",
) -> NodeEntry:
    """Describe this node as the others are to see it."""
    return NodeEntry(
        name=node_name,
        cluster=cluster_name,
        addresses=(
            NodeAddress(AddressType.INTERNAL_IP, str(node_ipv4)),
            NodeAddress(AddressType.CILIUM_INTERNAL_IP, str(router_ipv4)),
        ),
        ipv4_alloc_cidr=pod_cidr,
        labels=dict(labels or {}),
        boot_id=boot_id,
    )


class NodeDiscovery:
    """This node among the others."""

    def __init__(self, backend: Backend, local: NodeEntry) -> None:
        """`local` is this node; nothing is published before `publish`."""
        self._backend = backend
        self._local = local
        self._others: dict[str, NodeEntry] = {}
        self._listeners: list[NodeListener] = []
        self._synced_listeners: list[Callable[[], None]] = []
        self._synced = False
        self._task: Task[None] | None = None

    @property
    def local(self) -> NodeEntry:
        """This node."""
        return self._local

    @property
    def synced(self) -> bool:
        """Whether every node the store held at first contact is known."""
        return self._synced

    def nodes(self) -> list[NodeEntry]:
        """This node first, then the others by name."""
        return [self._local, *(self._others[name] for name in sorted(self._others))]

    def listen(self, listener: NodeListener, synced: Callable[[], None] | None = None) -> None:
        """Tell `listener` of the other nodes, now and on change; call `synced` once all are told."""
        for node in self._others.values():
            listener(None, node)
        self._listeners.append(listener)
        if synced is not None:
            if self._synced:
                synced()
            self._synced_listeners.append(synced)

    def publish(self) -> None:
        """Make this node known; to the others it says that its addresses are complete."""
        self._backend.publish_node(self._local)

    async def start(self) -> None:
        """Begin to follow the others; the backend need not be reachable."""
        if self._task is None:
            self._task = spawn(self._follow(), "node discovery")

    async def stop(self) -> None:
        """Stop following; the table stays."""
        if self._task is not None:
            self._task.cancel()
            with suppress(CancelledError):
                await self._task
            self._task = None

    async def _follow(self) -> None:
        async for event in self._backend.watch_nodes():
            if isinstance(event, Upserted):
                self._set(event.entry.full_name, event.entry)
            elif isinstance(event, Deleted):
                self._set(event.entry.full_name, None)
            elif not self._synced:
                self._synced = True
                for synced in self._synced_listeners:
                    synced()

    def _set(self, name: str, after: NodeEntry | None) -> None:
        if name == self._local.full_name:
            return
        before = self._others.get(name)
        if after is None:
            self._others.pop(name, None)
            logger.info("node left", extra={"node": name})
        else:
            self._others[name] = after
            if before is None:
                logger.info("node joined", extra={"node": name, "node_ipv4": str(after.node_ipv4)})
        for listener in self._listeners:
            listener(before, after)
