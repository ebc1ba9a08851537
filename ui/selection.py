"""Which edges and flows a page's state lets through.

Pure. Input: `ui.state.PageState`; output: tests on edges and rows. Filters (namespace, verdict, text) reduce
everything; a selection (edge, workload) reduces the flow table and the timeline and leaves the map whole.
"""

from collections.abc import Iterable

from ui.flowrow import EdgeKey, FlowRow, VerdictClass, search_text
from ui.servicemap import EdgeStat
from ui.state import PageState


def edge_passes(key: EdgeKey, state: PageState, text_too: bool = True) -> bool:
    """Tell whether namespaces and, unless told not to, text let the edge through."""
    if state.namespaces and not {key.source.namespace, key.destination.namespace} & set(state.namespaces):
        return False
    return not (text_too and state.text) or state.text.lower() in key.id.lower()


def stats_shown(stats: Iterable[EdgeStat], state: PageState) -> list[EdgeStat]:
    """Return the edges of the map."""
    return [stat for stat in stats if _has_verdict(stat, state.verdict) and edge_passes_text(stat, state)]


def edge_passes_text(stat: EdgeStat, state: PageState) -> bool:
    """Like `edge_passes`; text also finds an edge by what its latest flows say."""
    if not edge_passes(stat.key, state, text_too=False):
        return False
    if not state.text or edge_passes(stat.key, state):
        return True
    needle = state.text.lower()
    latest = (*stat.record.latest, *stat.record.latest_dropped)
    return any(needle in search_text(row) for row in latest)


def selected_stat(stat: EdgeStat, state: PageState) -> bool:
    """Tell whether the edge is selected, or touches what is; true where nothing is selected."""
    return _selected(stat.key, state)


def row_shown(row: FlowRow, state: PageState) -> bool:
    """Tell whether a flow belongs into the table."""
    if state.verdict and row.verdict.word != state.verdict:
        return False
    if not _selected(row.edge, state) or not edge_passes(row.edge, state, text_too=False):
        return False
    return not state.text or state.text.lower() in search_text(row)


def _selected(key: EdgeKey, state: PageState) -> bool:
    if state.edge:
        return key.id == state.edge
    return not state.workload or state.workload in (key.source.id, key.destination.id)


def _has_verdict(stat: EdgeStat, verdict: str) -> bool:
    counts = {
        VerdictClass.FORWARDED.word: stat.forwarded,
        VerdictClass.DROPPED.word: stat.dropped,
        VerdictClass.AUDIT.word: stat.audit,
    }
    return counts.get(verdict, 1) > 0
