"""The selector cache: selections that follow identities, and who is told."""

from hypothesis import given
from hypothesis import strategies as st

from agent.policy.selector import WILDCARD, Selector, equals, exists, select
from agent.policy.selectorcache import SelectorCache
from palomar.labels import LabelSet
from tests.agent.policy.cast import API, CLIENT, IDENTITIES, UNKNOWN, WEB, pod

WEB_APPS = select([equals("app", "web")])


def test_a_selector_in_use_selects_known_identities() -> None:
    """Shared by all who take it into use, forgotten with the last."""
    cache = SelectorCache(IDENTITIES)
    one, two = cache.acquire(WEB_APPS), cache.acquire(WEB_APPS)
    assert one is two
    assert WEB in one.identities
    assert API not in one.identities
    cache.release(one)
    assert cache.selectors() == [two]
    cache.release(two)
    assert cache.selectors() == []


def test_only_selectors_whose_selections_change_are_told() -> None:
    """Adding, moving and removing identities."""
    cache = SelectorCache(IDENTITIES)
    web, api = cache.acquire(WEB_APPS), cache.acquire(select([equals("app", "api")]))
    before = web.identities
    assert cache.update({UNKNOWN: pod("app=web")}) == {web}
    assert web.identities == before | {UNKNOWN}
    assert cache.update({UNKNOWN: pod("app=web")}) == frozenset()
    assert cache.update({UNKNOWN: pod("app=api")}) == {web, api}
    assert web.identities == before
    assert cache.update({}, [UNKNOWN]) == {api}
    assert cache.update({}, [UNKNOWN]) == frozenset()
    assert cache.update({CLIENT: pod("app=client", "x=y")}) == frozenset()


def test_the_wildcard_selects_the_number_for_any() -> None:
    """Whatever identities there are."""
    cache = SelectorCache()
    cached = cache.acquire(WILDCARD)
    assert cached.identities == {0}
    assert cache.update(IDENTITIES) == frozenset()
    assert cached.identities == {0}


labelsets = st.frozensets(st.sampled_from(["a=1", "a=2", "b=1", "container:a=1", "reserved:x"])).map(
    LabelSet.parse
)
selectors = st.sampled_from(
    [
        select([equals("a", "1")]),
        select([equals("a", "1", "any")]),
        select([exists("b"), equals("a", "2")]),
        select([exists("x", "reserved")]),
        WILDCARD,
    ]
)
batches = st.lists(
    st.tuples(st.dictionaries(st.integers(1, 6), labelsets, max_size=4), st.frozensets(st.integers(1, 6))),
    max_size=6,
)


@given(st.lists(selectors, max_size=4), batches)
def test_incremental_selections_are_those_of_a_fresh_cache(
    used: list[Selector], updates: list[tuple[dict[int, LabelSet], frozenset[int]]]
) -> None:
    """Whatever comes and goes, and a selector is told of exactly when its selections differ."""
    cache = SelectorCache()
    cached = [cache.acquire(selector) for selector in used]
    for added, removed in updates:
        before = {id(line): line.identities for line in cached}
        changed = cache.update(added, removed)
        fresh = SelectorCache(cache.identities)
        for line in cached:
            assert line.identities == fresh.selections(line.selector)
            assert (line in changed) == (line.identities != before[id(line)])
