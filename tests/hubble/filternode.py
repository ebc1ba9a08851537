"""The node whose flows the filters are tried on, and the ids of its flows. For tests of filters."""

from hubble import flowuuid
from hubble.flowuuid import StoreId
from hubble.observingnode import ObservingNode

STORE = StoreId(0x123456789ABCDEF)
NODE = ObservingNode("default/worker2", ("k8s:zone=a", "k8s:disk=ssd"), STORE)
FIRST = 1000


def uuid_at(position: int) -> str:
    return flowuuid.prefix(STORE) + flowuuid.tail(position).decode()
