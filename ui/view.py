"""What one open page has been sent, and what it needs next.

Pure; the rim calls `update` once per interval under the model's lock. Input: the model, the page's state
and the frames that pages share; output: the difference for the map, the new rows of the table, and
sentences on what is hidden. A page that says it has another version than the last one sent (a lost answer,
a restarted server) gets everything again.
"""

from dataclasses import dataclass, replace
from typing import Any

from ui import servicemap, units
from ui.flowdetail import decision_line
from ui.flowrow import (
    FlowRow,
    VerdictClass,
    clock_text,
    deciding_policies,
    drop_reason,
    extension_of,
    observed_at,
    policy_name,
    tcp_flags,
)
from ui.mapframe import FrameKey, MapFrame, MapFrames
from ui.model import Model
from ui.names import group_title
from ui.selection import row_shown
from ui.servicemap import Payload
from ui.state import PageState

TABLE_ROWS = 100


@dataclass(frozen=True, slots=True)
class Update:
    """What a page gets after one interval."""

    payload: Payload
    """For the browser: `map`, `rows`, `seq`."""
    frame: MapFrame
    """What is on the map and the timeline, for the panel and the frame of the page."""


class PageView:
    """Memory of one open page. Not thread-safe: its owner locks."""

    def __init__(self) -> None:
        """Nothing has been sent."""
        self.seq = 0
        self._scene = servicemap.EMPTY
        self._shown: tuple[FrameKey, MapFrame] | None = None
        self._lineage = 0
        self._state = PageState()
        self._cursor = 0

    def update(
        self,
        model: Model,
        state: PageState,
        page_seq: int,
        now_ns: int,
        tidy: bool = False,
        frames: MapFrames | None = None,
    ) -> Update:
        """Return what brings a page that holds version `page_seq` up to now.

        `tidy` arranges the map anew; `frames` are those of all pages, else this one's alone. A paused page
        keeps what it shows until it asks for something else. O(edges + flows since the last call).
        """
        whole = page_seq != self.seq or page_seq == 0
        held = self._shown if state.paused and self._state.paused and not (whole or tidy) else None
        if whole:
            self._scene, self._cursor = servicemap.EMPTY, 0
        frames = MapFrames(0) if frames is None else frames
        if tidy:
            self._lineage = frames.new_lineage()
        key = FrameKey.of(state, self._lineage)
        if held is not None and held[0] == key:
            frame = held[1]
        else:
            places = (self._shown[0], self._shown[1].memory) if self._shown and not (tidy or whole) else None
            frame = frames.frame(model, key, now_ns, places)
        drawn = (
            servicemap.scene_difference(self._scene, frame.scene) if self._scene is not frame.scene else {}
        )
        new_table = whole or _table_of(self._state) != _table_of(state)
        rows = self._rows(model, state, new_table) if new_table or held is None else {}
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
        payload["notes"] = _map_notes(frame, state, model)
        if new_table or held is None:
            self._cursor = model.newest_seq
        self._scene, self._state, self._shown = frame.scene, state, (key, frame)
        return Update(payload, frame)

    def _rows(self, model: Model, state: PageState, new_table: bool) -> Payload:
        after = 0 if new_table else self._cursor
        shown: list[Payload] = []
        more = 0
        everything = not (state.filtered or state.edge or state.workload)
        for row in model.rows_after(after):
            if not (everything or row_shown(row, state)):
                continue
            if len(shown) < TABLE_ROWS:
                shown.append(row_payload(row))
            elif new_table:
                break  # older flows than fit: no need to count what is scrolled away
            elif everything:
                more = model.newest_seq - after - len(shown)
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
        "d": decision_line(flow) if row.verdict is not VerdictClass.FORWARDED else "",
        "o": observed_at(flow),
        "n": flow.node_name.rpartition("/")[2][:40],
    }


def _table_of(state: PageState) -> PageState:
    return replace(state, flow="", theme="", paused=False, limit=0, window_s=0)


def _map_notes(frame: MapFrame, state: PageState, model: Model) -> list[dict[str, Any]]:
    scene = frame.scene
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
            {"t": f"filters leave {units.exact(scene.all_edges)} of {units.exact(frame.all_edges)} edges"}
        )
    left_out = scene.all_edges - scene.shown_edges
    if left_out:
        notes.append({"t": f"{units.exact(left_out)} edges not drawn"})
    if scene.hidden_labels:
        notes.append({"t": f"{units.exact(scene.hidden_labels)} labels on hover only"})
    if model.edges.unplaced:
        notes.append({"t": f"{units.exact(model.edges.unplaced)} flows beyond the largest map"})
    return notes
