"""The service map as a scene of boxes, cards and edges, and the difference between two scenes.

Pure. Input: edge counts of `ui.edgetable` and an arrangement of `ui.layout`; output: plain values keyed by id
that the page draws (`assets/map.js`). Everything a person reads is decided here: texts, widths, what
is shown and what is said to be hidden. Colours are the style sheet's.
"""

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from ui import units
from ui.edgepath import Curve, Wire, curves
from ui.edgetable import EdgeRecord, Window
from ui.flowdetail import decision_line
from ui.flowrow import EdgeKey, VerdictClass, drop_reason
from ui.labels import Claim, Place, place_labels, text_width
from ui.layout import BOX_PADDING, NOTHING, Arrangement, Geometry, Rect, arrange, geometry
from ui.names import Workload, between, clip, group_title

MAX_DRAWN_EDGES = 1_500
LONGEST_RATE = " · 1.2k/s"
"""Labels keep room for it: their places hold still while rates change."""
CARD_NAME_CHARS = 16
MAX_TITLE_CHARS = 300
BOX_CHAR_WIDTH = 7.7

Payload = dict[str, Any]
Elements = dict[str, Payload]


@dataclass(frozen=True, slots=True)
class EdgeStat:
    """An edge in numbers over the window."""

    record: EdgeRecord
    forwarded: int
    dropped: int
    audit: int
    rate: float
    """Flows per second lately, all verdicts."""
    dropped_rate: float

    @property
    def key(self) -> EdgeKey:
        """Who calls whom on what."""
        return self.record.key

    @property
    def total(self) -> int:
        """Flows over the window."""
        return self.forwarded + self.dropped + self.audit

    @property
    def importance(self) -> tuple[bool, float, int]:
        """Dropped first, then busy ones."""
        return self.dropped > 0, self.rate, self.total


@dataclass(frozen=True, slots=True)
class Scene:
    """Everything drawn, by id."""

    boxes: Elements
    cards: Elements
    edges: Elements
    size: tuple[float, float]
    shown_workloads: int
    all_workloads: int
    shown_edges: int
    all_edges: int
    hidden_labels: int


@dataclass(frozen=True, slots=True)
class Memory:
    """What the next scene keeps of the last: places; curves and labels while cards and wires are the same."""

    arrangement: Arrangement = NOTHING
    placed: Geometry | None = None
    wires: tuple[Wire, ...] = ()
    curves: tuple[Curve, ...] = ()
    label_widths: tuple[float, ...] = ()
    labels: tuple[Place, ...] = ()


EMPTY = Scene({}, {}, {}, (0, 0), 0, 0, 0, 0, 0)


def edge_stats(window: Window) -> list[EdgeStat]:
    """Return every edge that had a flow in the window."""
    totals, rates = window.totals.tolist(), window.rates
    sums, dropped = rates.sum(axis=1).tolist(), rates[:, VerdictClass.DROPPED].tolist()
    return [
        EdgeStat(record, counted[0], counted[1], counted[2], sums[row], dropped[row])
        for row, (record, counted) in enumerate(zip(window.records, totals, strict=True))
        if record is not None and any(counted)
    ]


def chosen_workloads(
    stats: Iterable[EdgeStat], limit: int, keep: Iterable[str], present: Collection[Workload] = ()
) -> tuple[set[Workload], int]:
    """Pick at most `limit` workloads: ids in `keep`, those with drops, those `present` already, busy ones.

    Returns them and the number of all. Who is on the map stays while it has flows: rates change each second.
    """
    weight: dict[Workload, tuple[bool, float, int]] = {}
    for stat in stats:
        for workload in (stat.key.source, stat.key.destination):
            weight[workload] = max(weight.get(workload, (False, 0.0, 0)), stat.importance)
    kept = set(keep)

    def order(workload: Workload) -> tuple[bool, bool, bool, float, int, Workload]:
        dropped, rate, total = weight[workload]
        return workload.id not in kept, not dropped, workload not in present, -rate, -total, workload

    return set(sorted(weight, key=order)[:limit]), len(weight)


