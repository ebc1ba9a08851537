"""What the endpoint manager needs of the kernel, and a fake of it for tests.

`EndpointDatapath` is a part of `datapath.node.NodeDatapath`; both run through the same contract test. Every
call blocks and belongs in the agent's datapath thread.
"""

from collections.abc import Callable
from typing import Protocol

from datapath.endpoint import EndpointDevice, EndpointSpec
from datapath.errors import DeviceExistsError, NamespaceMissingError
from palomar.errors import TransientError


class EndpointDatapath(Protocol):
    """Devices, programs and map entries of endpoints."""

    def connect(self, spec: EndpointSpec) -> EndpointDevice:
        """Make the veth pair, host side down. NamespaceMissingError, DeviceExistsError: nothing is left."""
        ...

    def load(self, spec: EndpointSpec, device: EndpointDevice) -> None:
        """Attach the endpoint's programs, or replace them atomically; the device is up afterwards."""
        ...

    def disconnect(self, endpoint_id: int, ifname: str) -> None:
        """Take device, programs, policy map and map entries away. Idempotent."""
        ...

    def device_of(self, ifname: str) -> EndpointDevice | None:
        """Return the endpoint device of that name; None where there is none."""
        ...

    def list_endpoint_devices(self) -> list[EndpointDevice]:
        """Return every endpoint device of the node."""
        ...


class FakeEndpointDatapath:
    """An `EndpointDatapath` in memory: namespaces are the paths in `namespaces`."""

    def __init__(self, namespaces: set[str]) -> None:
        """Begin without devices; `before` is called with the name of each operation and may raise."""
        self.namespaces = namespaces
        self.devices: dict[str, EndpointDevice] = {}
        self.inside: dict[tuple[str, str], str] = {}
        """(namespace, name in it) to the host's device."""
        self.loaded: dict[int, EndpointSpec] = {}
        self.loads = 0
        self.before: Callable[[str], None] = lambda operation: None
        self._next = 10

    def connect(self, spec: EndpointSpec) -> EndpointDevice:
        """Make the device."""
        self.before("connect")
        if spec.netns not in self.namespaces:
            raise NamespaceMissingError(spec.netns, "it does not exist")
        if spec.host_ifname in self.devices:
            raise DeviceExistsError(spec.host_ifname, "the node")
        if (spec.netns, spec.container_ifname) in self.inside:
            raise DeviceExistsError(spec.container_ifname, spec.netns)
        self._next += 1
        tail = self._next.to_bytes(2, "big")
        device = EndpointDevice(self._next, spec.host_ifname, b"\x0a\0\0\0" + tail, b"\x0e\0\0\0" + tail)
        self.devices[spec.host_ifname] = device
        self.inside[spec.netns, spec.container_ifname] = spec.host_ifname
        return device

    def load(self, spec: EndpointSpec, device: EndpointDevice) -> None:
        """Note the programs."""
        self.before("load")
        if device.ifname not in self.devices:
            raise TransientError(f"device {device.ifname} does not exist: it went away")
        self.loads += 1
        self.loaded[spec.endpoint_id] = spec

    def disconnect(self, endpoint_id: int, ifname: str) -> None:
        """Forget device and programs."""
        self.before("disconnect")
        self.devices.pop(ifname, None)
        self.loaded.pop(endpoint_id, None)
        for place, name in list(self.inside.items()):
            if name == ifname:
                del self.inside[place]

    def device_of(self, ifname: str) -> EndpointDevice | None:
        """Return the device."""
        return self.devices.get(ifname)

    def list_endpoint_devices(self) -> list[EndpointDevice]:
        """Return every device."""
        return sorted(self.devices.values(), key=lambda device: device.ifindex)

    def destroy_namespace(self, path: str) -> None:
        """Let a namespace vanish with the device in it, as the kernel does."""
        self.namespaces.discard(path)
        for place, name in list(self.inside.items()):
            if place[0] == path:
                del self.inside[place]
                self.devices.pop(name, None)
