"""Cookies: the 32-bit numbers that stand for "these rules decided" in map entries, events and flows.

A cookie is a hash of the rules' names, so that after a restart the same rules have the same cookie; another
set with the same hash gets the next free number. It holds as long as an endpoint uses it. Pure. Input:
endpoint policies; output: the number for each entry, and what to tell those who show flows.
"""

import hashlib
from collections.abc import Hashable
from dataclasses import dataclass
from enum import Enum

from agent.policy.api import RuleRef
from agent.policy.mapstate import MapEntry
from agent.policy.resolve import EndpointPolicy

NO_COOKIE = 0
"""No rule decided: the direction is open, or the mode closes it."""
MAX_COOKIE = 0xFFFFFFFF


class Cause(Enum):
    """What the rules did."""

    ALLOW = "allow"
    DENY = "deny"
    DEFAULT_DENY = "default-deny"
    """They closed the direction, and none allowed the flow."""


@dataclass(frozen=True, slots=True)
class Reason:
    """A set of rules and what they did together."""

    cause: Cause
    rules: frozenset[RuleRef]

    def canonical(self) -> bytes:
        """Return the text that is hashed: the same for the same rules, whatever their revision."""
        names = sorted(
            "\0".join((ref.kind, ref.policy.namespace, ref.policy.name, ref.path, *ref.labels))
            for ref in self.rules
        )
        return "\1".join((self.cause.value, *names)).encode()


@dataclass(frozen=True, slots=True)
class CookieChange:
    """What to tell: numbers with a new meaning (or a new revision of the same), and numbers gone."""

    published: dict[int, Reason]
    retired: tuple[int, ...]


@dataclass(slots=True)
class _Cookie:
    number: int
    reason: Reason
    revisions: tuple[int, ...]
    users: set[Hashable]


class CookieTable:
    """Cookies in use, by reason and by number."""

    def __init__(self) -> None:
        """Begin empty."""
        self._by_reason: dict[Reason, _Cookie] = {}
        self._by_number: dict[int, _Cookie] = {}
        self._by_entry: dict[MapEntry, int] = {}
        self._used: dict[Hashable, tuple[Reason, ...]] = {}

    def set_policy(self, owner: Hashable, policy: EndpointPolicy) -> CookieChange:
        """Let `owner` use the cookies of `policy` in place of those it used. Cheap where nothing changes."""
        wanted = reasons_of(policy)
        published: dict[int, Reason] = {}
        for reason in wanted:
            cookie = self._by_reason.get(reason) or self._new(reason)
            if not cookie.users or cookie.revisions < _revisions(reason):
                cookie.reason, cookie.revisions = reason, _revisions(reason)
                published[cookie.number] = reason
            cookie.users.add(owner)
        return CookieChange(published, self._release(owner, wanted))

    def remove(self, owner: Hashable) -> CookieChange:
        """Let `owner` use none."""
        return CookieChange({}, self._release(owner, ()))

    def of_entry(self, entry: MapEntry) -> int:
        """Cookie for a map entry of a policy that was set; 0 for one without rules. KeyError otherwise."""
        return self._by_entry[entry] if entry.rules else NO_COOKIE

    def of_default_deny(self, policy: EndpointPolicy, *, egress: bool) -> int:
        """Cookie for what no entry of a policy that was set allows; 0 where no rule closes the direction."""
        rules = policy.egress_default_deny if egress else policy.ingress_default_deny
        return self._by_reason[Reason(Cause.DEFAULT_DENY, rules)].number if rules else NO_COOKIE

    def reason(self, number: int) -> Reason | None:
        """What a cookie in use stands for."""
        cookie = self._by_number.get(number)
        return None if cookie is None else cookie.reason

    def reasons(self) -> dict[int, Reason]:
        """Every cookie in use."""
        return {number: cookie.reason for number, cookie in self._by_number.items()}

    def _new(self, reason: Reason) -> _Cookie:
        number = first_number(reason)
        while number in self._by_number:
            number = number + 1 if number < MAX_COOKIE else 1
        cookie = _Cookie(number, reason, (), set())
        self._by_reason[reason] = self._by_number[number] = cookie
        if reason.cause is not Cause.DEFAULT_DENY:
            self._by_entry[MapEntry(reason.cause is Cause.DENY, reason.rules)] = number
        return cookie

    def _release(self, owner: Hashable, kept: tuple[Reason, ...]) -> tuple[int, ...]:
        retired = []
        for reason in frozenset(self._used.pop(owner, ())).difference(kept):
            cookie = self._by_reason[reason]
            cookie.users.discard(owner)
            if not cookie.users:
                del self._by_reason[reason], self._by_number[cookie.number]
                self._by_entry.pop(MapEntry(reason.cause is Cause.DENY, reason.rules), None)
                retired.append(cookie.number)
        if kept:
            self._used[owner] = kept
        return tuple(sorted(retired))


def reasons_of(policy: EndpointPolicy) -> tuple[Reason, ...]:
    """Every reason that a policy's entries and default denies need a cookie for."""
    found = [
        Reason(Cause.DENY if entry.deny else Cause.ALLOW, entry.rules)
        for entry in policy.distinct
        if entry.rules
    ]
    found += [
        Reason(Cause.DEFAULT_DENY, rules)
        for rules in (policy.ingress_default_deny, policy.egress_default_deny)
        if rules
    ]
    return tuple(dict.fromkeys(found))


def first_number(reason: Reason) -> int:
    """Return the number a reason gets unless another holds it; never 0."""
    digest = hashlib.blake2b(reason.canonical(), digest_size=4).digest()
    return int.from_bytes(digest, "big") or 1


def _revisions(reason: Reason) -> tuple[int, ...]:
    return tuple(sorted(ref.revision for ref in reason.rules))
