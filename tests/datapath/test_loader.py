"""Objects are specialised, loaded, pinned and refused as `datapath.loader` promises."""

from collections.abc import Callable
from pathlib import Path

import pytest

from datapath.errors import MapMismatchError, MapMissingError, ObjectError, VerifierError
from datapath.loader import BpfObject, u32_be
from datapath.pins import map_info, open_pinned
from datapath.progtest import run

pytestmark = [pytest.mark.root, pytest.mark.bpf]

PACKET = bytes(60)


def test_constants_become_part_of_the_program(small_object: Path) -> None:
    """What is set by name before the load is what the program computes with."""
    with BpfObject(small_object) as loaded:
        loaded.set_constants({"endpoint_id": 77, "address_be": u32_be(0x0A000001)})
        loaded.load()
        result = run(loaded.program_fd("cil_from_small"), PACKET)
        assert result.retval == 77
        assert result.ctx[8:12] == bytes([10, 0, 0, 1])  # __sk_buff.mark
        assert result.packet == PACKET
        assert result.duration_ns > 0


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"nonsense": 1}, "has no constant nonsense"),
        ({"endpoint_id": 1 << 32}, "endpoint_id holds 4 bytes"),
        ({"endpoint_id": bytes(5)}, "endpoint_id holds 4 bytes"),
        ({"endpoint_id": -1}, "endpoint_id holds 4 bytes"),
    ],
)
def test_wrong_constants_are_refused(small_object: Path, values: dict[str, int], words: str) -> None:
    """A name the object lacks, or a value that does not fit, is named in the error."""
    with BpfObject(small_object) as loaded, pytest.raises(ObjectError, match=words):
        loaded.set_constants(values)


def test_missing_object_is_named(tmp_path: Path) -> None:
    """Opening nothing raises, with the path."""
    with pytest.raises(ObjectError, match=r"absent\.o"):
        BpfObject(tmp_path / "absent.o")


def test_garbage_object_is_refused_with_libbpfs_words(tmp_path: Path) -> None:
    """A file that is no ELF raises with the captured log, not on standard error."""
    path = tmp_path / "garbage.o"
    path.write_bytes(b"nonsense" * 100)
    with pytest.raises(ObjectError) as caught:
        BpfObject(path)
    assert "garbage.o" in caught.value.log


def test_verifier_log_is_in_the_error(compile_object: Callable[..., Path]) -> None:
    """A program the kernel refuses raises with the verifier's own reason."""
    with BpfObject(compile_object("-DBROKEN")) as loaded, pytest.raises(VerifierError) as caught:
        loaded.load()
    assert "invalid access to packet" in caught.value.log
    assert "invalid access to packet" in str(caught.value)


def test_pinned_maps_are_reused(small_object: Path, bpf_root: Path) -> None:
    """The second load takes the first one's map with what is in it."""
    ids = []
    for _ in range(2):
        with BpfObject(small_object, bpf_root) as loaded:
            loaded.load()
            ids.append(map_info(loaded.map_fd("small_table")).id)
            created = {path.name for path in loaded.created_pins}
            assert created == ({"small_table", "small_calls"} if len(ids) == 1 else set())
    assert ids[0] == ids[1]


def test_every_difference_of_a_pinned_map_is_named(small_object: Path, bpf_root: Path) -> None:
    """Type, key size, value size, size and flags: all that differ, of all maps, with path and remedy."""
    with BpfObject(small_object, bpf_root) as first:
        first.load()
    with BpfObject(small_object, bpf_root) as second:
        second.set_pin("small_calls", bpf_root / "small_table")
        second.set_max_entries("small_table", 99)
        with pytest.raises(MapMismatchError) as caught:
            second.load()
    assert {d.attribute for d in caught.value.differences} == {
        "type",
        "key size",
        "value size",
        "max entries",
        "flags",
    }
    text = str(caught.value)
    assert "type is hash, this build needs prog_array" in text
    assert "max entries is 16, this build needs 99" in text
    assert f"rm {bpf_root}/small_table" in text


def test_failed_load_pins_nothing(compile_object: Callable[..., Path], bpf_root: Path) -> None:
    """After a verifier error the pin folder is as before."""
    with BpfObject(compile_object("-DBROKEN"), bpf_root) as loaded, pytest.raises(VerifierError):
        loaded.load()
    assert list(bpf_root.iterdir()) == []


def test_failed_pin_removes_the_earlier_ones(small_object: Path, bpf_root: Path) -> None:
    """When one of several new maps cannot be pinned, none stays pinned."""
    with BpfObject(small_object, bpf_root) as loaded:
        loaded.set_pin("small_calls", bpf_root / "absent-folder" / "small_calls")
        with pytest.raises(Exception, match="absent-folder"):
            loaded.load()
    assert list(bpf_root.iterdir()) == []


def test_programs_and_maps_before_load_are_refused(small_object: Path) -> None:
    """Descriptors exist only after `load`; unknown names are named."""
    with BpfObject(small_object) as opened:
        with pytest.raises(ObjectError, match="is not loaded"):
            opened.program_fd("stage")
        with pytest.raises(ObjectError, match="has no program nonsense"):
            opened.program_fd("nonsense")
        with pytest.raises(ObjectError, match="has no map nonsense"):
            opened.map_fd("nonsense")


def test_missing_pin_is_its_own_error(bpf_root: Path) -> None:
    """Opening a pin that is not there says which and hints at the agent."""
    with pytest.raises(MapMissingError, match="is the agent running"):
        open_pinned(bpf_root / "absent")


def test_struct_layout_comes_from_btf(small_object: Path) -> None:
    """Offsets are in bits; bit fields have size 0."""
    with BpfObject(small_object) as opened:
        assert opened.struct_size("small_key") == 8
        assert opened.struct_layout("small_key") == {
            "prefix": (0, 4),
            "port": (32, 2),
            "low": (48, 0),
            "high": (51, 0),
            "last": (56, 1),
        }
