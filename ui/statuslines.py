"""The sentences of the page's frame: is the stream up, what was observed and lost, why the map is empty.

Pure. Input: link and model facts; output: words and a tone. Not here: components (`ui.page`).
"""

from collections.abc import Sequence
from dataclasses import dataclass

from ui import units
from ui.flowrow import clock_text
from ui.hub import Link, LinkPhase
from ui.model import Model
from ui.state import PageState


@dataclass(frozen=True, slots=True)
class Words:
    """A headline, a sentence below, and a tone (`good`, `busy`, `bad`, `plain`)."""

    title: str
    text: str = ""
    tone: str = "plain"
    clear: bool = False
    """Offer to clear the filters."""


def link_words(link: Link, state: PageState) -> Words:
    """Return the pill of the header."""
    if link.phase is LinkPhase.BROKEN:
        return Words("Disconnected", link.server, "bad")
    if link.phase is LinkPhase.CONNECTING:
        return Words("Connecting", link.server, "busy")
    if state.paused:
        return Words("Paused", link.server, "busy")
    return Words("Live", link.server, "good")


def fault_words(faults: Sequence[str]) -> Words | None:
    """Return the line that says what of the address could not be meant."""
    if not faults:
        return None
    return Words("Parts of this address cannot be meant.", f"{'; '.join(faults)}.", "busy")


def banner_words(link: Link, model: Model, now_ns: int) -> Words | None:
    """Return the line under the header while something is wrong."""
    if link.phase is LinkPhase.BROKEN:
        wait_s = max(0, round((link.retry_at_ns - now_ns) / 1e9))
        again = f"Trying again in {wait_s} s" if wait_s else "Trying again now"
        kept = (
            f"Showing what was seen until {clock_text(link.since_ns)[:-4]} UTC. " if model.newest_seq else ""
        )
        return Words(
            f"The flow server at {link.server} does not answer.",
            f"{kept}{again} (attempt {link.attempts + 1}). Cause: {link.reason}",
            "bad",
        )
    away = sorted(
        node.name.rpartition("/")[2]
        for node in model.nodes.values()
        if node.state in ("unavailable", "error")
    )
    if away:
        named = ", ".join(away[:4]) + (f" and {len(away) - 4} more" if len(away) > 4 else "")
        word = "node is" if len(away) == 1 else "nodes are"
        return Words(
            f"{len(away)} {word} unavailable: {named}.",
            "Flows of the others go on; what it sees is missing here.",
            "busy",
        )
    return None


def empty_words(link: Link, model: Model, state: PageState, edges: int, all_edges: bool) -> Words | None:
    """Say why the map is empty; None where it is not. `all_edges`: some edge is there without filters."""
    if edges:
        return None
    if not model.newest_seq:
        if link.phase is LinkPhase.BROKEN:
            return Words(
                "No connection to the flow server",
                f"{link.server}: {link.reason}. "
                "Is the relay or the node's agent running, and is --server right?",
                "bad",
            )
        if link.phase is LinkPhase.CONNECTING:
            return Words("Connecting", f"Asking {link.server} for flows.", "busy")
        return Words(
            "No flows yet",
            "The server answers; nothing has been sent from there yet. "
            "The map draws itself with the first flow.",
        )
    if all_edges and state.filtered:
        return Words(
            "Nothing matches the filters", "There is traffic in this window that they hide.", clear=True
        )
    window = units.duration(state.window_s * 1_000_000_000)
    return Words("Quiet", f"No flow in the last {window}. A longer window may show some.")


def totals_words(model: Model) -> list[tuple[str, str, bool]]:
    """Return the header's numbers: name, value, whether it is bad news."""
    nodes = list(model.nodes.values())
    connected = sum(node.state == "connected" for node in nodes)
    # The nodes' counts where they tell, else what came here.
    observed = max(sum(node.seen_flows for node in nodes), model.server.seen_flows, model.counters.flows)
    answer = [
        ("observed", units.exact(observed), False),
        ("lost", units.exact(model.lost), model.lost > 0),
    ]
    if nodes:
        answer.append(("nodes", f"{connected}/{len(nodes)}", connected < len(nodes)))
    return answer
