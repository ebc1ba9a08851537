"""Filters are attached under the field's names, replaced in place, listed and removed."""

from pathlib import Path

import pytest

from datapath import netns, tc
from datapath.errors import NetlinkError
from datapath.link import Netlink, random_mac
from datapath.loader import BpfObject
from tests.kit.netns import NetnsFactory, exec_in

pytestmark = [pytest.mark.root, pytest.mark.bpf]


def test_names_are_made_from_object_and_program() -> None:
    """As `tc filter show` prints them in the field."""
    assert tc.filter_name("bpf_lxc.o", "cil_from_container") == "bpf_lxc.o:[from-container]"
    assert tc.filter_name("bpf_host_cilium_net.o", "cil_to_host") == "bpf_host_cilium_net.o:[to-host]"


def test_attach_replaces_and_detach_removes(netns_factory: NetnsFactory, small_object: Path) -> None:
    """One filter per direction however often attached; detaching twice is no error."""
    path = netns_factory.create("a")

    def body() -> None:
        with BpfObject(small_object) as loaded, Netlink() as netlink:
            loaded.load()
            device = netlink.add_veth("one", random_mac(), "two", random_mac(), 1500)
            assert tc.filters(netlink, device.ifindex) == []
            assert not tc.detach(netlink, device.ifindex, tc.Hook.INGRESS)
            for name in ("small.o:[first]", "small.o:[second]"):
                for hook in tc.Hook:
                    tc.attach(netlink, device.ifindex, hook, loaded.program_fd("stage"), name)
            assert tc.filters(netlink, device.ifindex) == [
                tc.Filter(device.ifindex, hook, "small.o:[second]") for hook in tc.Hook
            ]
            shown = exec_in(path, "tc", "filter", "show", "dev", "one", "ingress").stdout
            assert "pref 1 bpf chain 0 handle 0x1 small.o:[second] direct-action" in shown
            assert tc.detach(netlink, device.ifindex, tc.Hook.INGRESS)
            assert not tc.detach(netlink, device.ifindex, tc.Hook.INGRESS)
            assert [f.hook for f in tc.filters(netlink, device.ifindex)] == [tc.Hook.EGRESS]

    netns.run(path, body)


def test_missing_device_is_named(netns_factory: NetnsFactory, small_object: Path) -> None:
    """Attaching to a device that went away says which."""
    path = netns_factory.create("a")

    def body() -> None:
        with BpfObject(small_object) as loaded, Netlink() as netlink:
            loaded.load()
            tc.attach(netlink, 4242, tc.Hook.INGRESS, loaded.program_fd("stage"), "x")

    with pytest.raises(NetlinkError, match="device 4242"):
        netns.run(path, body)
