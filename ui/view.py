"""What one open page has been sent, and what it needs next.

Pure; the rim calls `update` once per interval under the model's lock. Input: the model and the page's state;
output: the difference for the map, the new rows of the table, the timeline, and sentences on what is hidden.
A page that says it has another version than the last one sent (a lost answer, a restarted server) gets
everything again.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from ui import servicemap, units
from ui.edgetable import BUCKET_NS
from ui.flowrow import (
    FlowRow,
    clock_text,
    deciding_policies,
    drop_reason,
    extension_of,
    observed_at,
    policy_name,
    tcp_flags,
)
from ui.model import Model
from ui.names import group_title
from ui.selection import row_shown, selected_stat, stats_shown
from ui.servicemap import EdgeStat, Memory, Payload, Scene
from ui.state import PageState

TABLE_ROWS = 100
TIMELINE_BARS = 90


@dataclass(frozen=True, slots=True)
class Timeline:
    """Bars of the verdict timeline."""

    starts_ns: Sequence[int]
    step_ns: int
    forwarded: Sequence[int]
    dropped: Sequence[int]
    audit: Sequence[int]


@dataclass(frozen=True, slots=True)
class Update:
    """What a page gets after one interval."""

    payload: Payload
    """For the browser: `map`, `rows`, `seq`."""
    timeline: Timeline
    stats: Sequence[EdgeStat]
    """Edges on the map, for the panel."""
    namespaces: Sequence[str]
    """Groups seen in the window, whatever the filters say."""


class PageView:
    """Memory of one open page. Not thread-safe: its owner locks."""

    def __init__(self) -> None:
        """Nothing has been sent."""
        self.seq = 0
        self._scene = servicemap.EMPTY
        self._memory = Memory()
        self._state = PageState()
        self._cursor = 0

    def update(
        self, model: Model, state: PageState, page_seq: int, now_ns: int, tidy: bool = False
    ) -> Update:
        """Return what brings a page that holds version `page_seq` up to now.

        `tidy` arranges the map anew. O(edges + flows since the last call).
        """
        window = model.edges.window(now_ns, state.window_s * 1_000_000_000 // BUCKET_NS)
        every = servicemap.edge_stats(window)
        stats = stats_shown(every, state)
        whole = page_seq != self.seq or page_seq == 0
        if whole:
            self._scene, self._cursor = servicemap.EMPTY, 0
        if tidy or whole or _other_map(self._state, state):
            self._memory = Memory()
        keep = [state.workload, *_edge_ends(state.edge, every)]
        scene, self._memory = servicemap.build(stats, state.limit, keep, self._memory)
        drawn = servicemap.scene_difference(self._scene, scene)
        new_table = whole or _table_of(self._state) != _table_of(state)
        rows = self._rows(model, state, new_table)
        base, self.seq = self.seq, self.seq + 1
        payload: Payload = {
            "seq": self.seq,
            "base": base,
            "selected": state.edge or state.workload,
            "flow": state.flow,
        }
        if drawn or whole:
            payload["map"] = drawn
        if whole:
            payload["reset"] = True
        if rows:
            payload["rows"] = rows
        payload["notes"] = _map_notes(scene, every, state, model)
        self._scene, self._state, self._cursor = scene, state, model.newest_seq
        picked = [stat.record.row for stat in stats if selected_stat(stat, state)]
        if not (state.filtered or state.edge or state.workload):
            picked = list(range(len(window.records)))
        return Update(
            payload=payload,
            timeline=_timeline(window.timeline(picked).tolist(), window.first_ns, state),
            stats=stats,
            namespaces=sorted(
                {side.namespace for stat in every for side in (stat.key.source, stat.key.destination)}
            ),
        )

    def _rows(self, model: Model, state: PageState, new_table: bool) -> Payload:
        after = 0 if new_table else self._cursor
        shown: list[Payload] = []
        more = 0
        for row in model.rows_after(after):
            if not row_shown(row, state):
                continue
            if len(shown) < TABLE_ROWS:
                shown.append(row_payload(row))
            elif new_table:
                more = -1  # older flows than fit: no need to count what is scrolled away
                break
            else:
                more += 1
        if new_table and len(shown) < TABLE_ROWS:
            shown += self._kept_by_edge(
                model, state, {payload["i"] for payload in shown}, TABLE_ROWS - len(shown)
            )
        if not shown and not new_table:
            return {}
        answer: Payload = {"add": shown}
        if new_table:
            answer["reset"] = True
        if more:
            answer["more"] = more
        return answer

    def _kept_by_edge(self, model: Model, state: PageState, have: set[str], room: int) -> list[Payload]:
        """Find rows that busier edges have pushed out of the common memory."""
        if not (state.edge or state.workload or state.filtered):
            return []
        found: dict[str, FlowRow] = {}
        for record in model.edges.records():
            for row in (*record.latest, *record.latest_dropped):
                if row.uuid not in have and row_shown(row, state):
                    found[row.uuid] = row
        newest = sorted(found.values(), key=lambda row: row.seq, reverse=True)
        return [row_payload(row) for row in newest[:room]]


def row_payload(row: FlowRow) -> Payload:
    """Return what the table shows of a flow; the packet's own direction, not the edge's."""
    flow = row.message
    source, target = row.edge.source, row.edge.destination
    if row.is_reply:
        source, target = target, source
    _, policies = deciding_policies(flow)
    extension = extension_of(flow) if row.verdict else None
    if policies:
        why = policy_name(policies[0]) + (f" +{len(policies) - 1}" if len(policies) > 1 else "")
    elif extension is not None and extension.default_deny_by:
        why = f"default deny by {policy_name(extension.default_deny_by[0])}"
    else:
        why = ""
    reason = drop_reason(flow)
    return {
        "i": row.uuid,
        "t": clock_text(row.time_ns),
        "a": source.name,
        "an": group_title(source.namespace),
        "ai": source.id,
        "b": target.name,
        "bn": group_title(target.namespace),
        "bi": target.id,
        "p": row.edge.service,
        "r": int(row.is_reply),
        "v": row.verdict.word,
        "y": " · ".join(part for part in (reason, why) if part) or tcp_flags(flow),
        "o": observed_at(flow),
        "n": flow.node_name.rpartition("/")[2][:40],
    }


def _other_map(before: PageState, after: PageState) -> bool:
    def shape(state: PageState) -> PageState:
        # Selecting, pausing and colours do not move cards.
        return replace(state, edge="", workload="", flow="", theme="", paused=False, window_s=0, verdict="")

    return shape(before) != shape(after)


def _table_of(state: PageState) -> PageState:
    return replace(state, flow="", theme="", paused=False, limit=0, window_s=0)


def _edge_ends(edge_id: str, stats: Sequence[EdgeStat]) -> tuple[str, ...]:
    for stat in stats:
        if edge_id and stat.key.id == edge_id:
            return stat.key.source.id, stat.key.destination.id
    return ()


def _timeline(counts: list[list[int]], first_ns: int, state: PageState) -> Timeline:
    per_bar = max(1, -(-len(counts) // TIMELINE_BARS))
    bars: list[list[int]] = []
    # Bars end with the newest bucket; the oldest bar may be a short one.
    for end in range(len(counts), 0, -per_bar):
        part = counts[max(0, end - per_bar) : end]
        bars.append([sum(column) for column in zip(*part, strict=True)])
    bars.reverse()
    step_ns = per_bar * BUCKET_NS
    last_ns = first_ns + len(counts) * BUCKET_NS
    starts = [last_ns - (len(bars) - index) * step_ns for index in range(len(bars))]
    return Timeline(
        starts_ns=starts,
        step_ns=step_ns,
        forwarded=[bar[0] for bar in bars],
        dropped=[bar[1] for bar in bars],
        audit=[bar[2] for bar in bars],
    )


def _map_notes(
    scene: Scene, every: Sequence[EdgeStat], state: PageState, model: Model
) -> list[dict[str, Any]]:
    notes: list[dict[str, Any]] = []
    if scene.shown_workloads < scene.all_workloads:
        notes.append(
            {
                "t": f"map shows {units.exact(scene.shown_workloads)} of "
                f"{units.exact(scene.all_workloads)} workloads",
                "more": scene.all_workloads,
            }
        )
    if state.filtered:
        notes.append(
            {"t": f"filters leave {units.exact(scene.all_edges)} of {units.exact(len(every))} edges"}
        )
    left_out = scene.all_edges - scene.shown_edges
    if left_out:
        notes.append({"t": f"{units.exact(left_out)} edges not drawn"})
    if scene.hidden_labels:
        notes.append({"t": f"{units.exact(scene.hidden_labels)} labels on hover only"})
    if model.edges.unplaced:
        notes.append({"t": f"{units.exact(model.edges.unplaced)} flows beyond the largest map"})
    return notes
