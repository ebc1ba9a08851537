"""Network devices, addresses, routes and sysctls of the calling thread's namespace, by netlink.

Not programs (`tc.py`). A `Netlink` belongs to the thread that opened it and blocks: never on an event loop.
Every call that makes something true is idempotent unless it says otherwise; refusals raise `NetlinkError`.
"""

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from pathlib import Path
from typing import Any, Self

import pyroute2
from pyroute2.netlink.exceptions import NetlinkError as PyrouteError

from datapath.errors import DeviceExistsError, DeviceMissingError, NetlinkError

_EEXIST, _ENODEV, _ENOENT = 17, 19, 2
_IFF_UP = 1
_SCOPE_LINK = 253


@dataclass(frozen=True, slots=True)
class LinkInfo:
    """A device as netlink shows it."""

    ifindex: int
    ifname: str
    kind: str
    """`veth`, `vxlan`, ...; empty for hardware and loopback."""
    mac: bytes
    mtu: int
    up: bool
    alias: str
    vxlan_port: int
    """0: no vxlan device."""


def mac_text(mac: bytes) -> str:
    """Return `02:00:5e:...`."""
    return mac.hex(":")


def mac_bytes(text: str) -> bytes:
    """Return the 6 bytes of `02:00:5e:...`."""
    return bytes.fromhex(text.replace(":", ""))


def random_mac() -> bytes:
    """Return a locally administered unicast address (IEEE 802: second-lowest bit of the first byte)."""
    raw = bytearray(os.urandom(6))
    raw[0] = (raw[0] | 0x02) & 0xFE
    return bytes(raw)


def write_sysctl(name: str, value: str) -> None:
    """Set `net/ipv4/...` of the calling thread's namespace, unless it already has the value."""
    path = Path("/proc/sys") / name
    try:
        if path.read_text().strip() != value:
            path.write_text(value)
    except OSError as error:
        raise NetlinkError(f"set sysctl {name} to {value}", error.errno or 0, str(error.strerror)) from error


def disable_ipv6(ifname: str) -> None:
    """Switch IPv6 off on a device, where the kernel has it at all: until its issue comes it is dropped."""
    if (Path("/proc/sys/net/ipv6/conf") / ifname).exists():
        write_sysctl(f"net/ipv6/conf/{ifname}/disable_ipv6", "1")


def quiet(ifname: str) -> None:
    """Keep the stack from judging what our programs judge: no reverse path check, no IPv6 chatter."""
    write_sysctl(f"net/ipv4/conf/{ifname}/rp_filter", "0")
    disable_ipv6(ifname)


@contextlib.contextmanager
def request(what: str) -> Iterator[None]:
    """Turn a refusal of the kernel into `NetlinkError` that says what was asked."""
    try:
        yield
    except PyrouteError as error:
        raise NetlinkError(what, error.code, os.strerror(error.code)) from error


