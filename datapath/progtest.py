"""BPF_PROG_TEST_RUN: one packet through one loaded program, without a device.

Not a packet builder (tests/kit/packets.py) and not an attachment. Input: a program's descriptor and bytes
from the Ethernet header on; output: return value, packet and context afterwards. Map and event side
effects are real. Kernel: net/bpf/test_run.c; the context is `struct __sk_buff` of linux/bpf.h.
"""

import ctypes as ct
from dataclasses import dataclass

from datapath import libbpf
from datapath.errors import DatapathError
from palomar.errors import PermanentError

SKB_CONTEXT_SIZE = 192
"""sizeof(struct __sk_buff) on this kernel generation; shorter contexts are allowed."""
_OUT_SIZE = 64 * 1024


class ProgramTestError(DatapathError, PermanentError):
    """The kernel refused the test run (EINVAL: a context field that may not be set, or a short packet)."""

    def __init__(self, errno: int) -> None:
        """Keep the error number."""
        self.errno = errno
        super().__init__(f"BPF_PROG_TEST_RUN failed: {libbpf.reason(errno)}")


@dataclass(frozen=True, slots=True)
class TestRun:
    """What a program did with one packet."""

    __test__ = False
    retval: int
    """TC_ACT_* as the kernel returns it: unsigned 32 bits (TC_ACT_UNSPEC -1 is 0xffffffff)."""
    packet: bytes
    ctx: bytes
    duration_ns: int
    """Mean of one repetition."""


def run(prog_fd: int, packet: bytes, ctx_in: bytes | None = None, repeat: int = 1) -> TestRun:
    """Run the program `repeat` times on `packet` (at least 14 bytes: Ethernet) and return the last result.

    `ctx_in` is a `struct __sk_buff`; only mark, priority, ingress_ifindex, ifindex, cb, tstamp, wire_len,
    gso_segs, gso_size and hwtstamp may be non-zero. Raises `ProgramTestError`.
    """
    data_in = ct.create_string_buffer(packet, len(packet))
    data_out = ct.create_string_buffer(_OUT_SIZE)
    opts = libbpf.TestRunOpts()
    opts.sz = ct.sizeof(opts)
    opts.data_in = ct.addressof(data_in)
    opts.data_size_in = len(packet)
    opts.data_out = ct.addressof(data_out)
    opts.data_size_out = _OUT_SIZE
    opts.repeat = repeat
    ctx = ct.create_string_buffer(ctx_in or bytes(SKB_CONTEXT_SIZE), len(ctx_in or bytes(SKB_CONTEXT_SIZE)))
    ctx_out = ct.create_string_buffer(SKB_CONTEXT_SIZE)
    opts.ctx_in = ct.addressof(ctx)
    opts.ctx_size_in = len(ctx)
    opts.ctx_out = ct.addressof(ctx_out)
    opts.ctx_size_out = SKB_CONTEXT_SIZE
    if libbpf.prog_test_run_opts(prog_fd, ct.byref(opts)) < 0:
        raise ProgramTestError(libbpf.last_errno())
    return TestRun(
        retval=opts.retval,
        packet=data_out.raw[: opts.data_size_out],
        ctx=ctx_out.raw[: opts.ctx_size_out],
        duration_ns=opts.duration,
    )
