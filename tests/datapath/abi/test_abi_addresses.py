"""Addresses and endpoints are the bytes of the documented recipes."""

from ipaddress import IPv4Address, IPv4Network

from datapath.abi.addresses import EndpointInfo, EndpointKey, IpcacheEntry, IpcacheKey


def test_ipcache_bytes_are_the_recipe_s() -> None:
    """The recipe printed in the field's documentation, byte for byte."""
    key = IpcacheKey(IPv4Network("10.0.1.110/32")).pack()
    assert key.hex(" ") == ("40 00 00 00 00 00 00 01 0a 00 01 6e 00 00 00 00 00 00 00 00 00 00 00 00")
    value = IpcacheEntry(53731, IPv4Address("172.18.0.5"))
    assert value.pack().hex(" ") == "e3 d1 00 00 ac 12 00 05 00 00 00 00"
    assert IpcacheEntry.unpack(value.pack()) == value


def test_endpoint_bytes_are_the_recipe_s() -> None:
    """Key and value of the field's second recipe."""
    assert EndpointKey(IPv4Address("10.0.1.110")).pack().hex(" ") == (
        "0a 00 01 6e 00 00 00 00 00 00 00 00 00 00 00 00 01 00 00 00"
    )
    raw = bytes.fromhex(
        "0b 00 00 00 00 00 d6 07 00 00 00 00 00 00 00 00 6a 8c ee 3a 73 d5 00 00 3e 43 da fb c7 04 00 00"
        "00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00"
    )
    info = EndpointInfo.unpack(raw)
    assert (info.ifindex, info.endpoint_id) == (11, 2006)
    assert info.mac.hex(":") == "6a:8c:ee:3a:73:d5"
    assert info.node_mac.hex(":") == "3e:43:da:fb:c7:04"
    assert info.pack() == raw
