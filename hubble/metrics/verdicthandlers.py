"""Metrics of what was decided: drops, policy verdicts, flows out of the cluster.

Pure. What counts where is Hubble's: see docs/flow-metrics.md.
"""

from collections.abc import Iterator

import numpy as np

from hubble import replies
from hubble.flowmetrics import drop_name, verdict_name
from hubble.metrics.contexts import Indices
from hubble.metrics.family import Base, Family, Labels
from hubble.metrics.packethandlers import ACK, SYN, port_keys
from hubble.metrics.view import PASSED, PROTOCOLS, TCP, BlockView
from palomar.drop import DropReason
from palomar.identity import Reserved
from palomar.verdict import EventType, PolicyMatchType, TrafficDirection, Verdict

_DIRECTIONS = {TrafficDirection.INGRESS: "ingress", TrafficDirection.EGRESS: "egress"}


class DropHandler:
    """Rows with the verdict DROPPED: a drop event and the verdict that caused it are two."""

    family = Family("hubble_drop_total", "Flows dropped.", after=("reason", "protocol"))
    key_bits = 11
    asks_world = False

    def select(self, view: BlockView) -> tuple[Indices | None, Base]:
        """Reason (8 bits), protocol (3)."""
        rows = np.flatnonzero(view.columns["verdict"] == np.uint8(Verdict.DROPPED))
        reasons = view.columns["drop_reason"][rows].astype(np.uint16)
        return rows, reasons << np.uint16(3) | view.protocols[rows]

    def labels(self, base: int) -> Iterator[tuple[Labels, Labels]]:
        """Yield one."""
        yield (), (drop_name(base >> 3), PROTOCOLS[base & 7])


class PolicyHandler:
    """Policy verdicts, but for those on packets of the host itself."""

    family = Family(
        "hubble_policy_verdicts_total", "Policy verdicts.", before=("direction", "match", "action")
    )
    key_bits = 13
    asks_world = False

    def select(self, view: BlockView) -> tuple[Indices | None, Base]:
        """Direction (2 bits), match type (8), verdict (3)."""
        columns = view.columns
        is_verdict = columns["type"] == np.uint8(EventType.POLICY_VERDICT)
        is_verdict &= columns["src_identity"] != np.uint32(Reserved.HOST)
        rows = np.flatnonzero(is_verdict)
        if len(rows) == 0:
            return rows, np.zeros(0, dtype=np.uint32)
        keys = (columns["direction"][rows] & np.uint8(3)).astype(np.uint16) << np.uint16(11)
        keys |= view.block.column("match_type")[rows].astype(np.uint16) << np.uint16(3)
        return rows, keys | view.verdicts[rows]

    def labels(self, base: int) -> Iterator[tuple[Labels, Labels]]:
        """Yield one."""
        match = base >> 3 & 0xFF
        known = match < len(PolicyMatchType)
        yield (
            (
                _DIRECTIONS.get(TrafficDirection(base >> 11), "unknown") if base >> 11 < 3 else "unknown",
                PolicyMatchType(match).display.lower() if known else str(match),
                verdict_name(base & 7).lower(),
            ),
            (),
        )


class FlowsToWorldHandler:
    """Flows that leave the cluster, and those that policy keeps from it."""

    asks_world = True

    def __init__(self, options: frozenset[str]) -> None:
        """`any-drop`, `port`, `syn-only`."""
        self._options = options
        self.key_bits = 22 if "port" in options else 6
        before = ("protocol", "verdict", "port") if "port" in options else ("protocol", "verdict")
        self.family = Family("hubble_flows_to_world_total", "Flows out of the cluster.", before=before)

    def select(self, view: BlockView) -> tuple[Indices | None, Base]:
        """Verdict (3 bits), protocol (3); port (16) where it is asked for."""
        rows = view.rows_to_world()
        if len(rows) == 0:
            return rows, np.zeros(0, dtype=np.uint32)
        protocols = view.protocols[rows]
        chosen = (protocols > 0) & (view.reply_codes[rows] != replies.REPLY)
        if "any-drop" not in self._options:
            dropped = view.columns["verdict"][rows] == Verdict.DROPPED
            chosen &= ~dropped | (view.columns["drop_reason"][rows] == DropReason.POLICY_DENIED)
        if "syn-only" in self._options:
            is_first = view.columns["l4_flags"][rows] & (SYN | ACK) == SYN
            chosen &= (protocols != TCP) | is_first
        rows = rows[chosen]
        if "port" not in self._options:
            return rows, view.outcomes[rows] & np.uint8(PASSED - 1)
        return rows, view.verdicts[rows].astype(np.uint32) << np.uint32(19) | port_keys(view, rows)

    def labels(self, base: int) -> Iterator[tuple[Labels, Labels]]:
        """Yield one."""
        if "port" in self._options:
            yield (PROTOCOLS[base >> 16 & 7], verdict_name(base >> 19), str(base & 0xFFFF)), ()
        else:
            yield (PROTOCOLS[base & 7], verdict_name(base >> 3)), ()
