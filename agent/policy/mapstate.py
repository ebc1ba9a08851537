"""The contents of an endpoint's policy map, and the kernel's look-up in them, in pure Python.

Mirrors `struct policy_key` and `policy_decide` of bpf/lib/policy.h. Not a map: nothing here writes; the agent
turns keys and entries into `datapath.abi.policy` ones. Input: resolution; output: the reconciler, `policy
explain` and the property tests that compare this look-up with a plain reading of the rules.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from agent.policy.api import PortRange, RuleRef
from palomar.drop import DropReason
from palomar.verdict import PolicyMatchType, Verdict

ANY_IDENTITY = 0
PORT_BITS = 16


class PortPrefix(NamedTuple):
    """The protocol and port part of a key: an aligned range of ports of one protocol, or all of it.

    A tuple, as is PolicyKey: hashed and compared in C, a map of thousands of entries resolves 5 times faster.
    """

    protocol: int = 0
    """0: any, then without a port."""
    dport: int = 0
    """ICMP: the type."""
    dport_prefix_bits: int = 0
    """0: any port; 16: exactly `dport`; between: the aligned range that `dport` starts."""

    def covers(self, other: "PortPrefix") -> bool:
        """Tell whether every packet of `other` is one of this too."""
        if self.protocol == 0:
            return True
        shift = PORT_BITS - self.dport_prefix_bits
        return (
            self.protocol == other.protocol
            and self.dport_prefix_bits <= other.dport_prefix_bits
            and self.dport >> shift == other.dport >> shift
        )


ALL_PORTS = PortPrefix()


class PolicyKey(NamedTuple):
    """C `struct policy_key`, the same fields in the same order as `datapath.abi.policy.PolicyKey`."""

    identity: int
    """The remote side; 0: any."""
    egress: bool
    protocol: int = 0
    dport: int = 0
    dport_prefix_bits: int = 0

    @property
    def lpm_prefix_length(self) -> int:
        """Bits beyond identity and direction (0, 8..24)."""
        return (8 if self.protocol else 0) + self.dport_prefix_bits

    @property
    def port_prefix(self) -> PortPrefix:
        """The part after identity and direction."""
        return PortPrefix(self.protocol, self.dport, self.dport_prefix_bits)


@dataclass(frozen=True, slots=True)
class MapEntry:
    """What the map says under a key, and which rules made it say so."""

    deny: bool
    rules: frozenset[RuleRef] = frozenset()
    """Empty: no rule, but that the direction is open or localhost is let in."""


MapState = Mapping[PolicyKey, MapEntry]


@dataclass(frozen=True, slots=True)
class Decision:
    """What the kernel would do with the first packet of a flow."""

    verdict: Verdict
    """FORWARDED or DROPPED."""
    match: PolicyMatchType
    drop_reason: DropReason | None = None
    """POLICY_DENIED: no entry; POLICY_DENY: an entry denies."""
    key: PolicyKey | None = None
    entry: MapEntry | None = None


@dataclass(frozen=True, slots=True)
class MapDelta:
    """What to write and what to delete to get from one state to another."""

    upserts: dict[PolicyKey, MapEntry]
    deletes: tuple[PolicyKey, ...]

    def __bool__(self) -> bool:
        """Tell whether there is anything to do."""
        return bool(self.upserts or self.deletes)


def port_prefixes(ports: PortRange) -> tuple[PortPrefix, ...]:
    """Split a range into the fewest aligned prefixes, in ascending order; at most 30."""
    found = []
    first, end = ports.first, ports.last + 1
    while first < end:
        size = first & -first or 1 << PORT_BITS
        while size > end - first:
            size >>= 1
        found.append(PortPrefix(ports.protocol, first, PORT_BITS - size.bit_length() + 1))
        first += size
    return tuple(found)


def lookup(entries: MapState, identity: int, *, egress: bool, protocol: int, dport: int) -> Decision:
    """Decide as the datapath does: one longest-prefix look-up by identity, one for any identity."""
    exact = _longest(entries, identity, egress, protocol, dport)
    if exact is None or not entries[exact].deny:
        wild = _longest(entries, ANY_IDENTITY, egress, protocol, dport)
        if wild is not None and (
            entries[wild].deny or exact is None or wild.lpm_prefix_length > exact.lpm_prefix_length
        ):
            return _decide(wild, entries[wild], any_identity=True)
    if exact is None:
        return Decision(Verdict.DROPPED, PolicyMatchType.NONE, DropReason.POLICY_DENIED)
    return _decide(exact, entries[exact], any_identity=False)


def diff(old: MapState, new: MapState) -> MapDelta:
    """Compute the writes and deletes that turn `old` into `new`."""
    if old is new:
        return MapDelta({}, ())
    upserts = {}
    for key, entry in new.items():
        known = old.get(key)
        if known is not entry and known != entry:
            upserts[key] = entry
    return MapDelta(upserts, tuple(old.keys() - new.keys()))


def _longest(entries: MapState, identity: int, egress: bool, protocol: int, dport: int) -> PolicyKey | None:
    for bits in range(PORT_BITS, -1, -1):
        shift = PORT_BITS - bits
        key = PolicyKey(identity, egress, protocol, dport >> shift << shift, bits)
        if key in entries:
            return key
    key = PolicyKey(identity, egress)
    return key if key in entries else None


def _decide(key: PolicyKey, entry: MapEntry, *, any_identity: bool) -> Decision:
    if key.dport_prefix_bits:
        match = PolicyMatchType.L4_ONLY if any_identity else PolicyMatchType.L3_L4
    elif key.protocol:
        match = PolicyMatchType.PROTO_ONLY if any_identity else PolicyMatchType.L3_PROTO
    else:
        match = PolicyMatchType.ALL if any_identity else PolicyMatchType.L3_ONLY
    if entry.deny:
        return Decision(Verdict.DROPPED, match, DropReason.POLICY_DENY, key, entry)
    return Decision(Verdict.FORWARDED, match, None, key, entry)
