"""Identities of CIDRs: one node-local number for each prefix that policy names.

An address that several prefixes hold gets the longest one's identity (through the ipcache), so each carries
the labels of all prefixes that cover it, and a selector of any of them selects it. Counted: a number is
free again when its last user lets go. Pure; the agent keeps the snapshot in a file. Input: prefixes of
policies; output: numbers and labels for the identity cache and the ipcache.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network

from agent.identity.errors import LocalIdentitiesExhaustedError
from palomar.identity import MAX_LOCAL_IDENTITY, MIN_LOCAL_IDENTITY, NumericIdentity, Reserved
from palomar.labels import Label, LabelSet

IpNetwork = IPv4Network | IPv6Network


def cidr_labels(network: IpNetwork) -> LabelSet:
    """`cidr:` labels of the prefix and of every prefix around it, and reserved:world.

    The prefix of length 0 is the world itself: it has no other label.
    """
    world = Label(Reserved.WORLD.label_name, "reserved")
    if network.prefixlen == 0:
        return LabelSet([world])
    around = (network.supernet(new_prefix=bits) for bits in range(network.prefixlen))
    return LabelSet([world, *(Label(str(found), "cidr") for found in (*around, network))])


@dataclass(slots=True)
class _Held:
    identity: NumericIdentity
    users: int


class CidrIdentities:
    """Allocates numbers of the node-local scope to prefixes."""

    def __init__(self, snapshot: Mapping[IpNetwork, int] | None = None) -> None:
        """Keep the numbers of `snapshot` for their prefixes until `forget_snapshot`.

        Numbers outside of the scope, and the second of two equal ones, are not kept.
        """
        self._held: dict[IpNetwork, _Held] = {}
        self._kept: dict[IpNetwork, NumericIdentity] = {}
        self._taken: set[int] = set()
        self._next = int(MIN_LOCAL_IDENTITY)
        for network, number in (snapshot or {}).items():
            if MIN_LOCAL_IDENTITY <= number <= MAX_LOCAL_IDENTITY and number not in self._taken:
                self._kept[network] = NumericIdentity(number)
                self._taken.add(number)

    def acquire(self, network: IpNetwork) -> tuple[NumericIdentity, bool]:
        """Take a prefix into use; return its number, and whether this is its first user.

        Raises LocalIdentitiesExhaustedError.
        """
        held = self._held.get(network)
        if held is not None:
            held.users += 1
            return held.identity, False
        identity = self._kept.pop(network, None)
        if identity is None:
            identity = self._free(network)
        self._held[network] = _Held(identity, 1)
        return identity, True

    def release(self, network: IpNetwork) -> NumericIdentity | None:
        """Let a prefix go; return its number where nobody uses it any more. KeyError if it is not held."""
        held = self._held[network]
        held.users -= 1
        if held.users:
            return None
        del self._held[network]
        self._taken.discard(held.identity)
        return held.identity

    def get(self, network: IpNetwork) -> NumericIdentity | None:
        """Number of a prefix in use."""
        held = self._held.get(network)
        return None if held is None else held.identity

    def snapshot(self) -> dict[IpNetwork, NumericIdentity]:
        """Every prefix in use or kept, with its number: what a restart is given."""
        return {**self._kept, **{network: held.identity for network, held in self._held.items()}}

    def kept(self) -> dict[IpNetwork, NumericIdentity]:
        """Prefixes of the snapshot that nobody has taken into use yet."""
        return dict(self._kept)

    def forget_snapshot(self) -> dict[IpNetwork, NumericIdentity]:
        """Free what of the snapshot nobody took into use; return it, for its ipcache entries are stale."""
        stale = self._kept
        self._kept = {}
        self._taken.difference_update(stale.values())
        return stale

    def _free(self, network: IpNetwork) -> NumericIdentity:
        """Take the next number in turn: one just freed may still be in packets and maps."""
        scope = MAX_LOCAL_IDENTITY - MIN_LOCAL_IDENTITY + 1
        if len(self._taken) >= scope:
            raise LocalIdentitiesExhaustedError(network)
        while self._next in self._taken:
            self._advance()
        number = NumericIdentity(self._next)
        self._taken.add(number)
        self._advance()
        return number

    def _advance(self) -> None:
        self._next = self._next + 1 if self._next < MAX_LOCAL_IDENTITY else int(MIN_LOCAL_IDENTITY)
