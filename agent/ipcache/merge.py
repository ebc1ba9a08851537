"""The rules by which one prefix gets one answer though several sources speak of it.

Pure. Each source states its answer for a prefix under an owner's name; the best stands, and when it is
withdrawn the next best stands again. Stronger sources win, see `Source`; among equals the newest
statement does, so a node that took over an address (or came back under another name) beats the older.
Input: statements from `cache.py`. Output: the standing answer per prefix.
"""

from dataclasses import dataclass
from enum import IntEnum
from ipaddress import IPv4Address, IPv4Network

from palomar.identity import NumericIdentity


class Source(IntEnum):
    """Who says so, weakest first."""

    WORLD = 0
    """0.0.0.0/0, when nothing better is known."""
    CIDR = 1
    """A prefix that a policy names."""
    NODE = 2
    """An address of another node."""
    REMOTE = 3
    """An endpoint on another node."""
    LOCAL = 4
    """An endpoint of this node: its agent knows better than the store."""
    HOST = 5
    """This node's own addresses."""


@dataclass(frozen=True, slots=True)
class IpInfo:
    """What is known of a prefix."""

    identity: NumericIdentity
    tunnel_endpoint: IPv4Address | None
    """The node that holds it; None where no tunnel leads to it."""
    source: Source
    node: str = ""
    """`<cluster>/<node>`; empty for world and CIDR."""
    namespace: str = ""
    pod: str = ""
    endpoint_id: int = 0
    """Of a local endpoint; 0 otherwise."""


@dataclass(frozen=True, slots=True)
class _Statement:
    info: IpInfo
    sequence: int


class IpMerge:
    """Statements by prefix and owner."""

    def __init__(self) -> None:
        """Start with none."""
        self._statements: dict[IPv4Network, dict[str, _Statement]] = {}
        self._sequence = 0

    def best(self, network: IPv4Network) -> IpInfo | None:
        """Return the standing answer for exactly this prefix."""
        several = self._statements.get(network)
        if not several:
            return None
        return max(several.values(), key=lambda said: (said.info.source, said.sequence)).info

    def lookup(self, address: IPv4Address) -> IpInfo | None:
        """Return the answer of the longest prefix that holds `address`, as the kernel's trie does."""
        for length in range(32, -1, -1):
            found = self.best(IPv4Network((int(address) >> (32 - length) << (32 - length), length)))
            if found is not None:
                return found
        return None

    def entries(self) -> dict[IPv4Network, IpInfo]:
        """Every prefix with its standing answer."""
        return {network: info for network in self._statements if (info := self.best(network)) is not None}

    def state(self, network: IPv4Network, owner: str, info: IpInfo) -> None:
        """Let `owner` say `info` of `network`; a repetition is not newer than the first time."""
        several = self._statements.setdefault(network, {})
        said = several.get(owner)
        if said is None or said.info != info:
            self._sequence += 1
            several[owner] = _Statement(info, self._sequence)

    def withdraw(self, network: IPv4Network, owner: str) -> None:
        """Forget what `owner` said of `network`; nothing said is no error."""
        several = self._statements.get(network, {})
        several.pop(owner, None)
        if not several:
            self._statements.pop(network, None)

    def stated_by(self, owner: str) -> set[IPv4Network]:
        """Return the prefixes that `owner` speaks of. O(prefixes)."""
        return {network for network, several in self._statements.items() if owner in several}