def build(
    stats: Sequence[EdgeStat], limit: int, keep: Iterable[str], memory: Memory = Memory()
) -> tuple[Scene, Memory]:
    """Arrange and draw the edges of `stats`; `memory` (the last scene's) keeps cards where they were."""
    chosen, all_workloads = chosen_workloads(stats, limit, keep, memory.arrangement.present)
    possible = [stat for stat in stats if stat.key.source in chosen and stat.key.destination in chosen]
    drawn = sorted(possible, key=lambda stat: stat.importance, reverse=True)[:MAX_DRAWN_EDGES]
    drawn.sort(key=lambda stat: stat.key.id)
    calls = {(stat.key.source, stat.key.destination) for stat in drawn}
    arrangement = arrange(chosen, calls, memory.arrangement)
    placed = memory.placed if arrangement == memory.arrangement else None
    wires = tuple(Wire(stat.key.source.id, stat.key.destination.id) for stat in drawn)
    widths = tuple(text_width(label_room(stat)) for stat in drawn)
    same = placed is not None and wires == memory.wires
    placed = placed or geometry(arrangement)
    if same:
        drawn_curves = memory.curves
    else:
        drawn_curves = tuple(curves(wires, {workload.id: rect for workload, rect in placed.cards.items()}))
    if same and widths == memory.label_widths:
        labels = memory.labels
    else:
        labels = _labels(drawn, drawn_curves, widths, placed)
    scene = Scene(
        boxes={name: _box(name, rect) for name, rect in placed.boxes.items()},
        cards=_cards(stats, placed),
        edges=_edges(drawn, drawn_curves, labels),
        size=placed.size,
        shown_workloads=len(chosen),
        all_workloads=all_workloads,
        shown_edges=len(drawn),
        all_edges=len(stats),
        hidden_labels=sum(not label.fits for label in labels),
    )
    return scene, Memory(arrangement, placed, wires, drawn_curves, widths, labels)


def _box(namespace: str, rect: Rect) -> Payload:
    return {
        **_rect(rect),
        "t": _box_title(namespace, rect),
        "k": "reserved" if namespace.startswith("@") else "namespace",
        "f": group_title(namespace),
    }


def _box_title(namespace: str, rect: Rect) -> str:
    return _cut(group_title(namespace), int((rect.width - 30) / BOX_CHAR_WIDTH))


def _cards(stats: Sequence[EdgeStat], placed: Geometry) -> Elements:
    into: dict[Workload, float] = dict.fromkeys(placed.cards, 0.0)
    out: dict[Workload, float] = dict.fromkeys(placed.cards, 0.0)
    dropped: set[Workload] = set()
    for stat in stats:
        key = stat.key
        if key.destination in into:
            into[key.destination] += stat.rate
        if key.source in out:
            out[key.source] += stat.rate
        if stat.dropped:
            dropped.update((key.source, key.destination))
    return {
        workload.id: {
            **_rect(rect),
            "t": _cut(workload.name, CARD_NAME_CHARS),
            "s": _traffic(into[workload], out[workload]),
            "k": "reserved" if workload.reserved else "workload",
            "d": int(workload in dropped),
            "f": f"{group_title(workload.namespace)} / {workload.name}",
        }
        for workload, rect in placed.cards.items()
    }


def _traffic(into: float, out: float) -> str:
    parts = [f"in {units.rate(into)}" if into > 0 else "", f"out {units.rate(out)}" if out > 0 else ""]
    return " · ".join(part for part in parts if part) or "quiet"


def _labels(
    drawn: Sequence[EdgeStat], drawn_curves: Sequence[Curve], widths: Sequence[float], placed: Geometry
) -> tuple[Place, ...]:
    """Place the labels of dropped edges first, then of those with more flows."""
    order = sorted(
        range(len(drawn)), key=lambda index: (not drawn[index].dropped, -drawn[index].total, index)
    )
    claims = [Claim(widths[index], drawn_curves[index].points) for index in order]
    found = dict(
        zip(order, place_labels(claims, [*placed.cards.values(), *_box_titles(placed)]), strict=True)
    )
    return tuple(found[index] for index in range(len(drawn)))


