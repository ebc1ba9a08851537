"""After a restart: the endpoints of the last agent taken over, those that vanished cleaned up.

In two steps, because policies are read between them. `take_over` brings back ids, addresses and identities
from the state files and adopts the devices; nothing in the kernel changes but for endpoints whose device or
namespace is gone. `regenerate_all` writes their policies and loads this build's programs. Meanwhile the
kernel forwards and enforces as the last agent left it.
"""

import logging
from dataclasses import dataclass, replace

from agent.endpoint.manager import EndpointManager, address_of, owner_of
from agent.endpoint.model import Endpoint, EndpointRecord, EndpointState
from agent.endpoint.namespaces import NamespaceKey
from agent.endpoint.statuslog import StatusLog
from datapath.endpoint import EndpointDevice
from datapath.errors import NamespaceMissingError
from datapath.node import NodeDatapath
from palomar.errors import PalomarError, TransientError

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class RestoreReport:
    """What became of the state files."""

    restored: int = 0
    vanished: int = 0
    failed: int = 0
    corrupt: int = 0


async def take_over(manager: EndpointManager) -> RestoreReport:
    """Read the state files and take over what is alive; clean up what is not."""
    report = RestoreReport()
    loaded = await manager.parts.thread.run(manager.parts.store.load)
    report.corrupt = len(loaded.corrupt)
    for record in loaded.records:
        try:
            alive = await _look(manager, record)
            if alive is None:
                await _clean_up(manager, record)
                report.vanished += 1
            else:
                await _adopt(manager, record, *alive)
                report.restored += 1
        except PalomarError as error:
            report.failed += 1
            logger.error(
                "endpoint not restored", extra={"endpoint_id": record.endpoint_id, "error": str(error)}
            )
    logger.info(
        "endpoints restored",
        extra={"restored": report.restored, "vanished": report.vanished, "failed": report.failed},
    )
    return report


async def _look(
    manager: EndpointManager, record: EndpointRecord
) -> tuple[EndpointDevice, NamespaceKey] | None:
    parts = manager.parts
    device = await parts.thread.run(parts.datapath.device_of, record.host_ifname)
    if device is None:
        return None
    try:
        return device, await parts.thread.run(parts.namespaces.identify, record.netns)
    except NamespaceMissingError:
        return None


async def _clean_up(manager: EndpointManager, record: EndpointRecord) -> None:
    parts = manager.parts
    await parts.thread.run(parts.datapath.disconnect, record.endpoint_id, record.host_ifname)
    await parts.thread.run(parts.store.remove, record.endpoint_id)
    logger.info(
        "endpoint vanished while no agent ran",
        extra={"endpoint_id": record.endpoint_id, "pod": record.pod_name, "netns": record.netns},
    )


async def _adopt(
    manager: EndpointManager, record: EndpointRecord, device: EndpointDevice, key: NamespaceKey
) -> None:
    parts = manager.parts
    parts.ipam.reserve(record.ipv4, owner_of(record))
    labels = parts.identities.security_relevant(record.labels)
    preferred = record.identity if labels == record.identity_labels else None
    try:
        identity = await parts.identities.acquire(labels, preferred)
    except TransientError as error:
        # The store is away and knows the labels under no number: the file's is what the kernel enforces.
        identity = record.identity
        logger.warning("identity kept from the state file", extra={"identity": identity, "error": str(error)})
    changed = replace(record, identity=identity, identity_labels=labels)
    if changed != record:
        await parts.thread.run(parts.store.save, changed)
    endpoint = Endpoint(changed, EndpointState.RESTORING, StatusLog(parts.clock), device, restored=True)
    endpoint.go(EndpointState.RESTORING, f"found by its state file, device {device.ifname}")
    manager.adopt(endpoint, key)
    parts.addresses.upsert_endpoint(address_of(changed))


async def regenerate_all(manager: EndpointManager) -> int:
    """Bring every restored endpoint to ready; return how many could not be."""
    failed = 0
    for endpoint in manager.endpoints():
        if endpoint.state is not EndpointState.RESTORING:
            continue
        try:
            await manager.regenerate(endpoint, "restored")
        except PalomarError as error:
            failed += 1
            logger.error(
                "restored endpoint is not ready",
                extra={"endpoint_id": endpoint.endpoint_id, "error": str(error)},
            )
    return failed


async def sweep_vanished(manager: EndpointManager) -> int:
    """Delete endpoints whose namespace, and with it their device, went away; return how many."""
    settled = (EndpointState.READY, EndpointState.NOT_READY)
    found = 0
    for endpoint in manager.endpoints():
        if endpoint.state not in settled:
            continue
        name = endpoint.record.host_ifname
        if await manager.parts.thread.run(manager.parts.datapath.device_of, name) is None:
            logger.warning(
                "endpoint vanished",
                extra={"endpoint_id": endpoint.endpoint_id, "netns": endpoint.record.netns},
            )
            await manager.delete(endpoint)
            found += 1
    return found


def remove_strangers(datapath: NodeDatapath, known: dict[int, str]) -> int:
    """Take away endpoints in the kernel that no state file knows: an add was killed midway. Blocks.

    `known` maps endpoint ids to their devices' names. Returns how many there were.
    """
    devices = {device.ifindex: device.ifname for device in datapath.list_endpoint_devices()}
    strangers: dict[int, str] = dict.fromkeys(datapath.maps.policy_endpoint_ids(), "")
    for _address, info in datapath.maps.lxc.items():  # noqa: PERF102  # a map of the kernel has no values()
        if info.endpoint_id:
            strangers[info.endpoint_id] = devices.get(info.ifindex, "")
    strangers = {key: name for key, name in strangers.items() if key not in known}
    claimed = {*known.values(), *strangers.values()}
    for endpoint_id, name in strangers.items():
        datapath.disconnect(endpoint_id, name)
    lonely = [name for name in devices.values() if name not in claimed]
    for name in lonely:
        datapath.disconnect(0, name)
    found = len(strangers) + len(lonely)
    if found:
        logger.warning("endpoints without a state file removed", extra={"count": found})
    return found
