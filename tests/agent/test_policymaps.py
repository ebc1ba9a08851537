"""Policy maps: made right with the fewest writes, adds before deletes, the revision last."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.policymaps import FakePolicyMaps, PolicyMaps, PolicyMapWriter
from datapath.abi.policy import PolicyEntry, PolicyKey

A, B, C = PolicyKey(300, False), PolicyKey(301, False, 6, 80, 16), PolicyKey(0, True)
ALLOW, DENY, OTHER = PolicyEntry(False, 1), PolicyEntry(True, 2), PolicyEntry(False, 3)


@pytest.fixture(params=["fake", pytest.param("kernel", marks=[pytest.mark.root, pytest.mark.bpf])])
def maps(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[PolicyMaps]:
    """The fake, and the kernel's."""
    if request.param == "fake":
        yield FakePolicyMaps()
        return
    from datapath.bpffs import ensure_mounted, remove_tree
    from datapath.maps.node import ensure_maps, specs

    root = Path(f"/sys/fs/bpf/plt-{os.getpid()}-policymaps")
    ensure_mounted(root)
    opened = ensure_maps(root, specs(1024, 1024))
    try:
        yield opened
    finally:
        opened.close()
        remove_tree(root)


def test_a_map_becomes_what_is_wished_through_any_change(maps: PolicyMaps) -> None:
    writer = PolicyMapWriter(maps)
    for wish in ({A: ALLOW, C: DENY}, {A: ALLOW, B: ALLOW}, {A: OTHER}, {}, {B: DENY}):
        (outcome,) = writer.apply([(5, wish)])
        assert not outcome.error
        assert maps.policy(5).items() == wish


def test_a_new_agent_finds_what_the_last_one_wrote(maps: PolicyMaps) -> None:
    PolicyMapWriter(maps).apply([(5, {A: ALLOW, B: ALLOW})])
    (outcome,) = PolicyMapWriter(maps).apply([(5, {A: ALLOW, C: DENY})])
    assert (outcome.written, outcome.removed) == (1, 1)
    assert maps.policy(5).items() == {A: ALLOW, C: DENY}


def test_every_change_bumps_the_revision_once_and_none_does_not(maps: PolicyMaps) -> None:
    writer = PolicyMapWriter(maps)
    writer.apply([(5, {A: ALLOW, B: ALLOW})])
    first = maps.bump_policy_revision(5)
    writer.apply([(5, {A: ALLOW, B: ALLOW})])
    assert maps.bump_policy_revision(5) == first + 1
    writer.apply([(5, {A: ALLOW})])
    assert maps.bump_policy_revision(5) == first + 3


def test_adds_come_before_deletes_denies_first_and_the_revision_last() -> None:
    maps = FakePolicyMaps()
    writer = PolicyMapWriter(maps)
    writer.apply([(5, {A: ALLOW})])
    maps.operations.clear()
    writer.apply([(5, {B: ALLOW, C: DENY})])
    assert maps.operations == ["upsert 5 0", "upsert 5 301", "delete 5 300", "bump 5"]


def test_one_broken_map_does_not_stop_the_others_and_is_made_right_later() -> None:
    maps = FakePolicyMaps()
    writer = PolicyMapWriter(maps)
    writer.apply([(5, {A: ALLOW}), (6, {A: ALLOW})])
    maps.policy(5).broken = True
    outcomes = writer.apply([(5, {B: ALLOW}), (6, {B: ALLOW})])
    assert [bool(outcome.error) for outcome in outcomes] == [True, False]
    maps.policy(5).broken = False
    writer.apply([(5, {B: ALLOW})])
    assert maps.policy(5).entries == maps.policy(6).entries == {B: ALLOW}


def test_endpoints_that_share_wishes_end_alike_whatever_they_held() -> None:
    maps = FakePolicyMaps()
    for endpoint_id in range(50):
        maps.policy(endpoint_id).entries = {PolicyKey(400 + endpoint_id, False): ALLOW}
    shared = {A: ALLOW, B: DENY}
    PolicyMapWriter(maps).apply([(endpoint_id, shared) for endpoint_id in range(50)])
    assert all(maps.policy(endpoint_id).entries == shared for endpoint_id in range(50))


def test_entries_of_identities_that_cannot_be_judged_yet_are_kept() -> None:
    maps = FakePolicyMaps()
    writer = PolicyMapWriter(maps)
    local = PolicyKey(0x01000001, False)
    maps.policy(5).entries = {A: ALLOW, B: ALLOW, C: ALLOW, local: ALLOW}
    (outcome,) = writer.apply([(5, {})], judgeable=frozenset({301}))
    assert maps.policy(5).entries == {A: ALLOW}, "301 is known, 0 and local ones are judged always"
    assert outcome.kept == 1
    writer.apply([(5, {})])
    assert maps.policy(5).entries == {}
