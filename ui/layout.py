"""Where each workload's card stands: boxes of namespaces, inside them columns by who calls whom.

Pure. Input: workloads and who calls whom; output: an `Arrangement` of slots, and its geometry in map units
(pixels at zoom 1). Positions are stable: a card keeps its slot while others come and go, one that returns
gets its old slot back, a newcomer takes a free one. Only when more newcomers come than half of what stands
there (the first seconds) everything is arranged anew.
"""

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

from ui.layering import columns, ranks, sequence
from ui.names import Workload

CARD_WIDTH, CARD_HEIGHT = 142, 50
ROW_GAP, COLUMN_GAP, SUBCOLUMN_GAP = 24, 144, 28
"""A column gap holds the longest usual label, `✕ 8080/TCP · 1.5/s`, beside its arrow head."""
WIDEST_ROW_GAP = 104
BOX_PADDING, BOX_TITLE = 18, 26
BOX_GAP_X, BOX_GAP_Y = 122, 24
ASPECT = 1.9
"""Width to height that the whole map aims at: a wide window's."""
SPREAD_ASPECT = 2.8
"""A map wider than this gets more room between its rows, for lines and labels."""
WIDEST, ALWAYS_WIDE = 3.4, 1_700
"""A map wider than this (in heights; and in units) is folded: boxes stand in calling order, not in ranks."""
MAX_RANKS = 5
KEPT_ABSENT = 400
"""Slots kept for cards that are not there now."""

Calls = Collection[tuple[Workload, Workload]]


@dataclass(frozen=True, slots=True)
class Slot:
    """A card's place inside its box."""

    rank: int
    index: int
    """From the top; columns longer than the box's `rows` go on in a second one beside."""


@dataclass(frozen=True, slots=True)
class Box:
    """A namespace's place: boxes stand in columns, left calls right."""

    column: int
    rows: int
    """Cards that stand above each other before a rank wraps."""


@dataclass(frozen=True, slots=True)
class Arrangement:
    """Who stands where; handed back for the next one."""

    slots: Mapping[Workload, Slot]
    """Also of cards that are not there now."""
    boxes: Mapping[str, Box]
    """In order from top to bottom within their columns."""
    present: frozenset[Workload]
    row_gap: float = ROW_GAP
    """Between cards of a column; kept until everything is arranged anew, so that nobody moves."""


@dataclass(frozen=True, slots=True)
class Rect:
    """Map units, y downwards."""

    x: float
    y: float
    width: float
    height: float

    @property
    def right(self) -> float:
        """Right border."""
        return self.x + self.width

    @property
    def bottom(self) -> float:
        """Lower border."""
        return self.y + self.height


@dataclass(frozen=True, slots=True)
class Geometry:
    """Rectangles of present cards and their boxes."""

    cards: Mapping[Workload, Rect]
    boxes: Mapping[str, Rect]
    size: tuple[float, float]


NOTHING = Arrangement({}, {}, frozenset())


def arrange(workloads: Collection[Workload], calls: Calls, previous: Arrangement = NOTHING) -> Arrangement:
    """Give every workload a slot, keeping those of `previous` where that still makes a map."""
    present = frozenset(workloads)
    newcomers = present - previous.slots.keys()
    if 2 * len(newcomers) > len(previous.present) or not previous.present & present:
        return _arrange_anew(present, calls) if present else previous
    slots = dict(previous.slots)
    boxes = dict(previous.boxes)
    ranked = {workload: slots[workload].rank for workload in present if workload in slots}
    for workload in sorted(newcomers):
        if workload.namespace not in boxes:
            last = max((box.column for box in boxes.values()), default=-1)
            boxes[workload.namespace] = Box(last + 1 if len(boxes) < 4 else last, 6)
        rank = _rank_beside(workload, calls, ranked)
        taken = {
            slot.index
            for other, slot in slots.items()
            if other.namespace == workload.namespace and slot.rank == rank
        }
        slots[workload] = Slot(rank, next(index for index in range(len(taken) + 1) if index not in taken))
        ranked[workload] = rank
    return Arrangement(_without_oldest_absent(slots, present), boxes, present, previous.row_gap)


