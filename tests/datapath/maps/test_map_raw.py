"""A map as bytes says what failed."""

from pathlib import Path

import pytest

from datapath.abi.mapspecs import MapSpec, MapType
from datapath.errors import MapError
from datapath.maps.raw import RawMap
from datapath.pins import create_pinned

pytestmark = [pytest.mark.root, pytest.mark.bpf]


def test_full_map_is_a_transient_error(bpf_root: Path) -> None:
    """Writing beyond the size raises with map, operation and errno."""
    spec = MapSpec("tiny", MapType.HASH, 4, 4, 1)
    raw = RawMap(spec, create_pinned(spec, bpf_root / "tiny"))
    raw.update(bytes(4), bytes(4))
    with pytest.raises(MapError, match="tiny: update 01000000 failed") as caught:
        raw.update(b"\1\0\0\0", bytes(4))
    assert caught.value.errno == 7
    raw.close()
    raw.close()
