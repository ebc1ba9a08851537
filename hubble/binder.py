"""Names for the addresses of a batch: every row gets a reference for its source and one for its destination.

Pure but for the interning of new names. Input: rows of a batch and what the agent said (`bind`, `identity`,
`default_deny`); output: `src_ref` and `dst_ref` of the rows, and the cookie of the policies behind a default
deny.

The name follows the address as the agent last said it; the numeric identity stays the packet's own. An
address nobody named gets the reference of its identity with the labels known by then, an unknown identity a
reference that holds just the number. Rows stored before their address was named (an endpoint being created)
keep what they have: names are bound from the moment they arrive on.
"""

from collections.abc import Callable
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any

import numpy as np
import numpy.typing as npt

from hubble.flowendpoint import FlowEndpoint
from hubble.reftable import RefTable
from palomar.drop import DropReason
from palomar.identity import reserved_name
from palomar.verdict import TrafficDirection

Column = npt.NDArray[Any]
Intern = Callable[[FlowEndpoint, str], int]

_IPV6 = np.uint8(0x01)
_SADDR_WORD, _DADDR_WORD = 9, 13
_COOKIE_WORD = 22
_ENDPOINTS = 1 << 16


class Binder:
    """What every address is called now."""

    def __init__(self, intern: Intern) -> None:
        """`intern` gives the reference of an endpoint (`NamesWriter.intern`)."""
        self._intern = intern
        self._ipv4 = RefTable()
        self._ipv6: dict[bytes, int] = {}
        self._identities = RefTable()
        self._labels: dict[int, tuple[str, ...]] = {}
        self._default_deny: dict[int, Column] = {
            int(direction): np.zeros(_ENDPOINTS, dtype=np.uint32)
            for direction in (TrafficDirection.INGRESS, TrafficDirection.EGRESS)
        }

    def bind(self, ip: IPv4Address | IPv6Address, endpoint: FlowEndpoint) -> None:
        """From now on `ip` is `endpoint`."""
        ref = self._intern(endpoint, str(ip))
        if isinstance(ip, IPv4Address):
            self._ipv4.set(_word(ip), ref)
        else:
            self._ipv6[ip.packed] = ref

    def unbind(self, ip: IPv4Address | IPv6Address) -> None:
        """From now on `ip` has no name. Idempotent."""
        if isinstance(ip, IPv4Address):
            self._ipv4.delete(_word(ip))
        else:
            self._ipv6.pop(ip.packed, None)

    def bound(self) -> set[IPv4Address | IPv6Address]:
        """Return the addresses that have a name."""
        names: set[IPv4Address | IPv6Address] = {ip_address(key) for key in self._ipv6}
        return names | {IPv4Address(key.to_bytes(4, "little")) for key in self._ipv4.known()}

    def identity(self, number: int, labels: tuple[str, ...]) -> None:
        """From now on the numeric identity stands for `labels`."""
        if self._labels.get(number) != labels:
            self._labels[number] = labels
            self._identities.delete(number)

    def default_deny(self, endpoint_id: int, ingress: int, egress: int) -> None:
        """Set the cookies (0: none) of what makes an endpoint deny what no rule allows."""
        self._default_deny[int(TrafficDirection.INGRESS)][endpoint_id % _ENDPOINTS] = ingress
        self._default_deny[int(TrafficDirection.EGRESS)][endpoint_id % _ENDPOINTS] = egress

    def apply(self, words: Column, columns: dict[str, Column]) -> None:
        """Bind rows: `words` are their records as u32 of shape (n, 32), `columns` their hot columns.

        Fills the columns `src_ref` and `dst_ref` and the cookies in `words`; the other columns must be
        filled.
        """
        ipv6 = columns["flags"] & _IPV6
        six = np.flatnonzero(ipv6) if ipv6.any() else None
        for word, side in ((_SADDR_WORD, "src"), (_DADDR_WORD, "dst")):
            refs = self._ipv4.lookup(words[:, word].copy())
            if six is not None:
                rows = np.ascontiguousarray(words[six, word : word + 4])
                refs[six] = [self._ipv6.get(row.tobytes(), 0) for row in rows]
            missing = refs == 0
            if missing.any():
                identities = columns[f"{side}_identity"][missing]
                refs[missing] = self._identity_refs(identities)
            columns[f"{side}_ref"][:] = refs
        self._fill_cookies(words, columns)

    def _identity_refs(self, identities: Column) -> Column:
        refs = self._identities.lookup(identities)
        unknown = refs == 0
        if unknown.any():
            for number in np.unique(identities[unknown]).tolist():
                endpoint = FlowEndpoint(identity=number, labels=self._labels_of(number))
                self._identities.set(number, self._intern(endpoint, ""))
            refs = self._identities.lookup(identities)
        return refs

    def _labels_of(self, number: int) -> tuple[str, ...]:
        known = self._labels.get(number)
        if known is not None:
            return known
        reserved = reserved_name(number)
        return (f"reserved:{reserved}",) if reserved else ()

    def _fill_cookies(self, words: Column, columns: dict[str, Column]) -> None:
        denied = columns["drop_reason"] == np.uint8(DropReason.POLICY_DENIED)
        if not denied.any():
            return
        rows = np.flatnonzero(denied)
        rows = rows[words[rows, _COOKIE_WORD] == 0]
        directions = columns["direction"][rows]
        endpoints = columns["endpoint_id"][rows]
        for direction, cookies in self._default_deny.items():
            chosen = directions == direction
            words[rows[chosen], _COOKIE_WORD] = cookies[endpoints[chosen]]


def _word(ip: IPv4Address) -> int:
    """The address as the u32 that a little-endian machine reads from the record's bytes."""
    return int.from_bytes(ip.packed, "little")