def _arrange_anew(present: frozenset[Workload], calls: Calls) -> Arrangement:
    groups: dict[str, list[Workload]] = {}
    for workload in sorted(present):
        groups.setdefault(workload.namespace, []).append(workload)
    slots: dict[Workload, Slot] = {}
    rows: dict[str, int] = {}
    for namespace, members in groups.items():
        inside = [(a, b) for a, b in calls if a.namespace == b.namespace == namespace]
        ranked = _dense(ranks(members, inside))
        # A little taller than wide: columns cost the gap that their labels need.
        rows[namespace] = max(4, math.ceil(1.6 * math.sqrt(len(members))))
        for rank, column in enumerate(columns(ranked, inside)):
            slots.update({workload: Slot(rank, index) for index, workload in enumerate(column)})
    between = {(a.namespace, b.namespace) for a, b in calls if a.namespace != b.namespace}
    order = sequence(list(groups), sorted(between))
    sizes = {name: _box_size(rows[name], [slots[member] for member in groups[name]]) for name in order}
    ranked_boxes = _rank_boxes(order, ranks(order, sorted(between)), rows)
    width, height = _extent(ranked_boxes, sizes)
    fits = width <= max(ALWAYS_WIDE, WIDEST * height)
    boxes = ranked_boxes if fits else _pack(order, sizes, rows)
    return _spread(Arrangement(slots, boxes, present))


def _spread(arrangement: Arrangement) -> Arrangement:
    """Widen the gaps between rows of a map that is too wide for its height."""
    width, height = geometry(arrangement).size
    _, higher = geometry(replace(arrangement, row_gap=ROW_GAP + 1)).size
    if higher <= height:
        return arrangement
    wanted = ROW_GAP + math.floor((width / SPREAD_ASPECT - height) / (higher - height))
    return replace(arrangement, row_gap=min(max(wanted, ROW_GAP), WIDEST_ROW_GAP))


def _rank_boxes(order: list[str], ranked: Mapping[str, int], rows: Mapping[str, int]) -> dict[str, Box]:
    return {
        name: Box(ranked[name], rows[name]) for name in sorted(order, key=lambda name: (ranked[name], name))
    }


def _extent(boxes: Mapping[str, Box], sizes: Mapping[str, tuple[float, float]]) -> tuple[float, float]:
    widths: dict[int, float] = {}
    heights: dict[int, float] = {}
    for name, box in boxes.items():
        widths[box.column] = max(widths.get(box.column, 0.0), sizes[name][0] + BOX_GAP_X)
        heights[box.column] = heights.get(box.column, 0.0) + sizes[name][1] + BOX_GAP_Y
    return sum(widths.values()), max(heights.values(), default=0.0)


