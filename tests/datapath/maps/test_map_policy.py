"""Policy maps: made, filled, seen by readers, removed."""

from pathlib import Path

import pytest

from datapath.abi.policy import PolicyEntry, PolicyKey
from datapath.errors import MapMissingError
from datapath.maps.node import DatapathMaps, open_maps

pytestmark = [pytest.mark.root, pytest.mark.bpf]


def test_policy_map_is_made_filled_and_removed(maps: DatapathMaps, bpf_root: Path) -> None:
    """The owner creates it empty; entries come back as written; a reader sees them; removal unpins."""
    assert maps.policy(12).items() == {}
    wanted = {
        PolicyKey(0, True): PolicyEntry(False, 1),
        PolicyKey(4242, False, 6, 80, 16): PolicyEntry(True, 2),
        PolicyKey(4242, False, 17): PolicyEntry(False, 3),
    }
    for k, v in wanted.items():
        maps.policy(12).upsert(k, v)
    assert maps.policy(12).items() == wanted
    assert maps.policy_endpoint_ids() == [12]
    reader = open_maps(bpf_root)
    assert reader.policy(12).items() == wanted
    with pytest.raises(MapMissingError):
        reader.policy(13)
    reader.close()
    assert maps.policy(12).delete(PolicyKey(0, True))
    assert not maps.policy(12).delete(PolicyKey(0, True))
    maps.remove_policy(12)
    maps.remove_policy(12)
    assert maps.policy_endpoint_ids() == []
    assert maps.policy(12).items() == {}


def test_policy_revision_moves_by_one(maps: DatapathMaps) -> None:
    """Each bump is seen by the next read; endpoints are apart."""
    assert [maps.bump_policy_revision(5), maps.bump_policy_revision(5)] == [1, 2]
    assert (maps.policy_revision(5), maps.policy_revision(6)) == (2, 0)
