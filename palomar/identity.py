"""Numeric identities: the 24-bit numbers that stand for a set of security-relevant labels.

Ranges and reserved numbers are the field's (see docs/abi.md); 0 is the wildcard of policy maps.
"""

from enum import IntEnum
from typing import NewType

NumericIdentity = NewType("NumericIdentity", int)
EndpointId = NewType("EndpointId", int)


class Reserved(IntEnum):
    """Identities with a fixed number; the label is `reserved:<name>`."""

    UNKNOWN = 0
    HOST = 1
    WORLD = 2
    UNMANAGED = 3
    HEALTH = 4
    INIT = 5
    REMOTE_NODE = 6
    KUBE_APISERVER = 7
    INGRESS = 8
    WORLD_IPV4 = 9
    WORLD_IPV6 = 10

    @property
    def label_name(self) -> str:
        """The name used in `reserved:<name>`, e.g. `remote-node`."""
        return self.name.lower().replace("_", "-")


MIN_CLUSTER_IDENTITY = NumericIdentity(256)
MAX_CLUSTER_IDENTITY = NumericIdentity(65535)
MIN_LOCAL_IDENTITY = NumericIdentity(0x01000001)
"""First identity of the node-local scope: CIDR identities, never shared between nodes."""
MAX_LOCAL_IDENTITY = NumericIdentity(0x01FFFFFF)


def is_local_scope(identity: int) -> bool:
    """Tell whether `identity` is node-local (a CIDR identity)."""
    return MIN_LOCAL_IDENTITY <= identity <= MAX_LOCAL_IDENTITY


def reserved_name(identity: int) -> str | None:
    """Return `world` for 2 and so on; None for a number that is not reserved."""
    try:
        return Reserved(identity).label_name
    except ValueError:
        return None
