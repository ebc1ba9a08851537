"""One side of a flow by name: what a stored reference and a numeric identity stand for.

Pure. Input: the names log through a reader, and the `ref` and `identity` of a stored record; output:
a value that `hubble.filters` matches and `hubble.flowbuilder` encodes, so that both see the same.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from palomar.identity import reserved_name


@dataclass(frozen=True, slots=True)
class Workload:
    """What owns a pod, e.g. `web` of kind `Deployment`."""

    name: str
    kind: str


@dataclass(frozen=True, slots=True)
class FlowEndpoint:
    """One side of a flow; every field may be empty, as for an address in the world."""

    endpoint_id: int = 0
    """Number on this node; 0 for what is not local."""
    identity: int = 0
    cluster: str = ""
    namespace: str = ""
    pod: str = ""
    labels: tuple[str, ...] = ()
    """`source:key=value`, in canonical order."""
    workloads: tuple[Workload, ...] = ()


class Names(Protocol):
    """What filters and flows ask the names log; None is "not known (yet)"."""

    def endpoint(self, ref: int) -> FlowEndpoint | None:
        """The endpoint interned as `ref`, with the identity it had then."""
        ...

    def identity_labels(self, identity: int) -> Sequence[str] | None:
        """Labels of a numeric identity."""
        ...

    def interface(self, index: int) -> str | None:
        """Name of a network device of the node."""
        ...


def resolve(names: Names, ref: int, identity: int) -> tuple[FlowEndpoint, bool]:
    """The side `ref` of a packet with `identity`, and whether that is all there is to know.

    It is not when the names log has not reached `ref` yet: do not remember such an answer. Ref 0 is a
    side without a name: known by its identity alone. A named side keeps the labels it had when it was
    named; only the number is the packet's.
    """
    named = names.endpoint(ref) if ref else None
    if named is not None:
        return named if named.identity == identity else replace(named, identity=identity), True
    return FlowEndpoint(identity=identity, labels=identity_labels(names, identity)), ref == 0


def identity_labels(names: Names, identity: int) -> tuple[str, ...]:
    """Labels of `identity`: as logged, else `reserved:world` and the like, else none."""
    logged = names.identity_labels(identity)
    if logged is not None:
        return tuple(logged)
    reserved = reserved_name(identity)
    return (f"reserved:{reserved}",) if reserved else ()
