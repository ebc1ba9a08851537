"""The pinned maps of a node that has nothing in them."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from datapath.maps.node import DatapathMaps, ensure_maps, specs


@pytest.fixture
def maps(bpf_root: Path) -> Iterator[DatapathMaps]:
    opened = ensure_maps(bpf_root / "tc" / "globals", specs(ct_tcp_max=16384, ct_any_max=1024))
    yield opened
    opened.close()
