"""Cookies: the same rules have the same number, in every process; collisions and users are counted."""

import pytest

from agent.policy import cookie as module
from agent.policy.cookie import Cause, CookieTable, Reason, first_number, reasons_of
from agent.policy.resolve import EndpointPolicy
from tests.agent.policy.cast import API, CLIENT, SUBJECT, decide, document, engine, parsed

RULES = document(
    {
        "ingress": [{"fromEndpoints": [{"matchLabels": {"app": "api"}}]}],
        "ingressDeny": [{"fromEndpoints": [{"matchLabels": {"app": "client"}}]}],
    }
)
OTHER = document({"egress": [{"toEntities": ["world"]}]}, name="other")


def policy(*documents: dict[str, object]) -> EndpointPolicy:
    return engine(*parsed(*documents)).policy(SUBJECT)


def test_every_deciding_set_of_rules_has_a_cookie() -> None:
    """Allow, deny and default deny of the same policy are three; no rule is 0."""
    table = CookieTable()
    found = engine(*parsed(RULES))
    change = table.set_policy(7, found.policy(SUBJECT))
    causes = {reason.cause: number for number, reason in change.published.items()}
    assert set(causes) == set(Cause)
    assert len(set(causes.values())) == 3
    allowed, denied = decide(found, API).entry, decide(found, CLIENT).entry
    assert allowed is not None
    assert denied is not None
    assert table.of_entry(allowed) == causes[Cause.ALLOW]
    assert table.of_entry(denied) == causes[Cause.DENY]
    assert table.of_default_deny(found.policy(SUBJECT), egress=False) == causes[Cause.DEFAULT_DENY]
    assert table.of_default_deny(found.policy(SUBJECT), egress=True) == 0
    opened = decide(found, API, egress=True).entry
    assert opened is not None
    assert table.of_entry(opened) == 0
    reason = table.reason(causes[Cause.ALLOW])
    assert reason is not None
    assert {str(rule) for rule in reason.rules} == {"demo/p ingress[0]"}
    assert table.reasons() == change.published


def test_cookies_are_the_same_after_a_restart() -> None:
    """Whatever was there before and at whatever revision; the number is written down here."""
    one, two = CookieTable(), CookieTable()
    first = one.set_policy(1, policy(RULES)).published
    two.set_policy(1, policy(OTHER))
    second = two.set_policy(1, policy(OTHER, RULES)).published
    assert first.keys() <= second.keys()
    reason = next(reason for reason in first.values() if reason.cause is Cause.ALLOW)
    assert first_number(reason) == 4079654678


def test_cookies_live_as_long_as_an_endpoint_uses_them() -> None:
    """Published once, retired with the last user."""
    table = CookieTable()
    found = policy(RULES)
    numbers = set(table.set_policy(1, found).published)
    assert table.set_policy(2, found).published == {}
    assert table.set_policy(2, found).retired == ()
    assert table.remove(1).retired == ()
    assert set(table.set_policy(2, policy(OTHER)).retired) == numbers
    assert table.remove(2).retired
    assert table.reasons() == {}
    assert table.remove(2).retired == ()


def test_a_new_revision_of_the_same_rules_is_published_under_the_same_number() -> None:
    """Once, not for each endpoint."""
    table = CookieTable()
    found = engine(*parsed(RULES))
    before = table.set_policy(1, found.policy(SUBJECT)).published
    again = document(RULES["spec"])
    again["spec"]["description"] = "changed"
    changed = found.change_policies(parsed(again)).changed[SUBJECT]
    after = table.set_policy(1, changed).published
    assert after.keys() == before.keys()
    assert {rule.revision for reason in after.values() for rule in reason.rules} == {3}
    assert table.set_policy(2, changed).published == {}


def test_sets_with_the_same_hash_get_different_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    """The next free one, around the end of the range, never 0."""
    monkeypatch.setattr(module, "first_number", lambda reason: module.MAX_COOKIE)
    table = CookieTable()
    published = table.set_policy(1, policy(RULES)).published
    assert sorted(published) == [1, 2, module.MAX_COOKIE]
    assert len(set(published.values())) == 3


def test_the_canonical_text_tells_causes_and_rules_apart() -> None:
    """The hash is over what names the rules, in a fixed order."""
    reasons = reasons_of(policy(RULES, OTHER))
    texts = {reason.canonical() for reason in reasons}
    assert len(texts) == len(reasons)
    whole = frozenset(rule for reason in reasons for rule in reason.rules)
    assert (
        Reason(Cause.ALLOW, whole).canonical()
        == Reason(Cause.ALLOW, frozenset(sorted(whole, key=str))).canonical()
    )
