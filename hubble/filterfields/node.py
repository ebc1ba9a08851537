"""Questions about the node that saw the flow: answered once for all of its rows.

Pure. Each function compiles the values of one field.
"""

from collections.abc import Sequence
from typing import Any

from hubble import labelselector
from hubble.filterfields.predicates import Predicate, constant, each
from hubble.filterfields.values import read_node_pattern
from hubble.observingnode import ObservingNode
from palomar.labels import LabelSet


def node_names(values: Sequence[Any], node: ObservingNode) -> Predicate:
    """`[cluster/]node` with * for any characters."""
    cluster, _, name = node.name.partition("/")
    patterns = each(values, read_node_pattern)
    return constant(
        any(of_cluster.fullmatch(cluster) and of_name.fullmatch(name) for of_cluster, of_name in patterns)
    )


def node_labels(values: Sequence[Any], node: ObservingNode) -> Predicate:
    """Label selectors."""
    selectors = each(values, labelselector.parse)
    return constant(labelselector.matches_any(selectors, LabelSet.parse(node.labels)))
