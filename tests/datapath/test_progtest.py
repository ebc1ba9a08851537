"""BPF_PROG_TEST_RUN as `datapath.progtest` wraps it."""

import struct
from pathlib import Path

import pytest

from datapath.loader import BpfObject
from datapath.progtest import ProgramTestError, run

pytestmark = [pytest.mark.root, pytest.mark.bpf]


def test_context_goes_in_and_out(small_object: Path) -> None:
    """A mark given to the program comes back as the program left it."""
    with BpfObject(small_object) as loaded:
        loaded.load()
        ctx = bytearray(192)
        struct.pack_into("<I", ctx, 8, 0xABCD)
        assert run(loaded.program_fd("stage"), bytes(60), bytes(ctx)).ctx[8:12] == b"\xcd\xab\0\0"


def test_short_packet_is_refused(small_object: Path) -> None:
    """Less than an Ethernet header is the caller's mistake."""
    with BpfObject(small_object) as loaded:
        loaded.load()
        with pytest.raises(ProgramTestError):
            run(loaded.program_fd("stage"), bytes(10))


def test_repetition_counts_once_in_the_result(small_object: Path) -> None:
    """`repeat` gives a mean duration and the last return value."""
    with BpfObject(small_object) as loaded:
        loaded.set_constants({"endpoint_id": 3})
        loaded.load()
        assert run(loaded.program_fd("stage"), bytes(60), repeat=1000).retval == 3
