"""The identity cache: numbers and labels, batches, listeners."""

from agent.identity.cache import IdentityCache, IdentityChange
from palomar.labels import LabelSet

WEB = LabelSet.parse(["app=web"])
API = LabelSet.parse(["app=api"])


def watched() -> tuple[IdentityCache, list[IdentityChange]]:
    cache, told = IdentityCache(), list[IdentityChange]()
    cache.listen(told.append)
    return cache, told


def test_reserved_identities_are_always_known() -> None:
    """And cannot be changed or removed."""
    cache, told = watched()
    world = cache.labels(2)
    assert world is not None
    assert world.texts() == ["reserved:world"]
    assert cache.number(world) == 2
    assert not cache.update({2: WEB}, [1])
    assert cache.labels(2) == world
    assert told == []


def test_numbers_and_labels_are_found_both_ways() -> None:
    """Two numbers of the same labels are possible for a while: the lowest is told."""
    cache, _ = watched()
    cache.update({300: WEB, 299: WEB, 301: API})
    assert cache.labels(300) == WEB
    assert cache.number(WEB) == 299
    cache.update({}, [299])
    assert cache.number(WEB) == 300
    cache.update({}, [300])
    assert cache.number(WEB) is None
    assert cache.labels(300) is None
    assert list(cache)[-1] == 301
    assert len(cache) == len(cache.as_mapping()) == 11


def test_listeners_are_told_once_per_batch_and_only_of_changes() -> None:
    """With what changed; the cache already knows."""
    cache, told = watched()
    cache.listen(lambda change: seen.append(cache.labels(300)))
    seen: list[LabelSet | None] = []
    cache.update({300: WEB, 301: API})
    cache.update({300: WEB}, [999])
    cache.update({300: API}, [301, 300])
    assert told == [IdentityChange({300: WEB, 301: API}, {}), IdentityChange({300: API}, {301: API})]
    assert seen == [WEB, API]
    assert cache.number(API) == 300
    assert cache.number(WEB) is None