def _dense(ranked: dict[Workload, int]) -> dict[Workload, int]:
    deepest = max(ranked.values(), default=0)
    if deepest <= MAX_RANKS:
        return ranked
    return {workload: rank * MAX_RANKS // deepest for workload, rank in ranked.items()}


def _pack(
    order: list[str], sizes: Mapping[str, tuple[float, float]], rows: Mapping[str, int]
) -> dict[str, Box]:
    """Fill columns of boxes in calling order, as high as makes the whole about ASPECT wide."""
    area = sum((width + BOX_GAP_X) * (height + BOX_GAP_Y) for width, height in sizes.values())
    limit = max(math.sqrt(area / ASPECT), *(height for _, height in sizes.values()))
    boxes: dict[str, Box] = {}
    column, filled = 0, 0.0
    for name in order:
        height = sizes[name][1] + BOX_GAP_Y
        if filled and filled + height > limit + BOX_GAP_Y:
            column, filled = column + 1, 0.0
        boxes[name] = Box(column, rows[name])
        filled += height
    return boxes


def _rank_beside(workload: Workload, calls: Calls, ranked: Mapping[Workload, int]) -> int:
    callers = [ranked[a] for a, b in calls if b == workload and a in ranked and a.namespace == b.namespace]
    if callers:
        return min(max(callers) + 1, MAX_RANKS)
    callees = [ranked[b] for a, b in calls if a == workload and b in ranked and a.namespace == b.namespace]
    return max(min(callees) - 1, 0) if callees else 0


def _without_oldest_absent(slots: dict[Workload, Slot], present: frozenset[Workload]) -> dict[Workload, Slot]:
    absent = [workload for workload in slots if workload not in present]
    for workload in absent[: max(0, len(absent) - KEPT_ABSENT)]:
        del slots[workload]
    return slots


def _box_size(rows: int, slots: Collection[Slot], row_gap: float = ROW_GAP) -> tuple[float, float]:
    _, width = _rank_offsets(rows, slots)
    height_cards = max((min(slot.index + 1, rows) for slot in slots), default=1)
    height = BOX_TITLE + 2 * BOX_PADDING + height_cards * (CARD_HEIGHT + row_gap) - row_gap
    return width + 2 * BOX_PADDING, height


def _rank_offsets(rows: int, slots: Collection[Slot]) -> tuple[dict[int, float], float]:
    """Return x of each rank inside the padding, and the width of all."""
    widest: dict[int, int] = {}
    for slot in slots:
        widest[slot.rank] = max(widest.get(slot.rank, 1), slot.index // rows + 1)
    offsets: dict[int, float] = {}
    x = 0.0
    for rank in sorted(widest):
        offsets[rank] = x
        x += widest[rank] * CARD_WIDTH + (widest[rank] - 1) * SUBCOLUMN_GAP + COLUMN_GAP
    return offsets, max(x - COLUMN_GAP, CARD_WIDTH)


def geometry(arrangement: Arrangement) -> Geometry:
    """Turn slots into rectangles; boxes keep room for cards that are absent now."""
    members: dict[str, list[Workload]] = {}
    for workload in arrangement.slots:
        members.setdefault(workload.namespace, []).append(workload)
    inhabited = {workload.namespace for workload in arrangement.present}
    sizes = {
        name: _box_size(
            box.rows, [arrangement.slots[member] for member in members.get(name, [])], arrangement.row_gap
        )
        for name, box in arrangement.boxes.items()
        if name in inhabited
    }
    used = sorted({arrangement.boxes[name].column for name in sizes})
    heights = {
        column: sum(sizes[name][1] + BOX_GAP_Y for name in sizes if arrangement.boxes[name].column == column)
        - BOX_GAP_Y
        for column in used
    }
    tallest = max(heights.values(), default=0.0)
    boxes: dict[str, Rect] = {}
    x = 0.0
    for column in used:
        # Columns hang on a common centre line: the eye follows calls across, not down to the corner.
        y = (tallest - heights[column]) / 2
        names = [name for name in sizes if arrangement.boxes[name].column == column]
        for name in names:
            boxes[name] = Rect(x, y, *sizes[name])
            y += sizes[name][1] + BOX_GAP_Y
        x += max(sizes[name][0] for name in names) + BOX_GAP_X
    return Geometry(_cards(arrangement, members, boxes), boxes, (max(x - BOX_GAP_X, 0.0), tallest))


def _cards(
    arrangement: Arrangement, members: Mapping[str, list[Workload]], boxes: Mapping[str, Rect]
) -> dict[Workload, Rect]:
    cards: dict[Workload, Rect] = {}
    for name, rect in boxes.items():
        rows = arrangement.boxes[name].rows
        slots = {workload: arrangement.slots[workload] for workload in members[name]}
        offsets, _ = _rank_offsets(rows, slots.values())
        pitch = CARD_HEIGHT + arrangement.row_gap
        inner = rect.height - BOX_TITLE - 2 * BOX_PADDING + arrangement.row_gap
        filled = {
            rank: min(rows, 1 + max(slot.index for slot in slots.values() if slot.rank == rank))
            for rank in offsets
        }
        for workload, slot in slots.items():
            if workload not in arrangement.present:
                continue
            # Shorter columns are centred in their box.
            free = inner - filled[slot.rank] * pitch
            cards[workload] = Rect(
                rect.x
                + BOX_PADDING
                + offsets[slot.rank]
                + (slot.index // rows) * (CARD_WIDTH + SUBCOLUMN_GAP),
                rect.y + BOX_TITLE + BOX_PADDING + free / 2 + (slot.index % rows) * pitch,
                CARD_WIDTH,
                CARD_HEIGHT,
            )
    return cards
