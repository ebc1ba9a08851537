"""Ranks vertices of a directed graph so that callers stand left of callees, and orders each rank.

Pure and deterministic: the same vertices and links in any order give the same ranks. Cycles are opened by
the greedy ordering of Eades, Lin and Smyth (1993); ranks are longest paths; crossings are thinned by
barycentres. Not here: what vertices are and where they are drawn (`ui.layout`).
"""

from collections.abc import Collection, Hashable, Mapping
from typing import Any, Protocol, TypeVar


class Vertex(Hashable, Protocol):
    """Anything hashable with an order of its own, for ties."""

    def __lt__(self, other: Any, /) -> bool:
        """Order vertices."""
        ...


V = TypeVar("V", bound=Vertex)
Links = Collection[tuple[V, V]]


def sequence(vertices: Collection[V], links: Links[V]) -> list[V]:
    """Order `vertices` so that few links point backwards; O(V² ) where there is nothing but cycles."""
    out: dict[V, set[V]] = {vertex: set() for vertex in vertices}
    into: dict[V, set[V]] = {vertex: set() for vertex in vertices}
    for source, target in links:
        if source != target and source in out and target in out:
            out[source].add(target)
            into[target].add(source)
    head: list[V] = []
    tail: list[V] = []
    left = set(vertices)

    def take(vertex: V) -> None:
        left.discard(vertex)
        for other in out[vertex]:
            into[other].discard(vertex)
        for other in into[vertex]:
            out[other].discard(vertex)

    while left:
        sinks = sorted(vertex for vertex in left if not out[vertex] and into[vertex])
        for vertex in sinks:
            tail.append(vertex)
            take(vertex)
        sources = sorted(vertex for vertex in left if not into[vertex])
        for vertex in sources:
            head.append(vertex)
            take(vertex)
        if not sinks and not sources and left:
            best = min(left, key=lambda vertex: (len(into[vertex]) - len(out[vertex]), _Ordered(vertex)))
            head.append(best)
            take(best)
    return head + tail[::-1]


def ranks(vertices: Collection[V], links: Links[V]) -> dict[V, int]:
    """Return the rank of each vertex: 0 for those nobody calls, else one right of its last caller."""
    order = sequence(vertices, links)
    place = {vertex: index for index, vertex in enumerate(order)}
    callers: dict[V, list[V]] = {vertex: [] for vertex in order}
    for source, target in links:
        if source in place and target in place and place[source] < place[target]:
            callers[target].append(source)
    found: dict[V, int] = {}
    for vertex in order:
        found[vertex] = 1 + max((found[caller] for caller in callers[vertex]), default=-1)
    return found


def columns(ranked: Mapping[V, int], links: Links[V]) -> list[list[V]]:
    """Return the vertices of each rank from top to bottom, with few crossings between ranks."""
    columns: list[list[V]] = [[] for _ in range(max(ranked.values(), default=-1) + 1)]
    for vertex in sorted(ranked):
        columns[ranked[vertex]].append(vertex)
    neighbours: dict[V, list[V]] = {vertex: [] for vertex in ranked}
    for source, target in links:
        if source in neighbours and target in neighbours:
            neighbours[source].append(target)
            neighbours[target].append(source)
    height = {
        vertex: index / max(len(column), 1) for column in columns for index, vertex in enumerate(column)
    }
    for sweep in range(4):
        for column in columns if sweep % 2 == 0 else reversed(columns):
            centre = {
                vertex: sum(height[other] for other in near) / len(near) if near else height[vertex]
                for vertex, near in ((vertex, neighbours[vertex]) for vertex in column)
            }
            column.sort(key=lambda vertex: (centre[vertex], _Ordered(vertex)))
            for index, vertex in enumerate(column):
                height[vertex] = (index + 0.5) / len(column)
    return columns


class _Ordered:
    """Makes a vertex usable in a sort key beside numbers."""

    __slots__ = ("_vertex",)

    def __init__(self, vertex: Vertex) -> None:
        self._vertex = vertex

    def __lt__(self, other: "_Ordered") -> bool:
        return self._vertex < other._vertex

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Ordered) and self._vertex == other._vertex

    __hash__ = None  # type: ignore[assignment]  # a sort key, never in a dictionary