def _box_titles(placed: Geometry) -> list[Rect]:
    return [
        Rect(rect.x + BOX_PADDING, rect.y + 12, len(_box_title(name, rect)) * BOX_CHAR_WIDTH, 18)
        for name, rect in placed.boxes.items()
    ]


def _edges(drawn: Sequence[EdgeStat], drawn_curves: Sequence[Curve], labels: Sequence[Place]) -> Elements:
    return {
        stat.key.id: {
            "a": stat.key.source.id,
            "b": stat.key.destination.id,
            "p": curve.path,
            "t": edge_label(stat),
            "x": label.x,
            "y": label.y,
            "k": edge_kind(stat),
            "w": _width(stat.rate),
            "l": int(label.fits),
            "f": _edge_title(stat),
        }
        for stat, curve, label in zip(drawn, drawn_curves, labels, strict=True)
    }


def edge_kind(stat: EdgeStat) -> str:
    """`dropped` as soon as one flow was, `audit`, `idle` without a flow lately, else `forwarded`."""
    if stat.dropped:
        return "dropped"
    if stat.audit:
        return "audit"
    return "forwarded" if stat.rate > 0 else "idle"


def edge_label(stat: EdgeStat) -> str:
    """`8080/TCP · 12/s`; a dropped edge is marked `✕ 6379/TCP · 3/s`."""
    rate = units.rate(stat.dropped_rate if stat.dropped else stat.rate)
    return _service(stat) + (f" · {rate}" if rate else "")


def label_room(stat: EdgeStat) -> int:
    """Return how many characters the label of this edge may ever have."""
    return len(_service(stat)) + len(LONGEST_RATE)


def _service(stat: EdgeStat) -> str:
    return f"✕ {stat.key.service}" if stat.dropped else stat.key.service


def _edge_title(stat: EdgeStat) -> str:
    lines = [f"{between(stat.key.source.name, stat.key.destination.name)}  {stat.key.service}"]
    if stat.dropped and stat.forwarded and stat.dropped_rate > 0:
        lines.append(f"{units.rate(stat.dropped_rate)} dropped of {units.rate(stat.rate)}")
    if stat.dropped and stat.record.latest_dropped:
        latest = stat.record.latest_dropped[-1].message
        lines.append(f"dropped: {drop_reason(latest) or 'no reason given'}")
        lines.append(clip(decision_line(latest), MAX_TITLE_CHARS))
    elif stat.audit:
        audited = (row for row in reversed(stat.record.latest) if row.verdict is VerdictClass.AUDIT)
        lines += [clip(decision_line(row.message), MAX_TITLE_CHARS) for row in islice(audited, 1)]
    return "\n".join(lines)


def _width(rate: float) -> float:
    """Line width: a step per factor of ten, so that it holds still."""
    return 1.25 + 0.5 * min(max(round(math.log10(rate + 1) * 2), 0), 6) / 2


def _rect(rect: Rect) -> Payload:
    return {"x": round(rect.x), "y": round(rect.y), "w": round(rect.width), "h": round(rect.height)}


def _cut(text: str, limit: int) -> str:
    return text if len(text) <= limit else f"{text[: limit - 1]}…"


def difference(old: Elements, new: Elements) -> Payload:
    """Return what turns `old` into `new`: changed fields by id under `set`, ids under `del`."""
    changed: Elements = {}
    for key, payload in new.items():
        before = old.get(key)
        if before is None:
            changed[key] = payload
        elif before != payload:
            changed[key] = {name: value for name, value in payload.items() if before.get(name) != value}
    gone = [key for key in old if key not in new]
    answer: Payload = {}
    if changed:
        answer["set"] = changed
    if gone:
        answer["del"] = gone
    return answer


def scene_difference(old: Scene, new: Scene) -> Payload:
    """Return the difference of two scenes; empty where nothing is to be drawn."""
    parts: Mapping[str, Payload] = {
        "boxes": difference(old.boxes, new.boxes),
        "cards": difference(old.cards, new.cards),
        "edges": difference(old.edges, new.edges),
    }
    answer: Payload = {name: part for name, part in parts.items() if part}
    if old.size != new.size:
        answer["size"] = [round(new.size[0]), round(new.size[1])]
    return answer
