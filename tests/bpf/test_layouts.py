"""C, Python and docs/abi.md say the same of every struct and every map."""

import re
from enum import IntEnum
from pathlib import Path

import pytest

from datapath.abi import addresses, conntrack, counters, policy
from datapath.abi.mapspecs import GLOBAL_MAPS, POLICY_SPEC
from datapath.events import EVENT_DTYPE
from datapath.loader import BpfObject
from palomar import verdict
from tests.kit.bpfnode import OBJECTS, BpfNode

pytestmark = pytest.mark.bpf

ROOT = Path(__file__).resolve().parents[2]
DOC = (ROOT / "docs" / "abi.md").read_text()
STRUCTS = dict(re.findall(r"^### `struct (\w+)`: (\d+) bytes", DOC, re.MULTILINE))
SIZES = {
    "ipcache_key": addresses.IpcacheKey.FORMAT.size,
    "remote_endpoint_info": addresses.IpcacheEntry.FORMAT.size,
    "endpoint_key": addresses.EndpointKey.FORMAT.size,
    "endpoint_info": addresses.EndpointInfo.FORMAT.size,
    "tunnel_key": addresses.TunnelKey.FORMAT.size,
    "tunnel_value": addresses.TunnelEntry.FORMAT.size,
    "policy_key": policy.PolicyKey.FORMAT.size,
    "policy_entry": policy.PolicyEntry.FORMAT.size,
    "ipv4_ct_tuple": conntrack.CtKey.FORMAT.size,
    "ct_entry": conntrack.CtEntry.FORMAT.size,
    "metrics_key": counters.MetricsKey.FORMAT.size,
    "metrics_value": counters.MetricsValue.FORMAT.size,
    "event": EVENT_DTYPE.itemsize,
    "event_stats": 24,
}


def documented(struct: str) -> dict[str, tuple[int, int]]:
    """Field -> (byte offset, size; 0 for bits) of the doc's table."""
    section = DOC.split(f"### `struct {struct}`")[1].split("\n#")[0]
    rows = re.findall(r"^\| (\d+) \| (\d+|bits) \| (\w+) \|", section, re.MULTILINE)
    return {name: (int(offset), 0 if size == "bits" else int(size)) for offset, size, name in rows}


@pytest.fixture(scope="module")
def lxc(loaded_node: BpfNode) -> BpfObject:
    """The object that has every struct."""
    return loaded_node.object("pod-one")


@pytest.mark.parametrize("struct", SIZES)
def test_struct_is_what_the_doc_says(lxc: BpfObject, struct: str) -> None:
    """Every field's offset and size in BTF, and the size that Python packs."""
    compiled = {name: (bits // 8, size) for name, (bits, size) in lxc.struct_layout(struct).items()}
    assert documented(struct) == compiled
    assert int(STRUCTS[struct]) == lxc.struct_size(struct) == SIZES[struct]


def test_every_documented_struct_is_compared() -> None:
    """The table above knows them all."""
    assert set(STRUCTS) == set(SIZES)


def test_event_is_what_numpy_thinks(lxc: BpfObject) -> None:
    """Names, offsets and sizes of EVENT_DTYPE are the C struct's."""
    assert EVENT_DTYPE.fields is not None
    numpy_view = {name: (field[1] * 8, field[0].itemsize) for name, field in EVENT_DTYPE.fields.items()}
    assert numpy_view == lxc.struct_layout("event")


def test_maps_are_what_the_doc_and_python_say(loaded_node: BpfNode) -> None:
    """Pin, type, sizes: docs/abi.md, datapath/abi/mapspecs.py and the objects."""
    rows = re.findall(
        r"^\| (cilium_\w+|palomar_\w+) \| (\w+) \| (\d+) \| (\d+) \| (\d+) \|", DOC, re.MULTILINE
    )
    told = {name: (kind, int(key), int(value), int(size)) for name, kind, key, value, size in rows}
    specs = {s.name: s for s in (*GLOBAL_MAPS, POLICY_SPEC)}
    for name, spec in specs.items():
        assert told[name] == (spec.type.name.lower(), spec.key_size, spec.value_size, spec.max_entries), name
    assert set(told) == {*specs, "cilium_calls"}
    named = {name for owner in ("pod-one", "host", "overlay") for name in loaded_node.object(owner).map_names}
    assert named == set(told)


@pytest.mark.parametrize(
    ("header", "prefix", "enum"),
    [
        ("trace.h", "TRACE_REASON_", verdict.TraceReason),
        ("policy.h", "POLICY_MATCH_", verdict.PolicyMatchType),
        ("event.h", "VERDICT_", verdict.Verdict),
        ("event.h", "EVENT_", verdict.EventType),
        ("common.h", "DIR_", verdict.TrafficDirection),
    ],
)
def test_numbers_of_events_are_the_vocabulary_s(header: str, prefix: str, enum: type[IntEnum]) -> None:
    """Each enumerator of the C headers is a member of palomar.verdict with the same number."""
    text = (ROOT / "bpf" / "lib" / header).read_text()
    rows = re.findall(rf"^\t{prefix}(\w+) = (\d+),", text, re.MULTILINE)
    assert rows
    for name, number in rows:
        assert enum[name].value == int(number), name


def test_observation_points_are_the_vocabulary_s() -> None:
    """TRACE_TO_* and TRACE_FROM_*."""
    text = (ROOT / "bpf" / "lib" / "trace.h").read_text()
    rows = re.findall(r"^\tTRACE_((?:TO|FROM)_\w+) = (\d+),", text, re.MULTILINE)
    assert len(rows) >= 7
    for name, number in rows:
        assert verdict.ObservationPoint[name].value == int(number)


def test_files_of_the_doc_are_those_of_the_header() -> None:
    """A drop's file id has one meaning."""
    rows = re.findall(r'X\((\d+), "([\w.]+)"\)', (ROOT / "bpf" / "lib" / "source_info.h").read_text())
    told = re.findall(r"\b(\d+) `([\w]+\.[ch])`", DOC.split("\nFiles: ")[1].split("(`bpf")[0])
    assert told == rows
    for _, name in rows:
        assert list((ROOT / "bpf").rglob(name))


def test_constants_of_the_doc_are_those_of_the_objects() -> None:
    """Each object has exactly the constants that the doc tells of it."""
    section = DOC.split("Constants are ")[1].split("\n\n")[0].replace("\n", " ")
    common, rest = section.split("in every object")[1].split("in bpf_lxc.o also")
    lxc, bench = rest.split("in bench_emit.o")

    def names(text: str) -> set[str]:
        return set(re.findall(r"`(\w+)`", text))

    for file, expected in (
        ("bpf_lxc.o", names(common) | names(lxc)),
        ("bpf_host.o", names(common)),
        ("bpf_overlay.o", names(common)),
        ("bench_emit.o", names(common) | names(bench)),
    ):
        opened = BpfObject(OBJECTS / file)
        try:
            assert set(opened.constants()) == expected, file
        finally:
            opened.close()
