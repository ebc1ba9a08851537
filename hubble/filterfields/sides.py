"""Questions about one side of a flow: address, port, identity, and what its endpoint is called.

Pure. Questions about names are asked once per interned reference, not per row.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from hubble import labelselector
from hubble.filterfields.predicates import Predicate, View, each, is_one_of
from hubble.filterfields.values import Network, read_glob, read_network, read_pod, read_port
from hubble.flowendpoint import FlowEndpoint, resolve
from hubble.observingnode import ObservingNode
from hubble.rows import Column, Mask, Rows, address_words, ip_versions
from palomar.labels import LabelSet
from palomar.verdict import IpProtocol

UNASKED = -1


class SideTable:
    """The answer to one question about one side of a flow, remembered per reference.

    Rows hold few different references, so the question is asked of names, never of rows.
    """

    def __init__(self, ref_column: str, identity_column: str, ask: Callable[[FlowEndpoint], bool]) -> None:
        """`ask` is the question; the columns say which side."""
        self._ref_column = ref_column
        self._identity_column = identity_column
        self._ask = ask
        self._answers = np.full(256, UNASKED, dtype=np.int8)
        """By reference; 0 or 1 once asked."""

    def __call__(self, view: View) -> Mask:
        """One answer per row."""
        refs = view.rows.column(self._ref_column)
        if len(refs) == 0:
            return np.zeros(0, dtype=np.bool_)
        highest = int(refs.max())
        if highest >= len(self._answers):
            grown = np.full(highest * 2, UNASKED, dtype=np.int8)
            grown[: len(self._answers)] = self._answers
            self._answers = grown
        answers = self._answers[refs]
        if (answers == UNASKED).any():
            self._fill(view, refs, answers)
        return answers.view(np.bool_)

    def _fill(self, view: View, refs: Column, answers: npt.NDArray[np.int8]) -> None:
        for ref in np.unique(refs[answers == UNASKED]).tolist():
            if ref == 0:
                continue
            endpoint, final = resolve(view.names, ref, 0)
            if final:
                self._answers[ref] = self._ask(endpoint)
        np.take(self._answers, refs, out=answers)
        unnamed = answers == UNASKED
        if unnamed.any():
            identities = view.rows.column(self._identity_column)[unnamed]
            distinct = np.unique(identities)
            asked = [self._ask(resolve(view.names, 0, identity)[0]) for identity in distinct.tolist()]
            answers[unnamed] = np.array(asked, dtype=np.int8)[np.searchsorted(distinct, identities)]


@dataclass(frozen=True, slots=True)
class Side:
    """Names of the record's fields for one side of a flow."""

    ref: str
    identity: str
    address: str
    port: str

    def ask(self, question: Callable[[FlowEndpoint], bool]) -> Predicate:
        """A predicate that asks every endpoint of this side once."""
        return SideTable(self.ref, self.identity, question)

    def ips(self, values: Sequence[Any], _node: ObservingNode) -> Predicate:
        """Addresses or CIDRs."""
        networks = each(values, read_network)
        return lambda view: _in_networks(view.rows, self.address, networks)

    def pods(self, values: Sequence[Any], _node: ObservingNode) -> Predicate:
        """`[namespace/]prefix`; namespace `default` when there is no slash, any when it is empty."""
        wanted = each(values, read_pod)
        return self.ask(
            lambda endpoint: (
                bool(endpoint.namespace or endpoint.pod)
                and any(
                    (not namespace or namespace == endpoint.namespace) and endpoint.pod.startswith(prefix)
                    for namespace, prefix in wanted
                )
            )
        )

    def labels(self, values: Sequence[Any], _node: ObservingNode) -> Predicate:
        """Label selectors."""
        selectors = each(values, labelselector.parse)
        return self.ask(
            lambda endpoint: labelselector.matches_any(selectors, LabelSet.parse(endpoint.labels))
        )

    def workloads(self, values: Sequence[Any], _node: ObservingNode) -> Predicate:
        """Name and kind; what is empty is not compared."""
        wanted = [(value.name, value.kind) for value in values]
        return self.ask(
            lambda endpoint: any(
                name in ("", workload.name) and kind in ("", workload.kind)
                for workload in endpoint.workloads
                for name, kind in wanted
            )
        )

    def clusters(self, values: Sequence[Any], _node: ObservingNode) -> Predicate:
        """Cluster names with * for any characters."""
        patterns = each(values, read_glob)
        return self.ask(lambda endpoint: any(pattern.fullmatch(endpoint.cluster) for pattern in patterns))

    def identities(self, values: Sequence[Any], _node: ObservingNode) -> Predicate:
        """Numeric identities."""
        return lambda view: is_one_of(view.rows.column(self.identity), values)

    def ports(self, values: Sequence[Any], _node: ObservingNode) -> Predicate:
        """Ports of TCP, UDP and SCTP; packets of other protocols have none."""
        ports = each(values, read_port)
        return lambda view: (
            is_one_of(view.rows.column(self.port), ports)
            & is_one_of(view.rows.column("protocol"), PORT_PROTOCOLS)
        )


SOURCE = Side("src_ref", "src_identity", "saddr", "sport")
DESTINATION = Side("dst_ref", "dst_identity", "daddr", "dport")
PORT_PROTOCOLS = (IpProtocol.TCP, IpProtocol.UDP, IpProtocol.SCTP)


def _in_networks(rows: Rows, address: str, networks: Sequence[Network]) -> Mask:
    versions = ip_versions(rows)
    result = np.zeros(len(rows), dtype=np.bool_)
    for version, width in ((4, 4), (6, 8)):
        wanted = [network for network in networks if network.version == version]
        if not wanted:
            continue
        words = address_words(rows, address, width)[:, : 1 if version == 4 else 2]
        inside = np.zeros(len(rows), dtype=np.bool_)
        for network in wanted:
            mask = np.frombuffer(network.netmask.packed, dtype=f"u{width}")
            base = np.frombuffer(network.network_address.packed, dtype=f"u{width}")
            inside |= ((words & mask) == base).all(axis=1)
        result |= inside & (versions == version)
    return result
