"""The node that saw a flow: what is the same for every flow of this flow server.

Pure. Made from the configuration; filters compare it, the flow builder writes it into each flow.
"""

from dataclasses import dataclass

from hubble.flowuuid import StoreId

ANY_STORE = StoreId(0)


@dataclass(frozen=True, slots=True)
class ObservingNode:
    """What is the same for every flow of this node."""

    name: str
    """`cluster/node`."""
    labels: tuple[str, ...] = ()
    store_id: StoreId = ANY_STORE