class Netlink:
    """An rtnetlink socket in the calling thread's namespace, a context manager; 1 ms to open and close."""

    def __init__(self) -> None:
        """Open the socket."""
        self.ipr: Any = pyroute2.IPRoute()

    def __enter__(self) -> Self:
        """Use as a context manager."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the socket."""
        self.ipr.close()

    def link(self, ifname: str) -> LinkInfo | None:
        """Return the device of that name; None where there is none."""
        try:
            found = list(self.ipr.link("get", ifname=ifname))
        except PyrouteError as error:
            if error.code == _ENODEV:
                return None
            raise NetlinkError(f"get device {ifname}", error.code, os.strerror(error.code)) from error
        return _link_info(found[0]) if found else None

    def require(self, ifname: str, remedy: str) -> LinkInfo:
        """Return the device of that name or raise `DeviceMissingError` with the remedy."""
        found = self.link(ifname)
        if found is None:
            raise DeviceMissingError(ifname, remedy)
        return found

    def links(self) -> list[LinkInfo]:
        """Return every device of the namespace."""
        with request("list devices"):
            return [_link_info(message) for message in self.ipr.get_links()]

    def device_of(self, address: IPv4Address) -> LinkInfo | None:
        """Return the device that holds `address`."""
        with request("list addresses"):
            for message in self.ipr.get_addr(family=2):
                if message.get_attr("IFA_LOCAL") == str(address):
                    return next(i for i in self.links() if i.ifindex == message["index"])
        return None

    def add_veth(
        self,
        ifname: str,
        mac: bytes,
        peer_ifname: str,
        peer_mac: bytes,
        mtu: int,
        peer_netns_fd: int | None = None,
    ) -> LinkInfo:
        """Make a veth pair, its peer straight in another namespace; not idempotent: `DeviceExistsError`."""
        peer: dict[str, Any] = {"ifname": peer_ifname, "address": mac_text(peer_mac), "mtu": mtu}
        if peer_netns_fd is not None:
            peer["net_ns_fd"] = peer_netns_fd
        try:
            self.ipr.link("add", ifname=ifname, kind="veth", address=mac_text(mac), mtu=mtu, peer=peer)
        except PyrouteError as error:
            if error.code == _EEXIST:
                taken = ifname if self.link(ifname) else peer_ifname
                where = "the node's namespace" if taken == ifname else "the endpoint's namespace"
                raise DeviceExistsError(taken, where) from error
            raise NetlinkError(f"add veth {ifname}", error.code, os.strerror(error.code)) from error
        return self.require(ifname, "it went away while it was made")

    def add_vxlan(self, ifname: str, port: int, mtu: int) -> LinkInfo:
        """Make a VXLAN device whose tunnel keys come from programs, or adopt one on that port."""
        found = self.link(ifname)
        if found is not None and (found.kind != "vxlan" or found.vxlan_port != port):
            self.delete(ifname)
            found = None
        if found is None:
            with request(f"add vxlan {ifname} on UDP port {port}"):
                self.ipr.link(
                    "add",
                    ifname=ifname,
                    kind="vxlan",
                    vxlan_collect_metadata=True,
                    vxlan_port=port,
                    vxlan_learning=False,
                    address=mac_text(random_mac()),
                )
            found = self.require(ifname, "it went away while it was made")
        self.set(found.ifindex, mtu=mtu)
        return found

    def set(self, ifindex: int, **attributes: Any) -> None:
        """Change a device: `mtu=1450`, `state="up"`, `ifalias="..."`, `arp=False`."""
        with request(f"set {attributes} of device {ifindex}"):
            self.ipr.link("set", index=ifindex, **attributes)

    def delete(self, ifname: str) -> bool:
        """Remove the device (of a veth: both ends); False where it was not there."""
        found = self.link(ifname)
        if found is None:
            return False
        try:
            self.ipr.link("del", index=found.ifindex)
        except PyrouteError as error:
            if error.code == _ENODEV:
                return False
            raise NetlinkError(f"delete device {ifname}", error.code, os.strerror(error.code)) from error
        return True

    def addresses(self, ifindex: int) -> list[IPv4Interface]:
        """Return the IPv4 addresses of a device."""
        with request(f"list addresses of device {ifindex}"):
            return [
                IPv4Interface((message.get_attr("IFA_LOCAL"), message["prefixlen"]))
                for message in self.ipr.get_addr(family=2, index=ifindex)
            ]

    def set_address(self, ifindex: int, address: IPv4Interface, scope: int = 0) -> None:
        """Make `address` the only IPv4 address of the device."""
        present = self.addresses(ifindex)
        for other in present:
            if other != address:
                with request(f"delete address {other}"):
                    self.ipr.addr(
                        "del", index=ifindex, address=str(other.ip), prefixlen=other.network.prefixlen
                    )
        if address not in present:
            with request(f"add address {address}"):
                self.ipr.addr(
                    "add",
                    index=ifindex,
                    address=str(address.ip),
                    prefixlen=address.network.prefixlen,
                    scope=scope,
                )

    def replace_route(
        self,
        destination: IPv4Network,
        ifindex: int,
        gateway: IPv4Address | None = None,
        source: IPv4Address | None = None,
        mtu: int = 0,
    ) -> None:
        """Route `destination` over the device: link scope without `gateway`."""
        route: dict[str, Any] = {"dst": str(destination), "oif": ifindex}
        if gateway is None:
            route["scope"] = _SCOPE_LINK
        else:
            route["gateway"] = str(gateway)
        if source is not None:
            route["prefsrc"] = str(source)
        if mtu:
            route["metrics"] = {"mtu": mtu}
        with request(f"route {destination} over device {ifindex}"):
            self.ipr.route("replace", **route)


def _link_info(message: Any) -> LinkInfo:
    info = message.get_attr("IFLA_LINKINFO")
    kind = (info.get_attr("IFLA_INFO_KIND") if info else None) or ""
    data = info.get_attr("IFLA_INFO_DATA") if info and kind == "vxlan" else None
    return LinkInfo(
        ifindex=message["index"],
        ifname=message.get_attr("IFLA_IFNAME") or "",
        kind=kind,
        mac=mac_bytes(message.get_attr("IFLA_ADDRESS") or "00:00:00:00:00:00"),
        mtu=message.get_attr("IFLA_MTU") or 0,
        up=bool(message["flags"] & _IFF_UP),
        alias=message.get_attr("IFLA_IFALIAS") or "",
        vxlan_port=(data.get_attr("IFLA_VXLAN_PORT") or 0) if data else 0,
    )
