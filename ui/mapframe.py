"""Map, timeline and edges at a moment, made once for all pages that show the same.

Pure; time is an argument. Input: the model and a page's state; output: a `MapFrame` that pages compare with
what they were sent. Pages of equal filters and selection share one for FRAME_NS: ten open pages do not draw
the same map ten times. A page that was tidied has a lineage of its own: its cards move for nobody else. Not
here: the flow table, which each page gets as fresh as it asks (`ui.view`).
"""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import count

from ui import servicemap
from ui.edgetable import BUCKET_NS
from ui.flowrow import EdgeKey
from ui.model import Model
from ui.selection import selected_stat, stats_shown
from ui.servicemap import EdgeStat, Memory, Scene
from ui.state import PageState

FRAME_NS = 900_000_000
"""A page asks once a second, so a lone one never sees an old frame; rates are means of ten seconds."""
IDLE_NS = 5_000_000_000
"""A frame that nobody asked for is forgotten with its places."""
MAX_FRAMES = 32
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
class MapFrame:
    """What the pages of one selection show besides the flow table."""

    at_ns: int
    scene: Scene
    memory: Memory
    timeline: Timeline
    stats: Sequence[EdgeStat]
    """Edges that the filters leave."""
    all_edges: int
    """Edges without the filters."""
    namespaces: Sequence[str]
    """Groups seen in the window, whatever the filters say."""


@dataclass(frozen=True, slots=True)
class FrameKey:
    """What a frame depends on."""

    state: PageState
    lineage: int = 0
    """0 is everybody's."""

    @classmethod
    def of(cls, state: PageState, lineage: int) -> "FrameKey":
        """Leave out of the state what changes neither map nor timeline."""
        return cls(replace(state, flow="", theme="", paused=False), lineage)

    def arranges_like(self, other: "FrameKey") -> bool:
        """Tell whether cards keep their places between the two: selecting does not move them."""
        return self.lineage == other.lineage and _arranged(self.state) == _arranged(other.state)


class MapFrames:
    """Frames by what they depend on. Not thread-safe: asked for under the model's lock."""

    def __init__(self, shared_ns: int = FRAME_NS) -> None:
        """Share a frame for so long; 0 makes each anew."""
        self._shared_ns = shared_ns
        self._frames: OrderedDict[FrameKey, MapFrame] = OrderedDict()
        self._lineages = count(1)
        self.made = 0

    def __len__(self) -> int:
        """Count the frames kept."""
        return len(self._frames)

    def new_lineage(self) -> int:
        """Return a lineage that no frame has yet."""
        return next(self._lineages)

    def frame(
        self, model: Model, key: FrameKey, now_ns: int, own: tuple[FrameKey, Memory] | None = None
    ) -> MapFrame:
        """Return the frame of `key`; `own`, what the page showed last, gives places where no frame does."""
        while self._frames and next(iter(self._frames.values())).at_ns < now_ns - IDLE_NS:
            self._frames.popitem(last=False)
        found = self._frames.get(key)
        if found is not None and 0 <= now_ns - found.at_ns < self._shared_ns:
            return found
        made = make_frame(model, key.state, now_ns, self._places(key, found, own))
        self.made += 1
        self._frames.pop(key, None)
        self._frames[key] = made
        if len(self._frames) > MAX_FRAMES:
            self._frames.popitem(last=False)
        return made

    def _places(self, key: FrameKey, found: MapFrame | None, own: tuple[FrameKey, Memory] | None) -> Memory:
        if found is not None:
            return found.memory
        if own is not None and own[0].arranges_like(key):
            return own[1]
        alike = (frame for other, frame in reversed(self._frames.items()) if other.arranges_like(key))
        kin = next(alike, None)
        return kin.memory if kin is not None else Memory()


def make_frame(model: Model, state: PageState, now_ns: int, memory: Memory) -> MapFrame:
    """Count, arrange and draw. O(edges)."""
    window = model.edges.window(now_ns, state.window_s * 1_000_000_000 // BUCKET_NS)
    every = servicemap.edge_stats(window)
    stats = stats_shown(every, state)
    keep = [state.workload, *_ends(state.edge, every)]
    scene, memory = servicemap.build(stats, state.limit, keep, memory)
    picked = [stat.record.row for stat in stats if selected_stat(stat, state)]
    if not (state.filtered or state.edge or state.workload):
        picked = list(range(len(window.records)))
    sides = {side for stat in every for side in (stat.key.source.namespace, stat.key.destination.namespace)}
    return MapFrame(
        at_ns=now_ns,
        scene=scene,
        memory=memory,
        timeline=_timeline(window.timeline(picked).tolist(), window.first_ns),
        stats=stats,
        all_edges=len(every),
        namespaces=sorted(sides),
    )


def _arranged(state: PageState) -> PageState:
    return replace(state, edge="", workload="", flow="", theme="", paused=False, window_s=0, verdict="")


def _ends(edge_id: str, stats: Sequence[EdgeStat]) -> tuple[str, ...]:
    key: EdgeKey | None = next((stat.key for stat in stats if edge_id and stat.key.id == edge_id), None)
    return (key.source.id, key.destination.id) if key is not None else ()


def _timeline(counts: list[list[int]], first_ns: int) -> Timeline:
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
